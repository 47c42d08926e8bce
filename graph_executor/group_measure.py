"""Measures groups of operators on a CPU device, with the executor that will run them.

For each group a small graph (`graph_executor.group_graph`) is planned and run by a real
`GraphExecutor` on the device's cores, so that what is measured is what will run: the threads, the
gates between them, the sharing of the cores and the memory of a plan. A second executor has the
same operators on one core. Both take turns in short bursts.
"""

from graph_executor.executor import ExecutorOptions, GraphExecutor
from graph_executor.group_graph import GroupGraph, InputPool, chain_graph, group_graph
from graph_executor.group_timer import Round
from graph_executor.timed_device import Cache, Mode, TimedDevice
from hios.costs.protocol import Stage
from hios.errors import InvalidOption
from hios.ir.graph import OpGraph
from hios.ir.ids import OpId
from hios.ir.kernels import CompiledGraph
from hios.ir.machine import Device, Machine
from hios.ir.timeline import Timeline

__all__ = ["CpuGroupRun", "CpuGroupTimer"]

_BURST = 5
"""Runs of one executor before the other's turn."""

_SENTINEL_FLOPS = 5e6


class CpuGroupTimer:
    """Measures on one CPU device; see `graph_executor.group_timer.GroupTimer`.

    Parameters
    ----------
    compiled
        Graph, kernels and weights.
    device
        Of kind ``cpu``, with cores. How many streams it has does not matter.
    is_validated
        Prove each small plan free of races.

    Raises
    ------
    DeviceUnavailable
        When the device is no CPU or its cores cannot be used.
    """

    mode: Mode = "eager"
    cache: Cache = "warm"

    def __init__(self, compiled: CompiledGraph, device: Device, is_validated: bool = True) -> None:
        from graph_executor.cpu.affinity import device_cores
        from graph_executor.cpu.facts import describe_cpu

        device_cores(Machine("measure", (device,)))
        self._compiled = compiled
        self._device = device
        self._options = ExecutorOptions(is_validated=is_validated)
        self._inputs = InputPool()
        self._facts = describe_cpu(device)
        self._sentinel: GraphExecutor | None = None

    @property
    def device(self) -> TimedDevice:
        """The device."""
        return self._facts

    def widths(self, groups: Stage) -> tuple[int, ...]:
        """Return the cores that each group gets."""
        from graph_executor.cpu.affinity import split_cores

        return tuple(len(part) for part in split_cores(self._device.cores, len(groups)))

    def order(self, groups: Stage) -> tuple[int, ...]:
        """Return nothing: groups have threads of their own."""
        del groups
        return ()

    def open(self, groups: Stage) -> "CpuGroupRun":
        """Make groups ready."""
        return CpuGroupRun(self._compiled, self._device, groups, self._inputs, self._options)

    def sentinel(self, count: int) -> list[float]:
        """Time one operator of the graph, always the same, at the device's full width."""
        if self._sentinel is None:
            op = _sentinel_operator(self._compiled.graph)
            chain, schedule = chain_graph(self._compiled, [op], self._inputs)
            device = Device(self._device.name, "cpu", 1, cores=self._device.cores)
            self._sentinel = GraphExecutor(
                chain, Machine("sentinel", (device,)), schedule, self._options
            )
        # The launch before it does not count: it finds the caches and the threads of others.
        timelines = self._sentinel.timelines(count, 1, {})
        return [
            event.end_us - event.start_us
            for timeline in timelines
            for event in timeline.events
            if event.subject == 1
        ]

    def close(self) -> None:
        """End the sentinel's threads."""
        if self._sentinel is not None:
            self._sentinel.close()
            self._sentinel = None


def _sentinel_operator(graph: OpGraph) -> OpId:
    """Return an operator that takes some 50 µs to 0.2 ms, where there is one."""
    return min(graph.operators, key=lambda op: (abs(op.flops - _SENTINEL_FLOPS), op.id)).id


class CpuGroupRun:
    """Two executors that are ready to run; see `graph_executor.group_timer.GroupRun`."""

    def __init__(
        self,
        compiled: CompiledGraph,
        device: Device,
        groups: Stage,
        inputs: InputPool,
        options: ExecutorOptions,
    ) -> None:
        self._wide: GraphExecutor | None = None
        self._narrow: GraphExecutor | None = None
        self._graph: GroupGraph = group_graph(compiled, groups, inputs)
        ops = [OpId(op) for group in groups for op in group]
        wide = Device(device.name, "cpu", max(1, len(groups)), cores=device.cores)
        narrow = Device(device.name, "cpu", 1, cores=device.cores[:1])
        try:
            self._wide = GraphExecutor(
                self._graph.compiled, Machine("group", (wide,)), self._graph.schedule, options
            )
            chain, schedule = chain_graph(compiled, ops, inputs)
            self._narrow = GraphExecutor(chain, Machine("narrow", (narrow,)), schedule, options)
        except BaseException:
            self.close()
            raise

    def rounds(self, count: int) -> list[Round]:
        """Run both executors in turns."""
        wide, narrow = self._both()
        found: list[Round] = []
        while len(found) < count:
            burst = min(_BURST, count - len(found))
            together = wide.timelines(burst, 0, {})
            alone = narrow.timelines(burst, 0, {})
            found += [self._round(a, b) for a, b in zip(together, alone, strict=True)]
        return found

    def _round(self, together: Timeline, alone: Timeline) -> Round:
        times = {event.subject: (event.start_us, event.end_us) for event in together.events}
        graph = self._graph
        serial_end = times[graph.serial[-1]][1]
        narrow = {event.subject: event.end_us - event.start_us for event in alone.events}
        return Round(
            tuple(times[op][1] - times[op][0] for op in graph.solo),
            # Launch 0 is the repetition that does not count.
            tuple(narrow[op] for op in range(1, len(graph.solo) + 1)),
            serial_end - times[graph.serial[0]][0],
            times[graph.after][0] - serial_end,
        )

    def difference(self) -> str:
        """Run once and compare the results of both halves."""
        wide, _ = self._both()
        results = list(wide.run({}, copy=False).values())
        half = len(results) // 2
        for one, other, name in zip(
            results[:half], results[half:], _result_names(self._graph), strict=True
        ):
            if one.tobytes() != other.tobytes():
                return f"operator {name!r}"
        return ""

    def close(self) -> None:
        """End all threads."""
        for executor in (self._wide, self._narrow):
            if executor is not None:
                executor.close()
        self._wide = self._narrow = None

    def _both(self) -> tuple[GraphExecutor, GraphExecutor]:
        if self._wide is None or self._narrow is None:
            raise InvalidOption("these groups are closed; open them again")
        return self._wide, self._narrow


def _result_names(graph: GroupGraph) -> list[str]:
    operators: OpGraph = graph.compiled.graph
    names = []
    for op in graph.serial:
        operator = operators.operators[op]
        count = len(operator.outputs) - int(operator.attrs.get("workspaces", 0))
        names += [operator.kernel] * count
    return names
