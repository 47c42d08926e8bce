"""Measured costs of a graph on CUDA devices: every distinct operator alone, and every link.

Times are those of an operator in a replayed graph, many times in a row, so they hold neither
launch overhead nor the cost of events; the cache is warm. Cards of one model share their times.
"""

import math
from collections.abc import Callable, Sequence

from graph_executor.cuda.devices import check_devices
from graph_executor.cuda.driver import Driver
from graph_executor.cuda.links import LINK_SIZES, measure_cuda_links
from graph_executor.cuda.measure import CudaGroupTimer
from graph_executor.measure_cache import CachedTime, MeasureCache, Setting
from hios.costs.analytic import AnalyticCosts
from hios.costs.table import TableCosts
from hios.ir.ids import DeviceId, OpId
from hios.ir.kernels import CompiledGraph
from hios.ir.machine import Machine
from hios.ir.operator_key import operator_key
from hios.statistics import Samples

__all__ = ["measure_cuda_costs"]


def measure_cuda_costs(
    driver: Driver,
    compiled: CompiledGraph,
    machine: Machine,
    *,
    runs: int = 15,
    warmup: int = 3,
    cache: MeasureCache | None = None,
    progress: Callable[[float, str], None] | None = None,
    link_sizes_bytes: Sequence[int] = LINK_SIZES,
) -> tuple[TableCosts, Machine, dict[str, dict[OpId, CachedTime]]]:
    """Measure operators and links.

    Parameters
    ----------
    driver
        CUDA.
    compiled, machine
        What is measured, on which devices.
    runs, warmup
        Timed replays of each operator, and those before them.
    cache
        Where known times are read and new ones kept.
    progress
        Told the fraction done, and what is measured.
    link_sizes_bytes
        See `measure_cuda_links`.

    Returns
    -------
    TableCosts
        Stages of several groups are priced by how much of the device each operator fills.
    Machine
        With measured links.
    dict
        Times by model of the card and operator.

    Raises
    ------
    DeviceUnavailable
        When a device is not there.
    """
    report = progress or (lambda _fraction, _text: None)
    ordinals = check_devices(driver, machine)
    models: dict[str, int] = {}
    for index, ordinal in enumerate(ordinals):
        models.setdefault(driver.facts(ordinal).name, index)
    times = {
        model: _measure(driver, compiled, machine, index, runs, warmup, cache, model, report)
        for model, index in models.items()
    }
    report(1.0, "links")
    measured = measure_cuda_links(driver, machine, link_sizes_bytes)
    names = [driver.facts(ordinal).name for ordinal in ordinals]
    graph = compiled.graph
    analytic = AnalyticCosts(graph, measured)
    costs = TableCosts(
        graph,
        measured,
        tuple(tuple(times[name][op.id].median_us for name in names) for op in graph.operators),
        utilization=[analytic.utilization(op.id, DeviceId(0)) for op in graph.operators],
    )
    return costs, measured, times


def _measure(
    driver: Driver,
    compiled: CompiledGraph,
    machine: Machine,
    index: int,
    runs: int,
    warmup: int,
    cache: MeasureCache | None,
    model: str,
    report: Callable[[float, str], None],
) -> dict[OpId, CachedTime]:
    graph, library = compiled.graph, compiled.library
    setting = Setting(
        model, machine.devices[index].compute_units or 0, library.target, library.tvm_version
    )
    known = {} if cache is None else cache.operator_times(setting)
    fresh: dict[str, CachedTime] = {}
    found: dict[OpId, CachedTime] = {}
    timer = CudaGroupTimer(compiled, machine.devices[index], driver)
    try:
        for op in graph.operators:
            key = operator_key(graph, op.id)
            time = None if key is None else known.get(key) or fresh.get(key)
            if time is None:
                report(op.id / len(graph.operators), f"{op.name} on {model}")
                run = timer.open(((op.id,),))
                try:
                    samples = [run.solo_us(0) for _ in range(warmup + runs)][warmup:]
                finally:
                    run.close()
                own = Samples.of(samples)
                spread = own.spread if math.isfinite(own.spread) else 0.0
                time = CachedTime(own.median_us, spread, len(samples))
                if key is not None:
                    fresh[key] = time
            found[op.id] = time
    finally:
        timer.close()
    if cache is not None and fresh:
        cache.store_operator_times(setting, fresh)
    return found
