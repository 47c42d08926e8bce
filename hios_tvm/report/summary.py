"""The figures of a schedule, as plain data and as tables.

`ScheduleSummary` holds what `hios schedule --json` prints; the tables say the same to people,
every figure with its unit and, where something was measured, its spread.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import hios
from hios.ir.graph import OpGraph
from hios.ir.ids import OpId, TensorId
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.ir.timeline import Timeline, TimelineEvent

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "ScheduleSummary",
    "candidates_table",
    "devices_table",
    "format_bytes",
    "format_flops",
    "format_us",
    "kinds_table",
    "rows_table",
    "schedule_table",
]


@dataclass(frozen=True, slots=True)
class ScheduleSummary:
    """A schedule with what it promises.

    Attributes
    ----------
    graph, machine, schedule, timeline
        What was decided, and its timeline.
    sequential_us
        All operators one after another on the first device.
    lower_bound_us
        No schedule on this machine is faster.
    seconds
        Wall time of deciding; 0 for a schedule that was loaded.
    """

    graph: OpGraph
    machine: Machine
    schedule: Schedule
    timeline: Timeline
    sequential_us: float
    lower_bound_us: float
    seconds: float

    @property
    def makespan_us(self) -> float:
        """Time from the start of a run until its outputs are present."""
        return self.timeline.makespan_us

    @property
    def gap(self) -> float:
        """How far the makespan is above the lower bound, as a share of the bound."""
        if self.lower_bound_us <= 0:
            return 0.0
        return max(0.0, self.makespan_us / self.lower_bound_us - 1)

    @property
    def speedup(self) -> float:
        """Sequential time over makespan; 1 for an empty graph."""
        return self.sequential_us / self.makespan_us if self.makespan_us > 0 else 1.0

    @property
    def copied_bytes(self) -> int:
        """Bytes of all copies of one run."""
        return sum(
            self.graph.tensors[TensorId(event.subject)].bytes
            for event in self.timeline.events
            if event.kind == "transfer"
        )

    @property
    def copies(self) -> int:
        """Number of copies of one run."""
        return sum(event.kind == "transfer" for event in self.timeline.events)

    def to_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints; times in microseconds.

        ``placements`` are in issue order; ``op`` is the position of an operator and ``name``
        its name (in a graph file, its id there).
        """
        spans = {e.subject: e for e in self.timeline.events if e.kind == "operator"}
        names = [device.name for device in self.machine.devices]
        return {
            "graph": self.graph.name,
            "scheduler": self.schedule.scheduler,
            "machine": self.machine.name,
            "devices": len(names),
            "device_names": names,
            "streams": max(device.streams for device in self.machine.devices),
            "operators": len(self.graph.operators),
            "makespan_us": self.makespan_us,
            "sequential_us": self.sequential_us,
            "lower_bound_us": self.lower_bound_us,
            "gap": self.gap,
            "speedup": self.speedup,
            "seconds": self.seconds,
            "copies": self.copies,
            "copied_bytes": self.copied_bytes,
            "alternatives": list(self.schedule.alternatives),
            "notes": dict(self.schedule.notes),
            "placements": [
                {
                    "op": placement.op,
                    "name": self.graph.operators[placement.op].name,
                    "device": placement.device,
                    "stream": placement.stream,
                    "stage": placement.stage,
                    **_span(spans.get(placement.op)),
                }
                for placement in self.schedule.placements
            ],
            "links": [
                {"src": link.src, "dst": link.dst, "tensors": list(link.tensors)}
                for link in self.schedule.links
            ],
            "version": hios.__version__,
        }


