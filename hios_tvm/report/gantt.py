"""A schedule as a picture: devices and streams as rows, time from left to right.

Every timeline is one panel, predicted above measured, on one common time axis. A panel has a
row for each stream of each device, then a thin row for each directed link that carries a copy.
Operators are coloured by kind; stages of several groups are shaded behind them; a line leads
from the producer of a copied tensor to where the copy ends. Names are written where they fit.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from hios.errors import InvalidOption
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId, OpId, TensorId
from hios.ir.machine import Machine
from hios.ir.serial import write_atomically
from hios.ir.timeline import Timeline, TimelineEvent
from hios_tvm.report.palette import COPY_COLOUR, colour_of, ink_on

__all__ = ["draw_gantt"]

_DPI = 150
_ROW_IN = 0.42  # inches per stream row
_LINK_IN, _DENSE_LINK_IN = 0.2, 0.13
_MANY_LINKS = 6
_GAP_IN = 0.1  # between devices
_LEFT_IN, _RIGHT_IN, _TOP_IN, _BOTTOM_IN = 1.25, 0.35, 0.95, 0.82
_PANEL_GAP_IN = 0.42
_INK, _FAINT, _GRID = "#1c2430", "#5b6675", "#e4e8ee"
_BOUND = "#c2543d"
_LABEL_PT = 6.5
# Mean advance of a DejaVu Sans character, as a share of the font size.
_ADVANCE = 0.6
_MAX_ARROWHEADS = 80


@dataclass(frozen=True, slots=True)
class _Row:
    """One horizontal band, in inches from the top of its panel."""

    label: str
    top: float
    height: float

    @property
    def middle(self) -> float:
        return self.top + self.height / 2


@dataclass(frozen=True, slots=True)
class _Layout:
    """Bands of a panel, the same in every panel."""

    streams: dict[tuple[int, int], _Row]
    links: dict[tuple[int, int], _Row]
    height: float


def draw_gantt(
    graph: OpGraph,
    machine: Machine,
    timelines: Sequence[Timeline],
    path: str | Path,
    *,
    title: str = "",
    sequential_us: float | None = None,
    lower_bound_us: float | None = None,
) -> None:
    """Draw timelines of one schedule into a PNG file.

    Parameters
    ----------
    graph, machine
        What the timelines ran, and where.
    timelines
        One or more; panels from top to bottom in this order.
    path
        The PNG file.
    title
        First words of the headline; the graph's name when empty.
    sequential_us
        Time of all operators one after another on one device, of the same origin as the
        first timeline, whose speed-up it gives.
    lower_bound_us
        No schedule is faster; drawn as a dotted line.

    Raises
    ------
    InvalidOption
        When there is no timeline.
    StorageError
        When the file cannot be written.
    """
    if not timelines:
        raise InvalidOption("no timeline to draw; give at least one")
    layout = _lay_out(machine, timelines)
    span_us = max(1e-9, *(timeline.makespan_us for timeline in timelines))
    width_in = _width_in(timelines)
    inner_in = width_in - _LEFT_IN - _RIGHT_IN
    height_in = (
        _TOP_IN + _BOTTOM_IN + len(timelines) * layout.height + (len(timelines) - 1) * _PANEL_GAP_IN
    )
    unit_us, unit = (1e3, "ms") if span_us >= 2e3 else (1.0, "µs")
    figure = Figure(figsize=(width_in, height_in), dpi=_DPI, facecolor="white")
    top_in = height_in - _TOP_IN
    for index, timeline in enumerate(timelines):
        axes = figure.add_axes(
            (
                _LEFT_IN / width_in,
                (top_in - layout.height) / height_in,
                inner_in / width_in,
                layout.height / height_in,
            )
        )
        top_in -= layout.height + _PANEL_GAP_IN
        axes.set_xlim(0, span_us * 1.012 / unit_us)
        axes.set_ylim(layout.height, 0)
        # Points per unit of time: what decides whether a name fits into its bar.
        points = inner_in * 72 / (span_us * 1.012 / unit_us)
        panel = _Panel(graph, machine, layout, axes, unit_us, points)
        panel.draw(timeline, lower_bound_us)
        is_last = index == len(timelines) - 1
        panel.finish(timeline, timelines[0], unit, is_last=is_last)
    _write_head(figure, graph, machine, timelines, title, sequential_us, (width_in, height_in))
    _write_legend(figure, graph, timelines, lower_bound_us, (width_in, height_in))

    def save(temporary: Path) -> None:
        figure.savefig(temporary, format="png", dpi=_DPI)

    write_atomically(path, save)


class _Panel:
    """One timeline on one pair of axes."""

    def __init__(
        self,
        graph: OpGraph,
        machine: Machine,
        layout: _Layout,
        axes: Any,
        unit_us: float,
        points_per_unit: float,
    ) -> None:
        self.graph = graph
        self.machine = machine
        self.layout = layout
        self.axes = axes
        self.unit_us = unit_us
        self.points_per_unit = points_per_unit

    def draw(self, timeline: Timeline, lower_bound_us: float | None) -> None:
        """Draw everything but the labels of the axes."""
        self._bands()
        self._stages(timeline)
        self._operators(timeline)
        self._transfers(timeline)
        end = timeline.makespan_us / self.unit_us
        self.axes.axvline(end, color=_INK, linewidth=1.0, zorder=5)
        if lower_bound_us is not None and lower_bound_us > 0:
            bound = lower_bound_us / self.unit_us
            self.axes.axvline(bound, color=_BOUND, linewidth=1.0, linestyle=":", zorder=5)

    def finish(self, timeline: Timeline, first: Timeline, unit: str, *, is_last: bool) -> None:
        """Label rows, panel and time axis."""
        axes = self.axes
        rows = [*self.layout.streams.values(), *self.layout.links.values()]
        axes.set_yticks([row.middle for row in rows], [row.label for row in rows])
        axes.tick_params(axis="y", length=0, labelsize=8, labelcolor=_INK, pad=5)
        links = len(self.layout.links)
        for label in axes.get_yticklabels()[len(rows) - links :]:
            label.set_fontsize(6.5 if links <= _MANY_LINKS else 5.5)
            label.set_color(_FAINT)
        axes.tick_params(axis="x", length=3, labelsize=8, labelcolor=_FAINT, color=_GRID)
        axes.tick_params(axis="x", labelbottom=is_last)
        axes.grid(axis="x", color=_GRID, linewidth=0.7, zorder=0)
        axes.set_axisbelow(True)
        for side in ("top", "left", "right", "bottom"):
            axes.spines[side].set_visible(False)
        if is_last:
            axes.set_xlabel(f"time [{unit}]", fontsize=8, color=_FAINT, labelpad=3)
        text = f"{timeline.origin}  {_time(timeline.makespan_us)}"
        if timeline is not first and first.makespan_us > 0:
            text += (
                f"  ({timeline.makespan_us / first.makespan_us - 1:+.1%} against {first.origin})"
            )
        axes.annotate(
            text,
            (0, 1),
            (0, 5),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=9,
            fontweight="bold",
            color=_INK,
        )

    def _bands(self) -> None:
        for row in (*self.layout.streams.values(), *self.layout.links.values()):
            self.axes.axhspan(row.top, row.top + row.height, color="#f5f7fa", zorder=-2, lw=0)

    def _stages(self, timeline: Timeline) -> None:
        stages: dict[tuple[int, int], list[TimelineEvent]] = defaultdict(list)
        for event in timeline.events:
            if event.kind == "operator" and event.stage is not None:
                stages[event.device, event.stage].append(event)
        boxes = []
        for (device, _), events in sorted(stages.items()):
            streams = {event.stream or 0 for event in events}
            if len(streams) < 2:
                continue  # a stage of one group is its own box
            start = min(event.start_us for event in events)
            end = max(event.end_us for event in events)
            first = self.layout.streams[device, min(streams)]
            last = self.layout.streams[device, max(streams)]
            boxes.append(
                Rectangle(
                    (start / self.unit_us, first.top),
                    (end - start) / self.unit_us,
                    last.top + last.height - first.top,
                )
            )
        self.axes.add_collection(
            PatchCollection(
                boxes, facecolor="#fbe6a8", edgecolor="#e2bd55", linewidth=0.6, zorder=-1
            )
        )

    def _operators(self, timeline: Timeline) -> None:
        bars: dict[str, list[Rectangle]] = defaultdict(list)
        for event in timeline.events:
            if event.kind != "operator":
                continue
            row = self.layout.streams[event.device, event.stream or 0]
            kind = self.graph.operators[OpId(event.subject)].kind
            start = event.start_us / self.unit_us
            width = (event.end_us - event.start_us) / self.unit_us
            inset = row.height * 0.12
            bars[kind].append(Rectangle((start, row.top + inset), width, row.height - 2 * inset))
            self._label(event, row, width, kind)
        for kind, rectangles in sorted(bars.items()):
            self._add_bars(rectangles, colour_of(kind))

    def _add_bars(self, bars: Sequence[Rectangle], colour: str) -> None:
        """Add bars of one colour.

        A thin outline in the background's colour keeps neighbours apart. It would hide bars
        of about a pixel: those get one of their own colour, and stay visible however short.
        """
        for is_wide, edge, width in ((True, "white", 0.35), (False, colour, 0.25)):
            chosen = [
                bar for bar in bars if (bar.get_width() * self.points_per_unit > 1.2) == is_wide
            ]
            self.axes.add_collection(
                PatchCollection(chosen, facecolor=colour, edgecolor=edge, linewidth=width, zorder=2)
            )

    def _label(self, event: TimelineEvent, row: _Row, width: float, kind: str) -> None:
        room = width * self.points_per_unit - 3
        operator = self.graph.operators[OpId(event.subject)]
        for text in (operator.name, str(operator.id)):
            if len(text) * _ADVANCE * _LABEL_PT <= room:
                self.axes.text(
                    (event.start_us + event.end_us) / 2 / self.unit_us,
                    row.middle,
                    text,
                    fontsize=_LABEL_PT,
                    color=ink_on(colour_of(kind)),
                    ha="center",
                    va="center",
                    zorder=4,
                )
                return

    def _transfers(self, timeline: Timeline) -> None:
        copies = [event for event in timeline.events if event.kind == "transfer"]
        places = {event.subject: event for event in timeline.events if event.kind == "operator"}
        readers = self._readers(timeline)
        bars, lines = [], []
        for event in copies:
            if event.dst is None:
                continue
            start, end = event.start_us / self.unit_us, event.end_us / self.unit_us
            link = self.layout.links[event.device, event.dst]
            bars.append(Rectangle((start, link.top), end - start, link.height))
            if event.stream is not None:  # the copy keeps a stream of its destination busy
                row = self.layout.streams[event.dst, event.stream]
                inset = row.height * 0.3
                bars.append(Rectangle((start, row.top + inset), end - start, 0.4 * row.height))
            producer = self.graph.producer(TensorId(event.subject))
            source = None if producer is None else places.get(producer)
            origin = self.layout.streams[
                event.device, 0 if source is None else (source.stream or 0)
            ]
            target = self.layout.streams[
                event.dst, readers.get((event.subject, event.dst), event.stream or 0)
            ]
            is_down = target.middle > origin.middle
            begin = (start, origin.top + origin.height * (0.88 if is_down else 0.12))
            tip = (end, target.top + target.height * (0.12 if is_down else 0.88))
            lines.append((begin, tip))
        self._add_bars(bars, COPY_COLOUR)
        is_crowded = len(lines) > _MAX_ARROWHEADS
        self.axes.add_collection(
            LineCollection(
                lines,
                colors="#3c4656",
                linewidths=0.45 if is_crowded else 0.7,
                alpha=0.45 if is_crowded else 0.7,
                zorder=3,
            )
        )
        if not is_crowded:
            for begin, tip in lines:
                self.axes.annotate(
                    "",
                    tip,
                    begin,
                    arrowprops={
                        "arrowstyle": "-|>",
                        "color": "#3c4656",
                        "linewidth": 0,
                        "mutation_scale": 6,
                        "shrinkA": 0,
                        "shrinkB": 0,
                    },
                    zorder=3,
                )

    def _readers(self, timeline: Timeline) -> dict[tuple[int, int], int]:
        """Return the stream of the first reader of each (root tensor, device)."""
        streams: dict[tuple[int, int], int] = {}
        for event in sorted(timeline.events, key=lambda event: event.start_us):
            if event.kind == "operator":
                for tensor in self.graph.operators[OpId(event.subject)].inputs:
                    key = (self.graph.root(tensor), event.device)
                    streams.setdefault(key, event.stream or 0)
        return streams


def _lay_out(machine: Machine, timelines: Sequence[Timeline]) -> _Layout:
    """Give every used stream and link a row; devices without work keep one, to be seen idle."""
    streams: dict[int, int] = dict.fromkeys(range(len(machine.devices)), 1)
    links: set[tuple[int, int]] = set()
    for timeline in timelines:
        for event in timeline.events:
            if event.kind == "operator":
                streams[event.device] = max(streams[event.device], (event.stream or 0) + 1)
            elif event.dst is not None:
                links.add((event.device, event.dst))
                streams[event.dst] = max(streams[event.dst], (event.stream or 0) + 1)
    top = 0.0
    stream_rows: dict[tuple[int, int], _Row] = {}
    for device, count in streams.items():
        name = machine.devices[DeviceId(device)].name
        for stream in range(count):
            label = name if count == 1 else f"{name} · {stream}"
            stream_rows[device, stream] = _Row(label, top, _ROW_IN)
            top += _ROW_IN
        top += _GAP_IN
    link_rows: dict[tuple[int, int], _Row] = {}
    height = _LINK_IN if len(links) <= _MANY_LINKS else _DENSE_LINK_IN
    for src, dst in sorted(links):
        label = f"{machine.devices[src].name} → {machine.devices[dst].name}"
        link_rows[src, dst] = _Row(label, top, height * 0.75)
        top += height
    return _Layout(stream_rows, link_rows, top)


def _width_in(timelines: Sequence[Timeline]) -> float:
    """Widen the picture with the operators of its fullest stream: 13 to 32 inches."""
    fullest = 0
    for timeline in timelines:
        counts: dict[tuple[int, int], int] = defaultdict(int)
        for event in timeline.events:
            if event.kind == "operator":
                counts[event.device, event.stream or 0] += 1
        fullest = max(fullest, *counts.values(), 0)
    return min(32.0, max(13.0, 8.0 + fullest / 9))


def _write_head(
    figure: Figure,
    graph: OpGraph,
    machine: Machine,
    timelines: Sequence[Timeline],
    title: str,
    sequential_us: float | None,
    size_in: tuple[float, float],
) -> None:
    width, height = size_in
    last = timelines[-1]
    facts = [f"makespan {_time(last.makespan_us)} {last.origin}"]
    first = timelines[0]
    if sequential_us is not None and first.makespan_us > 0:
        speedup = f"{sequential_us / first.makespan_us:.2f}×"
        label = "" if first is last else f"{first.origin} "
        facts.append(f"{label}{speedup} over one after another ({_time(sequential_us)})")
    copies = sum(event.kind == "transfer" for event in last.events)
    facts.append(f"{len(graph.operators)} operators, {copies} copies")
    facts.append(f"machine {machine.name}: {_devices(machine)}")
    figure.text(
        _LEFT_IN / width,
        1 - 0.26 / height,
        title or graph.name,
        fontsize=13,
        fontweight="bold",
        color=_INK,
        va="center",
    )
    figure.text(
        _LEFT_IN / width,
        1 - 0.48 / height,
        "   ·   ".join(facts),
        fontsize=8.5,
        color=_FAINT,
        va="center",
    )


def _write_legend(
    figure: Figure,
    graph: OpGraph,
    timelines: Sequence[Timeline],
    lower_bound_us: float | None,
    size_in: tuple[float, float],
) -> None:
    width, height = size_in
    spent: dict[str, float] = defaultdict(float)
    for event in timelines[-1].events:
        if event.kind == "operator":
            kind = graph.operators[OpId(event.subject)].kind
            spent[kind] += event.end_us - event.start_us
    total = math.fsum(spent.values()) or 1.0
    handles: list[Any] = [
        Patch(facecolor=colour_of(kind), label=f"{kind or 'operator'}  {time / total:.0%}")
        for kind, time in sorted(spent.items(), key=lambda item: (-item[1], item[0]))
    ]
    events = [event for timeline in timelines for event in timeline.events]
    if any(event.kind == "transfer" for event in events):
        handles.append(Patch(facecolor=COPY_COLOUR, label="copy"))
    if _has_concurrent_stage(events):
        handles.append(Patch(facecolor="#fbe6a8", edgecolor="#e2bd55", label="concurrent stage"))
    if lower_bound_us:
        label = f"lower bound  {_time(lower_bound_us)}"
        handles.append(Line2D([], [], color=_BOUND, linewidth=1.0, linestyle=":", label=label))
    per_row = max(1, int((width - _LEFT_IN - _RIGHT_IN) / 1.35))
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(_LEFT_IN / width, 0.12 / height),
        ncols=min(per_row, len(handles)),
        fontsize=7.5,
        labelcolor=_INK,
        frameon=False,
        handlelength=1.1,
        handleheight=0.9,
        columnspacing=1.4,
        borderpad=0,
        borderaxespad=0,
    )


def _has_concurrent_stage(events: Sequence[TimelineEvent]) -> bool:
    keys = sorted(
        {
            (event.device, event.stage, event.stream or 0)
            for event in events
            if event.kind == "operator" and event.stage is not None
        }
    )
    return any(one[:2] == other[:2] for one, other in pairwise(keys))


def _devices(machine: Machine) -> str:
    names = [device.name for device in machine.devices]
    return ", ".join(names) if len(names) <= 4 else f"{len(names)} devices"


def _time(time_us: float) -> str:
    return f"{time_us / 1e3:.2f} ms" if time_us >= 2e3 else f"{time_us:.1f} µs"
