"""TVM on ``tvm_ffi`` (0.27, Relax).

Views at an offset need kernels whose buffers declare an offset factor, as our passes see to.
"""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm_ffi.libinfo import load_lib_ctypes

from graph_executor.dtypes import numpy_dtype
from graph_executor.host import vector_features
from graph_executor.tvm_runtime.huge_pages import prefer_huge_pages
from graph_executor.tvm_runtime.protocol import Array, Kernel
from hios.errors import ArtifactMismatch, StorageError
from hios.linking import check_linking, linking_failure

__all__ = [
    "Memory",
    "bind_copy",
    "bind_launch",
    "device_tensor",
    "export_executable",
    "find_kernel",
    "load_library",
    "open_executable",
    "runtime_version",
    "set_stream",
    "set_threads",
    "target_features",
]

_SPECIFY_ONE_CORE_PER_THREAD = -2

# Threads of TVM's pools look for work 300,000 times, with a yield each, before they sleep: a
# tenth of a second of a busy core after every run, and before a pool can end. A few milliseconds
# outlast any gap within a run. TVM reads this once, when the first pool starts; whoever set it
# before keeps their value.
os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", "10000")


def _load_device_runtimes() -> None:
    """Load what stands beside TVM's runtime where it comes without the compiler.

    With the compiler ``import tvm`` does it. They register themselves when they are loaded; one
    that cannot be loaded, for want of a driver, leaves its kernels without a loader.
    """
    if not tvm.base._RUNTIME_ONLY:
        return
    folder = Path(tvm.base._LOADED_LIBS["tvm_runtime"]._name).resolve().parent
    for name in ("tvm_runtime_cuda", "tvm_runtime_extra"):
        with suppress(OSError, RuntimeError):
            tvm.base._LOADED_LIBS[name] = load_lib_ctypes("tvm", name, "RTLD_LOCAL", [folder])


_load_device_runtimes()


def runtime_version() -> str:
    """Return the version of the TVM that is loaded."""
    return str(tvm.__version__)


class Memory:
    """One allocation on one device.

    Parameters
    ----------
    kind
        ``cpu``.
    index
        The device id that its tensors carry.
    size_bytes
        Its size.
    """

    def __init__(self, kind: str, index: int, size_bytes: int) -> None:
        self._base = tvm.runtime.empty(
            (max(1, size_bytes),), "uint8", tvm.runtime.device(kind, index)
        )
        self._bytes: Array = np.from_dlpack(self._base)
        prefer_huge_pages(self._bytes)

    def tensor(self, offset: int, shape: Sequence[int], dtype: str) -> Any:
        """Return a part of it as a tensor that kernels take."""
        return self._base._create_view(tuple(shape), dtype, offset)

    def array(self, offset: int, shape: Sequence[int], dtype: str) -> Array:
        """Return the same part as a numpy array that shares its memory."""
        kind = numpy_dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        return self._bytes[offset : offset + size].view(kind).reshape(tuple(shape))

    def fill(self, byte: int) -> None:
        """Set every byte."""
        self._bytes.fill(byte)


def load_library(path: Path, origin: Path | None = None) -> Any:
    """Load an exported kernel library.

    Parameters
    ----------
    path
        The file. The dynamic loader knows libraries by their paths: where one was loaded from
        before, the old kernels come again, whatever the file holds by now.
    origin
        What to call it in messages, if it is a copy.

    Raises
    ------
    ArtifactMismatch
        When it is no library that this TVM can load.
    """
    try:
        return tvm.runtime.load_module(str(path))
    except (RuntimeError, ValueError, OSError) as problem:
        first = str(problem).strip().splitlines()[0] if str(problem).strip() else "no reason given"
        raise ArtifactMismatch(
            f"{str(origin or path)!r} cannot be loaded as a kernel library ({first}); compile it "
            "again"
        ) from problem