def schedule_table(summary: ScheduleSummary) -> "Table":
    """Return the headline of a schedule as a table of two columns."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(summary.graph.name), show_header=False, title_justify="left")
    table.add_column(style="dim")
    table.add_column()
    machine = summary.machine
    streams = max(device.streams for device in machine.devices)
    speedup = f"{summary.speedup:.2f}× over one after another"
    rows = [
        ("scheduler", summary.schedule.scheduler),
        ("machine", f"{machine.name}, {len(machine.devices)} devices × {streams} streams"),
        ("operators", str(len(summary.graph.operators))),
        ("makespan", f"{format_us(summary.makespan_us)} {summary.timeline.origin}, {speedup}"),
        ("one after another", f"{format_us(summary.sequential_us)} on the first device"),
        ("lower bound", f"{format_us(summary.lower_bound_us)}, makespan {summary.gap:.1%} above"),
        ("copies", f"{summary.copies}, {format_bytes(summary.copied_bytes)}"),
    ]
    if summary.seconds > 0:
        rows.append(("decided in", f"{summary.seconds:.3f} s"))
    for key, value in rows:
        table.add_row(Text(key), Text(value))
    for key, note in summary.schedule.notes.items():
        if _candidate(key) is None:
            is_time = key.endswith("_us") and not isinstance(note, str)
            shown = format_us(float(note)) if is_time else str(note)
            table.add_row(Text(key.removesuffix("_us").replace("_", " ")), Text(shown))
    return table


def candidates_table(schedule: Schedule) -> "Table | None":
    """Return what was measured before a schedule was chosen; None where nothing was.

    The times are the notes ``measured_NAME_us`` of the schedule, medians of interleaved runs.
    """
    measured = {
        name: float(value)
        for key, value in schedule.notes.items()
        if (name := _candidate(key)) is not None
    }
    if not measured:
        return None
    fastest = min(measured.values())
    rows = [
        (name, format_us(time), f"{time / fastest:.2f}×")
        for name, time in sorted(measured.items(), key=lambda item: item[1])
    ]
    return rows_table(("candidate", "measured median", "of the fastest"), rows)


def devices_table(graph: OpGraph, machine: Machine, timeline: Timeline) -> "Table":
    """Return what each device does: operators, streams, busy time and copies in and out.

    Busy is the share of the makespan during which at least one operator runs.
    """
    headers = ("device", "streams used", "operators", "busy", "busy time", "copies in", "out")
    rows = []
    for index, device in enumerate(machine.devices):
        own = [e for e in timeline.events if e.kind == "operator" and e.device == index]
        copies = [e for e in timeline.events if e.kind == "transfer"]
        came = [e for e in copies if e.dst == index]
        went = [e for e in copies if e.device == index]
        busy = _covered_us(own)
        share = busy / timeline.makespan_us if timeline.makespan_us > 0 else 0.0
        rows.append(
            (
                device.name,
                str(len({event.stream or 0 for event in own})),
                str(len(own)),
                f"{share:.0%}",
                format_us(busy),
                _copies(graph, came),
                _copies(graph, went),
            )
        )
    return rows_table(headers, rows)


def kinds_table(graph: OpGraph, times_us: Mapping[OpId, float]) -> "Table":
    """Return where the time goes: count, time, share and rate of each kind of operator.

    Parameters
    ----------
    graph
        The graph.
    times_us
        Time of each operator, from a timeline or from costs.
    """
    spent: dict[str, float] = defaultdict(float)
    count: dict[str, int] = defaultdict(int)
    flops: dict[str, float] = defaultdict(float)
    for op, time_us in times_us.items():
        operator = graph.operators[op]
        spent[operator.kind] += time_us
        count[operator.kind] += 1
        flops[operator.kind] += operator.flops
    total = sum(spent.values()) or 1.0
    rows = [
        (
            kind or "operator",
            str(count[kind]),
            format_us(time),
            f"{time / total:.1%}",
            f"{flops[kind] / time / 1e3:.1f} GFLOP/s" if flops[kind] and time > 0 else "–",
        )
        for kind, time in sorted(spent.items(), key=lambda item: (-item[1], item[0]))
    ]
    return rows_table(("kind", "operators", "time", "share", "rate"), rows)


def rows_table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None
) -> "Table":
    """Return a table whose first column is text and whose others are right-aligned figures."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=None if title is None else Text(title), title_justify="left")
    for index, header in enumerate(headers):
        table.add_column(header, justify="left" if index == 0 else "right")
    for row in rows:
        # As Text: names of operators and files may hold what rich would take for markup.
        table.add_row(*(Text(cell) for cell in row))
    return table


def format_us(time_us: float) -> str:
    """Write a time with a unit that suits it.

    Examples
    --------
    >>> format_us(3.14159), format_us(31415.9), format_us(3141590)
    ('3.14 µs', '31.42 ms', '3.14 s')
    """
    if time_us < 1e3:
        return f"{time_us:.2f} µs"
    return f"{time_us / 1e3:.2f} ms" if time_us < 1e6 else f"{time_us / 1e6:.2f} s"


def format_flops(flops: float) -> str:
    """Write a number of arithmetic operations with a unit.

    Examples
    --------
    >>> format_flops(706624160), format_flops(1500), format_flops(0)
    ('706.62 MFLOP', '0.00 MFLOP', '–')
    """
    if flops <= 0:
        return "–"
    return f"{flops / 1e9:.2f} GFLOP" if flops >= 1e9 else f"{flops / 1e6:.2f} MFLOP"


def format_bytes(size_bytes: float) -> str:
    """Write a size with a decimal unit.

    Examples
    --------
    >>> format_bytes(12), format_bytes(200704), format_bytes(51_200_000)
    ('12 B', '200.7 kB', '51.2 MB')
    """
    if size_bytes < 1e3:
        return f"{size_bytes:.0f} B"
    for unit, size in (("kB", 1e3), ("MB", 1e6)):
        if size_bytes < 1e3 * size:
            return f"{size_bytes / size:.1f} {unit}"
    return f"{size_bytes / 1e9:.2f} GB"


def _candidate(note: str) -> str | None:
    """Return NAME of the note ``measured_NAME_us``."""
    if note.startswith("measured_") and note.endswith("_us"):
        return note.removeprefix("measured_").removesuffix("_us")
    return None


def _span(event: TimelineEvent | None) -> dict[str, float]:
    return {} if event is None else {"start_us": event.start_us, "end_us": event.end_us}


def _copies(graph: OpGraph, events: Sequence[TimelineEvent]) -> str:
    size = sum(graph.tensors[TensorId(event.subject)].bytes for event in events)
    return f"{len(events)}, {format_bytes(size)}" if events else "–"


def _covered_us(events: Sequence[TimelineEvent]) -> float:
    """Return the length of the union of the events' spans."""
    covered, until = 0.0, 0.0
    for event in sorted(events, key=lambda event: event.start_us):
        covered += max(0.0, event.end_us - max(event.start_us, until))
        until = max(until, event.end_us)
    return covered
