"""From scheduled kernels to a library: object by object for a CPU, in one piece for a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tvm
from tvm import tirx

from hios.entry_store import EntryStore
from hios.errors import MissingDependency, StorageError
from hios.ir import KernelLibrary
from hios.linking import check_linking
from relay_passes.cuda.cubin import compile_cubin
from relay_passes.cuda.packing import device_module
from relay_passes.kernel_linking import link_objects
from relay_passes.kernel_objects import compile_objects
from relay_passes.library import TvmKernelLibrary
from relay_passes.linked_library import LinkedKernelLibrary

__all__ = ["build_kernels", "cubin_of"]


def build_kernels(
    kernels: Mapping[str, tirx.PrimFunc],
    target: tvm.target.Target,
    store: EntryStore | None = None,
    progress: Callable[[float], None] | None = None,
) -> KernelLibrary:
    """Compile the kernels of a graph.

    Parameters
    ----------
    kernels : mapping
        Scheduled PrimFuncs by name.
    target : tvm.target.Target
        What for.
    store : EntryStore, optional
        Where object files are kept.
    progress : callable, optional
        Told the fraction done, from any thread.

    Raises
    ------
    MissingDependency
        When there is no compiler of CUDA machine code.
    StorageError
        When object files cannot be linked although there seemed to be room.
    RuntimeError, ValueError, TypeError
        What TVM raises for a kernel that it cannot compile.
    """
    if str(target.kind.name) == "llvm" and kernels and _is_linkable():
        objects = compile_objects(kernels, target, store, progress)
        return LinkedKernelLibrary(link_objects(objects), str(target))
    executable = tvm.compile(tvm.IRModule(dict(kernels)), target=target)
    cubin = None
    if str(target.kind.name) == "cuda" and (device := device_module(executable.mod)) is not None:
        if progress is not None:
            progress(0.5)
        source = str(device.inspect_source("cuda"))
        cubin = compile_cubin(source, str(target.attrs["arch"]))
    return TvmKernelLibrary(executable, target, cubin)


def cubin_of(library: KernelLibrary) -> bytes | None:
    """Return the machine code of a library of CUDA kernels; None for any other."""
    return library.cubin if isinstance(library, TvmKernelLibrary) else None


def _is_linkable() -> bool:
    """Return whether kernels can be linked here; where not, LLVM loads them by itself."""
    try:
        check_linking()
    except (MissingDependency, StorageError):
        return False
    return True
