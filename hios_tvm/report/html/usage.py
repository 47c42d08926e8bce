"""Where the time of a timeline goes: by device and by kind of operator."""

from collections import defaultdict
from collections.abc import Iterable

from hios.ir.graph import OpGraph
from hios.ir.ids import OpId
from hios.ir.machine import Machine
from hios.ir.timeline import Timeline
from hios_tvm.report.html.data import DeviceUse, KindUse

__all__ = ["use_of_devices", "use_of_kinds"]

Span = tuple[float, float]


def use_of_devices(machine: Machine, timeline: Timeline) -> tuple[DeviceUse, ...]:
    """Return how each device spends the makespan.

    A device is busy while at least one operator runs on it, and copying while none runs and
    a copy leaves or reaches it; the rest is idle.
    """
    rows = []
    for index in range(len(machine.devices)):
        own = [e for e in timeline.events if e.kind == "operator" and e.device == index]
        copies = [
            (e.start_us, e.end_us)
            for e in timeline.events
            if e.kind == "transfer" and index in (e.device, e.dst)
        ]
        spans = [(e.start_us, e.end_us) for e in own]
        busy = _covered_us(spans)
        either = _covered_us([*spans, *copies])
        idle = max(0.0, timeline.makespan_us - either)
        rows.append(DeviceUse(busy, either - busy, idle, len(own)))
    return tuple(rows)


def use_of_kinds(graph: OpGraph, timeline: Timeline) -> tuple[KindUse, ...]:
    """Return count, time and work of each kind of operator, the longest first."""
    count: dict[str, int] = defaultdict(int)
    spent: dict[str, float] = defaultdict(float)
    flops: dict[str, float] = defaultdict(float)
    for event in timeline.events:
        if event.kind == "operator":
            operator = graph.operators[OpId(event.subject)]
            count[operator.kind] += 1
            spent[operator.kind] += event.end_us - event.start_us
            flops[operator.kind] += operator.flops
    ordered = sorted(spent, key=lambda kind: (-spent[kind], kind))
    return tuple(KindUse(kind, count[kind], spent[kind], flops[kind]) for kind in ordered)


def _covered_us(spans: Iterable[Span]) -> float:
    """Return the length of the union of spans."""
    covered, until = 0.0, 0.0
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, until))
        until = max(until, end)
    return covered
