"""What this machine has, what is missing, and the command that gets it.

Every probe stands alone: a broken package, a missing driver or an unwritable folder is a
finding, never an exception. Packages whose import may crash the process are imported in a
process of their own.
"""

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hios
from hios.cache_folder import compile_stores
from hios.ir.presets import available_cores
from hios_tvm.cuda_diagnosis import diagnose_cuda
from hios_tvm.finding import Finding, Status
from hios_tvm.model_finding import model_finding

__all__ = ["Finding", "Status", "diagnose"]

_PROBE_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class _Package:
    """A package to look at, as pip and as Python call it."""

    distribution: str
    module: str
    is_optional: bool = False


_PACKAGES = (
    _Package("click", "click"),
    _Package("cloudpickle", "cloudpickle"),
    _Package("matplotlib", "matplotlib"),
    _Package("ml-dtypes", "ml_dtypes"),
    _Package("msgspec", "msgspec"),
    _Package("networkx", "networkx"),
    _Package("numba", "numba"),
    _Package("numpy", "numpy"),
    _Package("onnx", "onnx"),
    _Package("psutil", "psutil"),
    _Package("rich", "rich"),
    _Package("safetensors", "safetensors"),
    _Package("tornado", "tornado"),
    _Package("xgboost", "xgboost"),
    _Package("onnxruntime", "onnxruntime", is_optional=True),
    _Package("ortools", "ortools", is_optional=True),
    _Package("cuda-core", "cuda.core", is_optional=True),
    _Package("cuda-bindings", "cuda.bindings", is_optional=True),
)
_TVM = "tvm"

# Imports each module it is given and says so line by line: when it dies, the last line tells
# which module killed it. TVM also says what it was built with.
_PROBE = """
import importlib, json, sys
for name in sys.argv[1:]:
    print(json.dumps({"module": name}), flush=True)
    facts = {}
    try:
        module = importlib.import_module(name)
        if name == "tvm":
            from tvm.target import codegen
            facts = {"version": module.__version__, "llvm": codegen.llvm_version_major(),
                     "cuda": str(module.support.libinfo().get("USE_CUDA", "OFF"))}
    except BaseException as problem:
        facts = {"error": f"{type(problem).__name__}: {problem}"}
    print(json.dumps({"module": name, "facts": facts}), flush=True)
"""


def diagnose(cache_folder: Path) -> list[Finding]:
    """Look at everything that hios-tvm uses.

    Parameters
    ----------
    cache_folder
        Where measured times, compiled kernels and builds are kept.

    Returns
    -------
    list of Finding
        In the order in which a reader wants them; takes a few seconds, since every package
        is imported in a process of its own.
    """
    modules = [package.module for package in _PACKAGES if _is_found(package.module)]
    facts = _import_all([_TVM, *modules] if _is_found(_TVM) else modules)
    findings = [_python(), _self(), *_tvm(facts.get(_TVM))]
    findings += [_package(package, facts.get(package.module)) for package in _PACKAGES]
    findings += [
        _torch(),
        _host_cpu(),
        _cost_model(),
        _memory(),
        _compiler(),
        *([] if "error" in facts.get(_TVM, {}) else diagnose_cuda()),
        _cache(cache_folder),
    ]
    return findings


