"""From scheduled kernels to a library: object by object for a CPU, in one piece for a GPU."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Mapping
from importlib.metadata import version

import tvm
from tvm import tirx

from hios.entry_store import EntryStore
from hios.errors import MissingDependency, StorageError
from hios.ir import KernelLibrary
from hios.linking import check_linking
from relay_passes.cuda.cubin import compile_cubin, find_nvcc
from relay_passes.cuda.packing import device_module
from relay_passes.kernel_linking import link_objects
from relay_passes.kernel_objects import compile_objects
from relay_passes.library import TvmKernelLibrary
from relay_passes.linked_library import LinkedKernelLibrary

__all__ = ["build_kernels"]


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
        source = str(device.inspect_source("cuda"))
        cubin = _kept_cubin(source, str(target.attrs["arch"]), store)
    return TvmKernelLibrary(executable, target, cubin)


def _kept_cubin(source: str, arch: str, store: EntryStore | None) -> bytes:
    """Compile CUDA source, unless it was compiled before by the same compiler."""
    if store is None:
        return compile_cubin(source, arch)
    parts = json.dumps([source, arch, _cuda_compiler()])
    key = f"{hashlib.sha256(parts.encode()).hexdigest()[:40]}.cubin"
    known = store.get(key)
    if known is not None:
        return bytes(known)
    cubin = compile_cubin(source, arch)
    store.put(key, cubin)
    return cubin


def _cuda_compiler() -> str:
    """Tell apart the compilers that `compile_cubin` may take."""
    nvcc = find_nvcc()
    if nvcc is None:
        return f"nvrtc {version('cuda-bindings')}"
    said = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False)
    return f"{nvcc} {said.stdout}"


def _is_linkable() -> bool:
    """Return whether kernels can be linked here; where not, LLVM loads them by itself."""
    try:
        check_linking()
    except (MissingDependency, StorageError):
        return False
    return True
