"""Measured costs of a graph on the cores of this machine.

Operators are measured where they will run: the whole graph runs on one device, operator after
operator, some fifteen times, and each operator is stamped. So every operator finds the caches as
its neighbours leave them, samples of all operators interleave, and the times add up to the
sequential latency, which timing each kernel alone in a loop does not give (its data stay in the
nearest cache). Operators of one key share one time: the mean over them of each one's median.

A device's time depends on how many cores it has, not on which: each number of cores is measured
once, and one core besides, from which the costs of stages follow.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from graph_executor.executor import GraphExecutor
from graph_executor.host import cpu_name
from graph_executor.links import measure_links
from graph_executor.measure_cache import CachedTime, MeasureCache, Setting
from hios.costs.table import TableCosts
from hios.errors import InvalidOption
from hios.ir.ids import DeviceId, OpId
from hios.ir.kernels import CompiledGraph
from hios.ir.machine import Device, Machine
from hios.ir.operator_key import operator_key
from hios.ir.schedule import Placement, Schedule
from hios.statistics import Samples

__all__ = ["MeasureOptions", "Measurement", "OperatorTime", "measure_costs", "operator_key"]

Progress = Callable[[float, str], None]
"""Called with the fraction done, from 0 to 1, and what is being measured."""


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """How costs are measured.

    Attributes
    ----------
    runs
        Measured runs of the whole graph per number of cores.
    warmup
        Runs before them.
    is_cached
        Whether to read and write the cache on disk.
    cache_dir
        Where it is; None for the user's cache folder.
    """

    runs: int = 15
    warmup: int = 3
    is_cached: bool = True
    cache_dir: Path | None = None

    def validate(self) -> None:
        """Check the numbers.

        Raises
        ------
        InvalidOption
            When `runs` is below 1 or `warmup` below 0.
        """
        if self.runs < 1 or self.warmup < 0:
            raise InvalidOption(
                f"measuring with runs={self.runs}, warmup={self.warmup}; need runs ≥ 1, warmup ≥ 0"
            )


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """The time of one operator on a number of cores.

    Attributes
    ----------
    op
        The operator.
    cores
        How many cores ran it; 0 on a GPU.
    median_us
        Its time.
    spread
        Half of the 10–90 % range over the median.
    samples
        How many measurements these stand on.
    is_cached
        Whether it was read from the cache.
    """

    op: OpId
    cores: int
    median_us: float
    spread: float
    samples: int
    is_cached: bool


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured.

    Attributes
    ----------
    costs
        Ready for schedulers and simulator.
    machine
        The machine with its measured links.
    times
        Every operator on every number of cores.
    sequential
        Latency of the whole graph by number of cores, where it was measured now.
    """

    costs: TableCosts
    machine: Machine
    times: tuple[OperatorTime, ...]
    sequential: dict[int, Samples]


def measure_costs(
    compiled: CompiledGraph,
    machine: Machine,
    options: MeasureOptions | None = None,
    progress: Progress | None = None,
) -> Measurement:
    """Measure every operator and every link.

    Parameters
    ----------
    compiled
        Graph, kernels and weights.
    machine
        Devices of kind ``cpu``, or all of kind ``cuda``.
    options
        See `MeasureOptions`.
    progress
        Told how far it is.

    Returns
    -------
    Measurement
        With costs for `compiled.graph` on the machine with its measured links.

    Raises
    ------
    DeviceUnavailable
        When a device is no CPU or its cores cannot be used, or a GPU that is not here.
    StorageError
        When the cache cannot be written.

    Notes
    -----
    (runs + warmup) sequential latencies per number of cores, and about 0.1 s per link. Nothing
    is run for what the cache knows.
    """
    options = options or MeasureOptions()
    options.validate()
    report = progress or (lambda _fraction, _text: None)
    graph = compiled.graph
    cache = MeasureCache(options.cache_dir) if options.is_cached else None
    if {device.kind for device in machine.devices} == {"cuda"}:
        return _measure_cuda(compiled, machine, options, cache, report)
    by_count = _core_sets(machine)
    found: dict[int, list[OperatorTime]] = {}
    sequential: dict[int, Samples] = {}
    steps = len(by_count) + 1
    for step, (count, device) in enumerate(sorted(by_count.items())):
        report(step / steps, f"operators on {count} core{'s' if count > 1 else ''}")
        known = _from_cache(compiled, count, cache)
        if known is None:
            known, sequential[count] = _measure(compiled, device, options)
            if cache is not None:
                _to_cache(compiled, count, cache, known)
        found[count] = known
    report((steps - 1) / steps, "links")
    measured_machine = measure_links(machine, cache)
    wide = tuple(
        tuple(found[len(device.cores)][op].median_us for device in machine.devices)
        for op in range(len(graph.operators))
    )
    narrow = tuple(
        tuple(found[1][op].median_us for _ in machine.devices) for op in range(len(graph.operators))
    )
    report(1.0, "done")
    return Measurement(
        TableCosts(graph, measured_machine, wide, narrow),
        measured_machine,
        tuple(time for count in sorted(found) for time in found[count]),
        sequential,
    )


