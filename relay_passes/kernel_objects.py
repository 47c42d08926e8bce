"""Scheduled kernels as object files, each compiled on its own, over all cores, and kept.

A kernel's object depends on its scheduled PrimFunc, the target, and the compiler, but not on the
network it was found in: names of variables stay out of the structural hash, and its symbol is
made of what it computes and that hash. So networks that share a kernel share its object, and
`relay_passes.kernel_linking` gives it the name by which this network calls it.

LLVM gives the interpreter's lock back while it works, and compiles a kernel to the same bytes
whatever happens in other threads: with and without a cache, on one core or on many, kernels are
the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

from hios.entry_store import EntryStore
from relay_passes.build_environment import compiler_fingerprint, is_observed

__all__ = ["KernelObject", "compile_objects", "object_symbol"]


@dataclass(frozen=True, slots=True)
class KernelObject:
    """One compiled kernel.

    Attributes
    ----------
    symbol
        Its name within the object file (TVM's, without the prefix of the platform).
    data
        The object file.
    is_kept
        Whether it came from the cache.
    """

    symbol: str
    data: bytes | memoryview
    is_kept: bool


def compile_objects(
    kernels: Mapping[str, tirx.PrimFunc],
    target: tvm.target.Target,
    store: EntryStore | None = None,
    progress: Callable[[float], None] | None = None,
) -> dict[str, KernelObject]:
    """Compile kernels for a CPU target, those that are not known yet.

    Parameters
    ----------
    kernels : mapping
        Scheduled PrimFuncs by the name that the network gives them.
    target : tvm.target.Target
        An ``llvm`` target.
    store : EntryStore, optional
        Where objects are kept.
    progress : callable, optional
        Told the fraction done, from any thread.

    Returns
    -------
    dict
        The object of each kernel, by the same names.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        What TVM raises for a kernel that it cannot compile.
    """
    watched = is_observed()
    if watched:
        store = None
    context: Any = tvm.transform.PassContext.current()
    fingerprint = "" if store is None else compiler_fingerprint()
    report = progress or (lambda _done: None)
    lock, finished = threading.Lock(), 0

    def one(name: str) -> KernelObject:
        nonlocal finished
        func = kernels[name]
        symbol = object_symbol(name, func)
        key = _key(symbol, func, target, fingerprint)
        data = None if store is None else store.get(key)
        found = data is not None
        if data is None:
            # The pass context belongs to a thread.
            with context:
                data = memoryview(_compile(symbol, func, target))
            if store is not None:
                store.put(key, data)
        with lock:
            finished += 1
            report(finished / len(kernels))
        return KernelObject(symbol, data, found)

    # Whoever watches passes from this thread expects them in it.
    workers = 1 if watched else min(len(kernels), len(os.sched_getaffinity(0)))
    if workers <= 1:
        return {name: one(name) for name in kernels}
    with ThreadPoolExecutor(workers, "hios-compile") as pool:
        futures = {name: pool.submit(one, name) for name in kernels}
        try:
            return {name: future.result() for name, future in futures.items()}
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def object_symbol(name: str, func: tirx.PrimFunc) -> str:
    """Return the name of a kernel's code: what it computes, and its structural hash.

    Examples
    --------
    ``fused_conv2d3_add1_relu`` becomes ``fused_conv2d_add_relu_0f3a…``.
    """
    plain = func.without_attr("global_symbol") if "global_symbol" in func.attrs else func
    stem = re.sub(r"_?\d+(?=_|$)", "", name)
    digest = int(tvm_ffi.structural_hash(plain)) & 0xFFFFFFFFFFFFFFFF
    return f"{stem}_{digest:016x}"


def _key(symbol: str, func: tirx.PrimFunc, target: tvm.target.Target, fingerprint: str) -> str:
    # The hash has 64 bits and is in the symbol; the signature stands beside it for certainty.
    signature = [[[str(s) for s in p.ty.shape], str(p.ty.dtype.dtype)] for p in func.params]
    parts = json.dumps([symbol, signature, str(target), fingerprint])
    return f"{hashlib.sha256(parts.encode()).hexdigest()[:40]}.o"


def _compile(symbol: str, func: tirx.PrimFunc, target: tvm.target.Target) -> bytes:
    module = tvm.tirx.build(
        tvm.IRModule({symbol: func.with_attr("global_symbol", symbol)}), target=target
    )
    with tempfile.TemporaryDirectory(prefix="hios-object-") as folder:
        path = Path(folder) / "kernel.o"
        module.write_to_file(str(path))
        return path.read_bytes()
