"""Compile CUDA source to a cubin, with nvcc or, where there is none, with NVRTC.

Neither needs a GPU. All kernels of a network are one source and one call: starting nvcc costs
about a second, and ptxas works on the kernels in parallel (``--split-compile=0``). Fast
approximations of division, square roots and transcendental functions stay off: kernels that
need them are bound by memory, and results are compared with a CPU's.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hios.errors import MissingDependency, StorageError, UnsupportedModel

__all__ = ["compile_cubin", "find_nvcc"]

_NO_COMPILER = (
    "cannot compile CUDA kernels: neither nvcc nor NVRTC is here; install the CUDA toolkit, or "
    "python -m pip install 'cuda-bindings>=13.0' nvidia-cuda-nvrtc nvidia-cuda-runtime"
)


def find_nvcc() -> str | None:
    """Return the path of nvcc: on the path, or in the toolkit that ``CUDA_HOME`` names."""
    found = shutil.which("nvcc")
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        home = os.environ.get(variable)
        if found is None and home:
            found = shutil.which("nvcc", path=str(Path(home) / "bin"))
    return found


def compile_cubin(source: str, arch: str) -> bytes:
    """Compile CUDA C++ to the machine code of one architecture.

    Parameters
    ----------
    source : str
        All kernels of a module, as TVM prints them.
    arch : str
        Such as ``sm_90``.

    Returns
    -------
    bytes
        An ELF file.

    Raises
    ------
    MissingDependency
        When there is no compiler.
    StorageError
        When the temporary folder cannot be written.
    UnsupportedModel
        When the compiler refuses the source, with its first error.
    """
    nvcc = find_nvcc()
    if nvcc is not None:
        return _with_nvcc(nvcc, source, arch)
    return _with_nvrtc(source, arch)


def _with_nvcc(nvcc: str, source: str, arch: str) -> bytes:
    try:
        with tempfile.TemporaryDirectory(prefix="hios-cubin-") as folder:
            text, code = Path(folder, "kernels.cu"), Path(folder, "kernels.cubin")
            text.write_text(source)
            command = [nvcc, "-cubin", f"-arch={arch}", "-O3", "--split-compile=0"]
            done = subprocess.run(
                [*command, "-o", str(code), str(text)], capture_output=True, text=True, check=False
            )
            if done.returncode == 0:
                return code.read_bytes()
    except OSError as error:
        raise StorageError(f"cannot compile CUDA kernels: {error}") from None
    raise _refused(arch, done.stdout + done.stderr)


def _with_nvrtc(source: str, arch: str) -> bytes:
    try:
        from cuda.bindings import nvrtc
    except ImportError:
        raise MissingDependency(_NO_COMPILER) from None
    text = _without_host_headers(source)
    try:
        status, program = nvrtc.nvrtcCreateProgram(text.encode(), b"kernels.cu", 0, [], [])
    except RuntimeError:  # the bindings are here, the library is not
        raise MissingDependency(_NO_COMPILER) from None
    _check(nvrtc, status)
    options = [f"--gpu-architecture={arch}".encode(), b"--std=c++17", *_include_options()]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        _, size = nvrtc.nvrtcGetProgramLogSize(program)
        log = b" " * size
        nvrtc.nvrtcGetProgramLog(program, log)
        raise _refused(arch, log.decode(errors="replace"))
    status, size = nvrtc.nvrtcGetCUBINSize(program)
    _check(nvrtc, status)
    code: bytes = b" " * size
    _check(nvrtc, nvrtc.nvrtcGetCUBIN(program, code)[0])
    nvrtc.nvrtcDestroyProgram(program)
    return code


def _check(nvrtc: Any, status: Any) -> None:
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise MissingDependency(f"NVRTC does not work: {status.name}; install the CUDA toolkit")


def _without_host_headers(source: str) -> str:
    """Put plain types in the place of TVM's preamble, whose headers only a toolkit has."""
    types = "\n".join(
        f"using {name}_t = {written};"
        for name, written in (
            ("int8", "signed char"),
            ("uint8", "unsigned char"),
            ("int16", "short"),
            ("uint16", "unsigned short"),
            ("int32", "int"),
            ("uint32", "unsigned int"),
            ("int64", "long long"),
            ("uint64", "unsigned long long"),
        )
    )
    pattern = r"#ifdef __CUDACC_RTC__\n.*?<cuda\.h>\n#endif\n"
    return re.sub(pattern, lambda _: types + "\n", source, count=1, flags=re.DOTALL)


def _include_options() -> list[bytes]:
    try:
        from cuda.pathfinder import find_nvidia_header_directory
    except ImportError:
        return []
    found = find_nvidia_header_directory("cudart")
    return [] if found is None else [f"--include-path={found}".encode()]


def _refused(arch: str, log: str) -> UnsupportedModel:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    said = (errors or lines or ["it gave no reason"])[0]
    return UnsupportedModel(f"the CUDA compiler refuses the kernels for {arch}: {said}")