def open_executable(executable: Any) -> tuple[Callable[[str], Any], Any]:
    """Open an executable of TVM's virtual machine to read what it carries.

    Parameters
    ----------
    executable
        From ``tvm.compile``, or a loaded library that was exported from one.

    Returns
    -------
    tuple
        A function that gives the value of a function without parameters by name (strings as
        `str`, tuples of tensors as lists of numpy arrays; None where there is none), and the
        runtime module with the kernels.

    Raises
    ------
    ArtifactMismatch
        When it is no such executable.
    """
    from tvm import relax

    try:
        machine = relax.VirtualMachine(executable, tvm.cpu())
    except (AttributeError, RuntimeError, TypeError, ValueError) as problem:
        raise ArtifactMismatch(
            f"a {type(executable).__name__} is no executable of TVM's virtual machine; pass a "
            "CompiledGraph, or what tvm.compile(..., relax_pipeline=hios_tvm.pipeline(...)) gave"
        ) from problem

    def value(name: str) -> Any:
        try:
            found = machine[name]()
        except (AttributeError, RuntimeError, ValueError):
            return None
        if isinstance(found, str):
            return str(found)
        return [tensor.numpy() for tensor in found]

    return value, executable.mod if hasattr(executable, "mod") else executable


def export_executable(executable: Any, path: Path) -> None:
    """Write an executable as a shared library.

    Raises
    ------
    StorageError
        When it cannot be written.
    MissingDependency
        When there is no C compiler to link with.
    """
    check_linking()
    try:
        executable.export_library(str(path))
    except (OSError, RuntimeError, ValueError) as problem:
        raise StorageError(
            f"cannot link kernels to {str(path)!r}: {linking_failure(problem)}; a C compiler (cc) "
            "and space are needed"
        ) from problem


def find_kernel(module: Any, name: str) -> Kernel:
    """Return the function called `name` of a loaded library.

    Raises
    ------
    ArtifactMismatch
        When the library has none.
    """
    try:
        found: Kernel | None = module.get_function(name, query_imports=True)
    except (AttributeError, RuntimeError, ValueError):
        found = None
    if found is None:
        raise ArtifactMismatch(
            f"the kernel library has no function {name!r}; graph and kernels do not belong "
            "together, compile the model again"
        )
    return found


def bind_launch(kernel: Kernel, tensors: Sequence[Any]) -> Callable[[], Any]:
    """Return a call of `kernel` with its tensors; 0.1 µs of Python each time."""
    return partial(kernel, *tensors)


def bind_copy(source: Any, target: Any) -> Callable[[], Any]:
    """Return a call that copies one tensor to another of the same shape, on any devices."""
    return partial(tvm.runtime._ffi_api.TVMTensorCopyFromTo, source, target)


def device_tensor(owner: Any, pointer: int, index: int, shape: Sequence[int], dtype: str) -> Any:
    """Return memory of a CUDA device as a tensor that kernels take.

    Parameters
    ----------
    owner
        Exports the memory by DLPack, as bytes from `pointer` on, and keeps it.
    pointer, index
        Its address and the ordinal of its device, which `owner` knows in this generation.
    shape, dtype
        Of the tensor, which starts at offset zero.
    """
    return tvm.runtime.from_dlpack(owner)._create_view(tuple(shape), dtype, 0)


def set_stream(index: int, handle: int) -> None:
    """Make kernels of the calling thread go to a stream of a CUDA device; 0: the legacy one."""
    tvm_ffi.use_raw_stream(tvm.runtime.device("cuda", index), handle).__enter__()


def set_threads(cores: Sequence[int]) -> Callable[[], Any]:
    """Return a call that makes the kernels of the calling thread run on `cores`.

    One thread per core, the calling one included. TVM's pool belongs to the calling thread and
    gets its size from the first such call, so the first must name the most cores. The call
    costs about 3 µs and also sets the affinity of the calling thread itself.
    """
    configure = tvm.get_global_func("runtime.config_threadpool")
    names = tvm.runtime.convert([str(core) for core in cores])
    return partial(configure, _SPECIFY_ONE_CORE_PER_THREAD, len(cores), names)


def target_features(target: str) -> tuple[str, ...]:
    """Return the vector extensions that kernels for an LLVM target may use, sorted.

    Parameters
    ----------
    target
        TVM's JSON of the target.

    Returns
    -------
    tuple of str
        In LLVM's spelling; empty for other targets, and without TVM's compiler.
    """
    try:
        features = tvm.get_global_func("target.llvm_get_cpu_features", allow_missing=True)
        described = json.loads(target)
    except ValueError:
        return ()
    if features is None or described.get("kind") != "llvm":
        return ()
    return tuple(
        sorted(vector_features([str(name) for name in features(tvm.target.Target(described))]))
    )
