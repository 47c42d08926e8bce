"""What a report holds: everything that the page shows, as plain data.

The page carries this very structure as JSON under the id ``report-data``, so that a program can
read a report as well. Times are microseconds, sizes bytes; operators, devices and copies are named
by their position.
"""

from typing import Literal

import msgspec

__all__ = [
    "SCHEMA",
    "Chain",
    "ComparedEngine",
    "ComparedModel",
    "CopyRow",
    "DeviceRow",
    "DeviceUse",
    "EdgeRow",
    "EventRow",
    "KindError",
    "KindUse",
    "MemoryRow",
    "OperatorRow",
    "Provenance",
    "Report",
    "RivalRow",
    "TimelineData",
    "Trust",
]

SCHEMA = 1
"""Version of this structure; grows when a field changes its meaning."""


class DeviceRow(msgspec.Struct, frozen=True):
    """A device, and how many of its streams the schedule uses (at least one)."""

    name: str
    kind: str
    streams: int
    colour: str
    dark_colour: str


class OperatorRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """An operator, where it runs, and where it stands in the drawing.

    Attributes
    ----------
    x, y
        Layer and row in the drawing of the graph.
    solo_us
        Its time alone on its device, by the costs.
    low_us, high_us
        Interval of that time, where the costs give one.
    """

    name: str
    kind: str
    device: int
    stream: int
    x: float
    y: float
    solo_us: float
    stage: int | None = None
    kernel: str = ""
    shape: str = ""
    flops: float = 0.0
    moved_bytes: int = 0
    low_us: float | None = None
    high_us: float | None = None


class EdgeRow(msgspec.Struct, frozen=True, array_like=True):
    """A dependency with the bends of its line, ``[layer, row]`` each."""

    source: int
    target: int
    bends: tuple[tuple[float, float], ...]


class CopyRow(msgspec.Struct, frozen=True):
    """A tensor that goes from one device to another.

    Attributes
    ----------
    producer
        The operator that makes it; None for an input of the network.
    readers
        Operators of the destination that read it; none where it is an output only.
    """

    name: str
    shape: str
    size_bytes: int
    src: int
    dst: int
    producer: int | None
    readers: tuple[int, ...]


class EventRow(msgspec.Struct, frozen=True, array_like=True):
    """A bar of a timeline.

    Attributes
    ----------
    is_copy
        Whether `subject` is the position of a copy, else of an operator.
    subject
        See there.
    start_us, end_us
        From the start of the run.
    stream
        The row on its device; None for a copy on a link of its own.
    """

    is_copy: bool
    subject: int
    start_us: float
    end_us: float
    stream: int | None


class Chain(msgspec.Struct, frozen=True):
    """The events that one after another made a run as long as it is.

    Attributes
    ----------
    events
        Positions in the timeline, in order of time.
    operators_us, copies_us, waits_us
        How the makespan is shared among them; together they are the makespan.
    """

    events: tuple[int, ...]
    operators_us: float
    copies_us: float
    waits_us: float


class DeviceUse(msgspec.Struct, frozen=True):
    """How a device spends the makespan: at least one operator, only copies, or nothing."""

    busy_us: float
    copying_us: float
    idle_us: float
    operators: int


class KindUse(msgspec.Struct, frozen=True):
    """A kind of operator in one timeline."""

    kind: str
    operators: int
    time_us: float
    flops: float


class TimelineData(msgspec.Struct, frozen=True):
    """A timeline with what follows from it."""

    origin: Literal["predicted", "measured"]
    makespan_us: float
    events: tuple[EventRow, ...]
    chain: Chain
    devices: tuple[DeviceUse, ...]
    kinds: tuple[KindUse, ...]


class MemoryRow(msgspec.Struct, frozen=True):
    """What a device has to hold.

    Attributes
    ----------
    weight_bytes, arena_bytes
        Weights, and the arena of inputs, activations and outputs.
    least_arena_bytes
        No arena for this plan is smaller.
    capacity_bytes
        What the device has; None where it is unknown.
    """

    weight_bytes: int
    arena_bytes: int
    least_arena_bytes: int
    capacity_bytes: int | None


class RivalRow(msgspec.Struct, frozen=True):
    """Another scheduler on the same problem.

    Attributes
    ----------
    makespan_us
        Predicted; None where there is no result.
    measured_us
        Measured before the schedule was chosen, where it was.
    seconds
        How long deciding took.
    remark
        Why there is no result, or where it comes from.
    is_this
        Whether it is the schedule of the report.
    """

    name: str
    makespan_us: float | None = None
    measured_us: float | None = None
    seconds: float | None = None
    remark: str = ""
    is_this: bool = False


class KindError(msgspec.Struct, frozen=True):
    """How well times of one kind were predicted; `error` is the median of |m − p| / p."""

    kind: str
    operators: int
    predicted_us: float
    measured_us: float
    error: float


class Trust(msgspec.Struct, frozen=True):
    """Where times come from, and how well they hold.

    Attributes
    ----------
    source
        In words.
    kinds
        Prediction against measurement, by kind, where a run was measured.
    error
        The median over all operators of |measured − predicted| / predicted.
    with_interval
        How many operators have an interval.
    inside
        How many of those were measured inside theirs.
    """

    source: str
    kinds: tuple[KindError, ...] = ()
    error: float | None = None
    with_interval: int = 0
    inside: int | None = None


class ComparedEngine(msgspec.Struct, frozen=True):
    """An engine of a comparison; `remark` says why it has no time."""

    name: str
    median_us: float | None = None
    p10_us: float | None = None
    p90_us: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    remark: str = ""
    is_ours: bool = False


class ComparedModel(msgspec.Struct, frozen=True):
    """One network on one machine, all engines side by side."""

    name: str
    machine: str
    command: str
    engines: tuple[ComparedEngine, ...]
    baseline: str = ""
    date: str = ""


class Provenance(msgspec.Struct, frozen=True):
    """How the page came to be: command lines, versions, host and date, in this order."""

    commands: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    host: str
    date: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything.

    Attributes
    ----------
    sequential_us
        All operators one after another on the first device, by the costs.
    lower_bound_us
        No schedule on this machine is faster, by the costs.
    kinds
        Colour of each kind.
    layers, rows
        Extent of the drawing.
    timelines
        Predicted first.
    notes
        What the scheduler tells about its decision.
    """

    schema: int = SCHEMA
    name: str
    scheduler: str
    machine: str
    sequential_us: float
    lower_bound_us: float
    devices: tuple[DeviceRow, ...]
    kinds: dict[str, str]
    operators: tuple[OperatorRow, ...]
    edges: tuple[EdgeRow, ...]
    copies: tuple[CopyRow, ...]
    layers: int
    rows: float
    timelines: tuple[TimelineData, ...]
    memory: tuple[MemoryRow, ...]
    rivals: tuple[RivalRow, ...]
    trust: Trust
    comparisons: tuple[ComparedModel, ...]
    notes: dict[str, str]
    provenance: Provenance