def _measure_cuda(
    compiled: CompiledGraph,
    machine: Machine,
    options: MeasureOptions,
    cache: MeasureCache | None,
    report: Progress,
) -> Measurement:
    from graph_executor.cuda.costs import measure_cuda_costs
    from graph_executor.cuda.open import open_driver

    costs, measured, times = measure_cuda_costs(
        open_driver(),
        compiled,
        machine,
        runs=options.runs,
        warmup=options.warmup,
        cache=cache,
        progress=report,
    )
    report(1.0, "done")
    return Measurement(
        costs,
        measured,
        tuple(
            OperatorTime(op, 0, time.median_us, time.spread, time.samples, False)
            for own in times.values()
            for op, time in own.items()
        ),
        {},
    )


def _core_sets(machine: Machine) -> dict[int, Device]:
    """Return a device to measure on for each number of cores, one core included."""
    from graph_executor.cpu.affinity import device_cores

    found: dict[int, Device] = {}
    for cores in device_cores(machine):
        for count in {1, len(cores)}:
            name = f"cpu:{cores[0]}"
            found.setdefault(count, Device(name, "cpu", 1, cores=cores[:count]))
    return found


def _measure(
    compiled: CompiledGraph, device: Device, options: MeasureOptions
) -> tuple[list[OperatorTime], Samples]:
    graph = compiled.graph
    order = graph.topological_order()
    schedule = Schedule("sequential", tuple(Placement(op, DeviceId(0)) for op in order))
    with GraphExecutor(compiled, Machine("measure", (device,)), schedule) as executor:
        timelines = executor.timelines(options.runs, options.warmup)
    samples: list[list[float]] = [[] for _ in graph.operators]
    for timeline in timelines:
        for event in timeline.events:
            samples[event.subject].append(event.end_us - event.start_us)
    own = [Samples.of(times) for times in samples]
    kin: dict[str, list[int]] = {}
    for op in range(len(graph.operators)):
        kin.setdefault(operator_key(graph, OpId(op)) or f"operator {op}", []).append(op)
    times: dict[int, OperatorTime] = {}
    for members in kin.values():
        median = math.fsum(own[op].median_us for op in members) / len(members)
        spread = math.fsum(own[op].spread for op in members) / len(members)
        count = sum(len(own[op].times_us) for op in members)
        for op in members:
            times[op] = OperatorTime(OpId(op), len(device.cores), median, spread, count, False)
    latency = Samples.of([timeline.makespan_us for timeline in timelines])
    return [times[op] for op in range(len(graph.operators))], latency


def _setting(compiled: CompiledGraph, count: int) -> Setting:
    library = compiled.library
    return Setting(cpu_name(), count, library.target, library.tvm_version)


def _from_cache(
    compiled: CompiledGraph, count: int, cache: MeasureCache | None
) -> list[OperatorTime] | None:
    """Return all times, or None when one is not known."""
    if cache is None:
        return None
    known = cache.operator_times(_setting(compiled, count))
    times = []
    for operator in compiled.graph.operators:
        key = operator_key(compiled.graph, operator.id)
        time = None if key is None else known.get(key)
        if time is None:
            return None
        times.append(
            OperatorTime(operator.id, count, time.median_us, time.spread, time.samples, True)
        )
    return times


def _to_cache(
    compiled: CompiledGraph, count: int, cache: MeasureCache, times: Sequence[OperatorTime]
) -> None:
    keyed = {}
    for time in times:
        key = operator_key(compiled.graph, time.op)
        if key is not None:
            keyed[key] = CachedTime(time.median_us, time.spread, time.samples)
    if keyed:
        cache.store_operator_times(_setting(compiled, count), keyed)
