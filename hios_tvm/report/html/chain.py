"""The critical chain of a timeline: which events made the run as long as it is.

From the event that ends last, the chain goes back to the one that ended last among those it had
to wait for, and so on to the start. An operator waits for the makers of its inputs (with their
whole stage, whose outputs exist at its end), for copies that arrive for it, for what ran before it
on its stream, and at the start of its stage for the stage before; a copy waits for its tensor and
for what its link, or the stream that it keeps busy, did before. What lies between two events of
the chain is waiting: none in a prediction, starts and wake-ups in a measured run.
"""

from bisect import bisect_right
from collections import defaultdict

from hios.ir.graph import OpGraph
from hios.ir.ids import OpId, TensorId
from hios.ir.timeline import Timeline, TimelineEvent
from hios_tvm.report.html.data import Chain

__all__ = ["critical_chain"]

# Predicted times are sums of floats, measured ones are stamped a little apart.
_TOLERANCE_US = 0.05


def critical_chain(graph: OpGraph, timeline: Timeline) -> Chain:
    """Return the chain that determines a timeline's makespan.

    Parameters
    ----------
    graph
        What ran.
    timeline
        Predicted or measured.

    Returns
    -------
    Chain
        Empty for a timeline without events.

    Notes
    -----
    O(n·log n + e) for n events and e dependencies.
    """
    search = _Search(graph, timeline)
    found: list[int] = []
    current = search.last()
    while current is not None:
        found.append(current)
        current = search.cause(current)
    found.reverse()
    spans = {False: 0.0, True: 0.0}
    for index in found:
        event = timeline.events[index]
        spans[event.kind == "transfer"] += event.end_us - event.start_us
    waits = max(0.0, timeline.makespan_us - spans[False] - spans[True])
    return Chain(tuple(found), spans[False], spans[True], waits)


class _Search:
    """What every event may have waited for."""

    def __init__(self, graph: OpGraph, timeline: Timeline) -> None:
        self.graph = graph
        self.events = timeline.events
        self.operator: dict[int, int] = {}
        self.copy: dict[tuple[int, int], int] = {}
        self.stage: dict[tuple[int, int], list[int]] = defaultdict(list)
        rows: dict[tuple[str, int, int], list[int]] = defaultdict(list)
        for index, event in enumerate(self.events):
            if event.kind == "operator":
                self.operator[event.subject] = index
                if event.stage is not None:
                    self.stage[event.device, event.stage].append(index)
            elif event.dst is not None:
                self.copy[event.subject, event.dst] = index
            rows[_row(event)].append(index)
            if event.kind == "operator" or event.stream is not None:
                rows["device", _place(event), 0].append(index)
        self.rows = {
            key: sorted(indices, key=lambda i: (self.events[i].end_us, i))
            for key, indices in rows.items()
        }
        self.ends = {key: [self.events[i].end_us for i in self.rows[key]] for key in self.rows}
        self.seen: set[int] = set()

    def last(self) -> int | None:
        """Return the event that ends last."""
        indices = range(len(self.events))
        return max(indices, key=lambda i: (self.events[i].end_us, -i), default=None)

    def cause(self, index: int) -> int | None:
        """Return what `index` waited for to the last, or None at the start of the run."""
        self.seen.add(index)
        event = self.events[index]
        made, near = self._sources(event)
        if event.stage is not None:
            # A stage starts when the inputs of all its groups are there.
            mates = self.stage[event.device, event.stage]
            for mate in mates:
                others, beside = self._sources(self.events[mate])
                made += [i for i in others if i not in mates]
                near += beside
        rows = [_row(event)]
        if event.stage is not None or (event.kind == "transfer" and event.stream is not None):
            rows.append(("device", _place(event), 0))
        near += [found for row in rows if (found := self._before(row, event)) is not None]
        # What takes no time may be a source, but a mere neighbour has to begin earlier, or two
        # of them would explain each other.
        near = [i for i in near if self._is_earlier(i, event)]
        limit = event.start_us + _TOLERANCE_US
        allowed = [
            i
            for i in dict.fromkeys([*made, *near])
            if self.events[i].end_us <= limit and i not in self.seen
        ]
        # Of equals the first: a tensor explains more than a neighbour does.
        return max(allowed, key=lambda i: self.events[i].end_us, default=None)

    def _sources(self, event: TimelineEvent) -> tuple[list[int], list[int]]:
        """Return what made or brought the inputs of an event, and the stages of their makers."""
        if event.kind == "operator":
            used = self.graph.operators[OpId(event.subject)].inputs
            roots = dict.fromkeys(self.graph.root(tensor) for tensor in used)
        else:
            roots = {TensorId(event.subject): None}
        found: list[int] = []
        beside: list[int] = []
        for tensor in roots:
            arrived = self.copy.get((tensor, event.device)) if event.kind == "operator" else None
            producer = self.graph.tensors[tensor].producer
            if arrived is not None:
                found.append(arrived)
            elif producer is not None and producer in self.operator:
                made = self.operator[producer]
                found.append(made)
                stage = self.events[made].stage
                if stage is not None:
                    beside += self.stage[self.events[made].device, stage]
        return found, beside

    def _before(self, row: tuple[str, int, int], event: TimelineEvent) -> int | None:
        """Return the last event of a row that began earlier and ended by the event's start."""
        at = bisect_right(self.ends[row], event.start_us + _TOLERANCE_US)
        earlier = (i for i in reversed(self.rows[row][:at]) if i not in self.seen)
        return next((i for i in earlier if self._is_earlier(i, event)), None)

    def _is_earlier(self, index: int, event: TimelineEvent) -> bool:
        other = self.events[index]
        is_instant = other.start_us == other.end_us and event.start_us < event.end_us
        return other.start_us < event.start_us or is_instant


def _place(event: TimelineEvent) -> int:
    """Return the device that an event keeps busy."""
    return event.device if event.kind == "operator" or event.dst is None else event.dst


def _row(event: TimelineEvent) -> tuple[str, int, int]:
    if event.kind == "operator":
        return "stream", event.device, event.stream or 0
    if event.stream is not None and event.dst is not None:
        return "stream", event.dst, event.stream
    return "link", event.device, -1 if event.dst is None else event.dst
