"""A tuned kernel and the one of our rules, timed in turns on the same data."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tvm
from tvm import tirx

from hios.entry_store import EntryStore
from relay_passes.build_kernels import build_kernels
from relay_passes.tuning.database import Verdict

__all__ = ["MARGIN", "TOLERANCE", "compare_kernels"]

MARGIN = 0.97
"""A tuned kernel must take at most this share of the rule's time: more than noise."""

TOLERANCE = 1e-5
"""Largest relative difference of float32 outputs; the order of additions may change."""

_ROUNDS = 15
_BATCH_S = 0.004


def compare_kernels(
    rule: tirx.PrimFunc,
    tuned: tirx.PrimFunc,
    target: tvm.target.Target,
    store: EntryStore | None = None,
) -> Verdict:
    """Compile both kernels and measure them here, on one core and on all.

    Parameters
    ----------
    rule, tuned : tirx.PrimFunc
        The same kernel, scheduled in two ways.
    target : tvm.target.Target
        An ``llvm`` target for this machine.
    store : EntryStore, optional
        Where objects are kept.

    Returns
    -------
    Verdict
        The tuned one is faster where the median over rounds of the ratio of both times is below
        `MARGIN`, for each number of cores.
    """
    named = {
        "rule": rule.with_attr("global_symbol", "rule"),
        "tuned": tuned.with_attr("global_symbol", "tuned"),
    }
    module = build_kernels(named, target, store).module
    inputs = _random_arrays(rule)
    outputs: dict[str, list[Any]] = {}
    calls: dict[str, Callable[[], Any]] = {}
    for name in named:
        kernel = module.get_function(name)
        arrays = [tvm.runtime.tensor(array) for array in inputs]
        kernel(*arrays)
        outputs[name] = [array.numpy() for array in arrays]
        calls[name] = _bound(kernel, arrays)
    error = _difference(outputs["tuned"], outputs["rule"])
    cores = sorted(os.sched_getaffinity(0))
    rule_us, tuned_us, is_faster = {}, {}, error <= TOLERANCE
    for count in sorted({1, len(cores)}):
        pairs = _on_cores(cores[:count], lambda: _interleave(calls["rule"], calls["tuned"]))
        rule_us[str(count)] = statistics.median(pair[0] for pair in pairs)
        tuned_us[str(count)] = statistics.median(pair[1] for pair in pairs)
        ratio = statistics.median(pair[1] / pair[0] for pair in pairs)
        is_faster = is_faster and ratio < MARGIN
    return Verdict(rule_us, tuned_us, error, is_faster)


def _bound(kernel: Any, arrays: Sequence[Any]) -> Callable[[], Any]:
    return lambda: kernel(*arrays)


def _random_arrays(func: tirx.PrimFunc) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    arrays: list[np.ndarray[Any, Any]] = []
    for param in func.params:
        shape = [int(extent) for extent in param.ty.shape]
        dtype = np.dtype(str(param.ty.dtype.dtype))
        if dtype.kind == "f":
            arrays.append(rng.standard_normal(shape).astype(dtype))
        else:
            arrays.append(np.zeros(shape, dtype))
    return arrays


def _difference(found: Sequence[Any], reference: Sequence[Any]) -> float:
    worst = 0.0
    for a, b in zip(found, reference, strict=True):
        scale = float(np.linalg.norm(b.astype(np.float64).ravel()))
        apart = float(np.linalg.norm((a.astype(np.float64) - b.astype(np.float64)).ravel()))
        worst = max(worst, apart / scale if scale > 0.0 else apart)
    return worst


def _interleave(first: Callable[[], Any], second: Callable[[], Any]) -> list[tuple[float, float]]:
    """Return pairs of times in µs, the two in turns and in changing order."""
    for call in (first, second):
        call()
    started = time.perf_counter()
    first()
    number = max(1, int(_BATCH_S / max(time.perf_counter() - started, 1e-7)))
    pairs = []
    for turn in range(_ROUNDS):
        if turn % 2:
            late = _time_us(second, number)
            pairs.append((_time_us(first, number), late))
        else:
            early = _time_us(first, number)
            pairs.append((early, _time_us(second, number)))
    return pairs


def _time_us(call: Callable[[], Any], number: int) -> float:
    started = time.perf_counter()
    for _ in range(number):
        call()
    return (time.perf_counter() - started) / number * 1e6


def _on_cores(cores: Sequence[int], work: Callable[[], Any]) -> Any:
    """Run `work` in a thread of its own, whose pool of TVM has one thread on each of `cores`."""

    def run() -> Any:
        configure = tvm.get_global_func("runtime.config_threadpool")
        configure(-2, len(cores), tvm.runtime.convert([str(core) for core in cores]))
        return work()

    with ThreadPoolExecutor(1, "hios-compare") as thread:
        return thread.submit(run).result()
