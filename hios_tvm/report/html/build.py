"""From a schedule with its timelines to the data of a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hios.costs.protocol import Costs
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId, OpId, TensorId
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule, required_copies
from hios.ir.timeline import Timeline
from hios_tvm.report.html.chain import critical_chain
from hios_tvm.report.html.data import (
    ComparedModel,
    CopyRow,
    DeviceRow,
    EdgeRow,
    EventRow,
    MemoryRow,
    OperatorRow,
    Report,
    RivalRow,
    TimelineData,
)
from hios_tvm.report.html.layout import draw_layers
from hios_tvm.report.html.provenance import provenance
from hios_tvm.report.html.trust import interval_of, trust_in
from hios_tvm.report.html.usage import use_of_devices, use_of_kinds
from hios_tvm.report.palette import colour_of, device_colour
from hios_tvm.report.summary import ScheduleSummary

__all__ = ["ReportParts", "build_report"]


@dataclass(frozen=True, slots=True)
class ReportParts:
    """What a report is made of.

    Attributes
    ----------
    summary
        The schedule, its predicted timeline and its bounds.
    costs
        What it was predicted with.
    cost_source
        Where those times come from, in words.
    measured
        A run of the same schedule.
    memory
        One entry per device; empty where sizes are unknown.
    rivals
        Other schedulers on the same problem.
    comparisons
        Other engines on the same network.
    commands
        Command lines by what they made.
    """

    summary: ScheduleSummary
    costs: Costs
    cost_source: str
    measured: Timeline | None = None
    memory: Sequence[MemoryRow] = ()
    rivals: Sequence[RivalRow] = ()
    comparisons: Sequence[ComparedModel] = ()
    commands: Mapping[str, str] = field(default_factory=dict)


def build_report(parts: ReportParts) -> Report:
    """Put the data of a report together.

    Raises
    ------
    CyclicGraph
        When the graph is no DAG.
    """
    summary = parts.summary
    graph, machine, schedule = summary.graph, summary.machine, summary.schedule
    edges = [(int(source), int(target)) for source, target in graph.edges()]
    drawing = draw_layers(len(graph.operators), edges)
    placed = schedule.placement_of()
    intervals = {
        op: interval
        for op, placement in placed.items()
        if (interval := interval_of(parts.costs, op, placement.device)) is not None
    }
    operators = []
    for operator, (x, y) in zip(graph.operators, drawing.places, strict=True):
        placement = placed[operator.id]
        low, high = intervals.get(operator.id, (None, None))
        operators.append(
            OperatorRow(
                name=operator.name,
                kind=operator.kind or "operator",
                device=placement.device,
                stream=placement.stream,
                stage=placement.stage,
                x=x,
                y=y,
                solo_us=_short(parts.costs.operator_us(operator.id, placement.device)),
                kernel=operator.kernel,
                shape=", ".join(_shape(graph, tensor) for tensor in operator.outputs),
                flops=operator.flops,
                moved_bytes=operator.bytes_read + operator.bytes_written,
                low_us=low,
                high_us=high,
            )
        )
    copies, positions = _copies(graph, schedule)
    timelines = [summary.timeline] + ([] if parts.measured is None else [parts.measured])
    kinds = sorted({operator.kind for operator in operators})
    return Report(
        name=graph.name,
        scheduler=schedule.scheduler,
        machine=machine.name,
        sequential_us=summary.sequential_us,
        lower_bound_us=summary.lower_bound_us,
        devices=_devices(machine, timelines),
        kinds={kind: colour_of("" if kind == "operator" else kind) for kind in kinds},
        operators=tuple(operators),
        edges=tuple(EdgeRow(*edge, bends=drawing.bends[edge]) for edge in edges),
        copies=copies,
        layers=drawing.layers,
        rows=drawing.rows,
        timelines=tuple(_timeline(graph, machine, one, positions) for one in timelines),
        memory=tuple(parts.memory),
        rivals=tuple(parts.rivals),
        trust=trust_in(graph, parts.cost_source, summary.timeline, parts.measured, intervals),
        comparisons=tuple(parts.comparisons),
        notes={key: str(value) for key, value in sorted(schedule.notes.items())},
        provenance=provenance(parts.commands),
    )


def _devices(machine: Machine, timelines: Sequence[Timeline]) -> tuple[DeviceRow, ...]:
    streams = dict.fromkeys(range(len(machine.devices)), 1)
    for timeline in timelines:
        for event in timeline.events:
            place = event.device if event.kind == "operator" else event.dst
            if place is not None:
                streams[place] = max(streams[place], (event.stream or 0) + 1)
    return tuple(
        DeviceRow(device.name, device.kind, streams[index], *device_colour(index))
        for index, device in enumerate(machine.devices)
    )


def _copies(
    graph: OpGraph, schedule: Schedule
) -> tuple[tuple[CopyRow, ...], dict[tuple[TensorId, DeviceId], int]]:
    """Return the copies that the schedule needs, and the position of each."""
    readers: dict[tuple[TensorId, DeviceId], list[OpId]] = {}
    for placement in schedule.placements:
        for tensor in {graph.root(t) for t in graph.operators[placement.op].inputs}:
            readers.setdefault((tensor, placement.device), []).append(placement.op)
    rows: list[CopyRow] = []
    positions: dict[tuple[TensorId, DeviceId], int] = {}
    for copy in required_copies(graph, schedule):
        copied = graph.tensors[copy.tensor]
        positions[copy.tensor, copy.dst] = len(rows)
        rows.append(
            CopyRow(
                name=copied.name,
                shape=_shape(graph, copy.tensor),
                size_bytes=copied.bytes,
                src=copy.src,
                dst=copy.dst,
                producer=copied.producer,
                readers=tuple(sorted(readers.get((copy.tensor, copy.dst), []))),
            )
        )
    return tuple(rows), positions


def _timeline(
    graph: OpGraph,
    machine: Machine,
    timeline: Timeline,
    positions: Mapping[tuple[TensorId, DeviceId], int],
) -> TimelineData:
    events = []
    for event in timeline.events:
        is_copy = event.kind == "transfer"
        subject = event.subject
        if is_copy and event.dst is not None:
            subject = positions[TensorId(event.subject), event.dst]
        events.append(
            EventRow(is_copy, subject, _short(event.start_us), _short(event.end_us), event.stream)
        )
    return TimelineData(
        origin=timeline.origin,
        makespan_us=_short(timeline.makespan_us),
        events=tuple(events),
        chain=critical_chain(graph, timeline),
        devices=use_of_devices(machine, timeline),
        kinds=use_of_kinds(graph, timeline),
    )


def _shape(graph: OpGraph, tensor: TensorId) -> str:
    described = graph.tensors[tensor]
    if not described.dtype:
        return ""
    return f"{'×'.join(map(str, described.shape)) or 'scalar'} {described.dtype}"


def _short(time_us: float) -> float:
    """Round to nanoseconds: nothing shorter is seen, and the page stays small."""
    return round(time_us, 3)