def _import_all(modules: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Import modules in another process; what one that dies says is ``{"error": ...}``."""
    facts: dict[str, dict[str, Any]] = {}
    left = list(modules)
    while left:
        try:
            probe = subprocess.run(
                [sys.executable, "-c", _PROBE, *left],
                capture_output=True,
                text=True,
                timeout=_PROBE_TIMEOUT_S,
                check=False,
            )
            output, end = probe.stdout, f"the process died with exit code {probe.returncode}"
        except subprocess.TimeoutExpired as problem:
            output = problem.stdout.decode() if isinstance(problem.stdout, bytes) else ""
            end = f"its import did not end within {_PROBE_TIMEOUT_S} s"
        for line in output.splitlines():
            if line.startswith('{"module"'):
                said = json.loads(line)
                facts[said["module"]] = said.get("facts", {"error": end})
        if left[0] not in facts:
            facts[left[0]] = {"error": end}
        left = [module for module in left if module not in facts]
    return facts


def _python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")


def _self() -> Finding:
    return Finding("hios-tvm", "ok", f"{hios.__version__} at {Path(hios.__file__).parents[1]}")


def _tvm(facts: dict[str, Any] | None) -> list[Finding]:
    install = "python -m pip install apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post1"
    if facts is None:
        return [Finding("apache-tvm", "broken", "not installed", install)]
    if "error" in facts:
        version = _version("apache-tvm") or "unknown version"
        detail = f"{version}, but its import fails: {facts['error']}"
        return [Finding("apache-tvm", "broken", detail, install)]
    has_cuda = facts["cuda"].upper() not in ("OFF", "0", "FALSE", "NOT-FOUND", "")
    built = "compiles for CUDA as well" if has_cuda else "built without CUDA"
    findings = [Finding("apache-tvm", "ok", f"{facts['version']}, {built}")]
    ffi = _version("apache-tvm-ffi") or "not found"
    if ffi.startswith("0.1.15"):
        detail = f"{ffi}: saving a module crashes"
        findings.append(Finding("apache-tvm-ffi", "broken", detail, install))
    else:
        findings.append(Finding("apache-tvm-ffi", "ok", ffi))
    if facts["llvm"] is None:
        findings.append(Finding("LLVM", "broken", "TVM was built without it", install))
    else:
        findings.append(Finding("LLVM", "ok", f"{facts['llvm']} (inside TVM)"))
    return findings


def _package(package: _Package, facts: dict[str, Any] | None) -> Finding:
    version = _version(package.distribution)
    remedy = f"python -m pip install {package.distribution}"
    if facts is None:
        status: Status = "absent" if package.is_optional else "broken"
        detail = "not installed" if version is None else f"{version}, but its files are missing"
        return Finding(package.distribution, status, detail, remedy)
    if "error" in facts:
        detail = f"{version or 'unknown version'}, but its import fails: {facts['error']}"
        remedy = f"python -m pip install --force-reinstall {package.distribution}"
        return Finding(package.distribution, "broken", detail, remedy)
    return Finding(package.distribution, "ok", version or "unknown version")


def _torch() -> Finding:
    version = _version("torch")
    if version is not None:
        return Finding("torch", "ok", f"{version} (reads .pt2 files)")
    return Finding(
        "torch",
        "absent",
        "not installed; only needed to read PyTorch models",
        "python -m pip install torch",
    )


def _host_cpu() -> Finding:
    cores = available_cores()
    usable = ", ".join(str(core) for core in cores) if len(cores) <= 16 else f"{len(cores)} cores"
    detail = f"{_cpu_name()}: {len(cores)} of {os.cpu_count()} cores usable ({usable})"
    return Finding("CPU", "ok", detail)


def _cost_model() -> Finding:
    return model_finding("cost model", "cpu", _cpu_name(), len(available_cores()), "llvm")


def _memory() -> Finding:
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return Finding("memory", "absent", "the system does not tell")
    return Finding("memory", "ok", f"{total / 1e9:.1f} GB, {free / 1e9:.1f} GB of it unused")


def _compiler() -> Finding:
    for name in (os.environ.get("CXX", ""), "g++", "c++", "clang++", "gcc", "cc"):
        path = shutil.which(name) if name else None
        if path is not None:
            return Finding("C++ compiler", "ok", path)
    return Finding(
        "C++ compiler",
        "broken",
        "none found; saving an artifact links a shared library",
        "install one (Debian: apt install g++)",
    )


def _cache(folder: Path) -> Finding:
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
        free = shutil.disk_usage(existing).free
    except OSError as problem:
        reason = problem.strerror or str(problem)
        return Finding(
            "cache", "broken", f"{folder}: {reason}", "set XDG_CACHE_HOME to a writable folder"
        )
    kernels, builds = (store.usage() for store in compile_stores(folder))
    held = (
        f"{kernels.entries} kernels ({kernels.size_bytes / 1e6:.1f} of at most "
        f"{kernels.limit_bytes / 1e6:.0f} MB), {builds.entries} builds "
        f"({builds.size_bytes / 1e6:.1f} of at most {builds.limit_bytes / 1e6:.0f} MB)"
    )
    return Finding("cache", "ok", f"{folder}: {held}, {free / 1e9:.1f} GB free")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # a parent package is missing or broken
        return False


def _cpu_name() -> str:
    readers: tuple[Callable[[], str], ...] = (_name_from_proc, platform.processor)
    for read in readers:
        name = read()
        if name:
            return name
    return platform.machine()


def _name_from_proc() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    for line in text.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return ""
