"""The sections of a report that are read rather than explored; they need no script."""

from hios_tvm.report.html.data import ComparedModel, DeviceUse, Report, RivalRow, TimelineData
from hios_tvm.report.html.markup import Cell, bar, section, stacked_bar, table, text
from hios_tvm.report.html.scatter import scatter
from hios_tvm.report.summary import format_bytes, format_us

__all__ = ["all_sections", "device_variable"]

_MAX_ROWS = 40


def all_sections(report: Report) -> dict[str, Cell]:
    """Return the sections by name, in order; those with nothing to say are left out."""
    found = {
        "time": _time(report),
        "chain": _chain(report),
        "copies": _copies(report),
        "memory": _memory(report),
        "rivals": _rivals(report),
        "comparison": _comparison(report),
        "trust": _trust(report),
        "origin": _origin(report),
    }
    return {name: html for name, html in found.items() if html}


def device_variable(device: int) -> str:
    """Return the CSS variable that holds the colour of a device on the ground at hand."""
    return f"var(--device-{device})"


def _time(report: Report) -> Cell:
    last = report.timelines[-1]
    total = sum(kind.time_us for kind in last.kinds) or 1.0
    longest = max((kind.time_us for kind in last.kinds), default=0.0) or 1.0
    before = {kind.kind: kind.time_us for kind in report.timelines[0].kinds}
    is_measured = len(report.timelines) > 1
    headers = ["kind", "", last.origin, "share", "operators", "rate"]
    if is_measured:
        headers.insert(3, "predicted")
    kinds = []
    for kind in last.kinds:
        name = kind.kind or "operator"
        row: list[object] = [
            _swatch(report.kinds[name], name),
            bar(kind.time_us / longest, colour=report.kinds[name]),
            format_us(kind.time_us),
            f"{kind.time_us / total:.1%}",
            kind.operators,
            f"{kind.flops / kind.time_us / 1e3:.1f} GFLOP/s" if kind.flops else "–",
        ]
        if is_measured:
            row.insert(3, format_us(before.get(kind.kind, 0.0)))
        kinds.append(row)
    devices = []
    for timeline in report.timelines:
        for index, use in enumerate(timeline.devices):
            name = report.devices[index].name
            devices.append(_use(timeline, name, device_variable(index), use))
    legend = Cell(
        '<p class="legend"><span><i class="chip solid"></i>operators run</span>'
        '<span><i class="chip copying"></i>only copies</span>'
        '<span><i class="chip idle"></i>idle</span></p>'
    )
    return section(
        "time",
        "Where the time goes",
        "Time of operators by kind, summed over all devices and streams, and what each device "
        "does from the start of the run to its end.",
        table("Time by kind of operator", headers, kinds, wide=True),
        table(
            "Use of devices",
            ["device", "", "running", "only copying", "idle", "operators"],
            devices,
            wide=True,
        ),
        legend,
    )


def _use(timeline: TimelineData, name: str, colour: str, use: DeviceUse) -> list[object]:
    span = timeline.makespan_us or 1.0

    def share(time_us: float) -> str:
        return f"{format_us(time_us)} ({time_us / span:.0%})"

    return [
        _swatch(colour, f"{name}, {timeline.origin}"),
        stacked_bar(
            [
                (use.busy_us / span, "", colour),
                (use.copying_us / span, "copying", ""),
                (use.idle_us / span, "idle", ""),
            ]
        ),
        share(use.busy_us),
        share(use.copying_us),
        share(use.idle_us),
        use.operators,
    ]


def _chain(report: Report) -> Cell:
    shares, steps = [], []
    for timeline in report.timelines:
        chain, span = timeline.chain, timeline.makespan_us or 1.0
        shares.append(
            [
                timeline.origin,
                stacked_bar(
                    [
                        (chain.operators_us / span, "chained", ""),
                        (chain.copies_us / span, "copying", ""),
                        (chain.waits_us / span, "idle", ""),
                    ]
                ),
                f"{format_us(chain.operators_us)} ({chain.operators_us / span:.0%})",
                f"{format_us(chain.copies_us)} ({chain.copies_us / span:.0%})",
                f"{format_us(chain.waits_us)} ({chain.waits_us / span:.0%})",
            ]
        )
    last = report.timelines[-1]
    events = [last.events[index] for index in last.chain.events]
    longest = sorted(events, key=lambda event: event.start_us - event.end_us)[:_MAX_ROWS]
    for event in sorted(longest, key=lambda event: event.start_us):
        if event.is_copy:
            copy = report.copies[event.subject]
            name = f"copy of {copy.name}"
            where = f"{report.devices[copy.src].name} → {report.devices[copy.dst].name}"
        else:
            operator = report.operators[event.subject]
            name, where = operator.name, report.devices[operator.device].name
        length = event.end_us - event.start_us
        steps.append(
            [
                _link(report, event.is_copy, event.subject, name),
                bar(length / (last.makespan_us or 1.0) * 4, style="chained"),
                format_us(event.start_us),
                format_us(length),
                where,
            ]
        )
    shown = f"The {len(longest)} longest of" if len(longest) < len(events) else "All"
    return section(
        "chain",
        "Critical path",
        "What, one after another, made the run as long as it is: shorten something else, and "
        "nothing is gained. Waiting is time between two of its steps.",
        table(
            "Shares of the critical path",
            ["", "", "operators", "copies", "waiting"],
            shares,
            wide=True,
        ),
        _folded(
            f"{shown} its {len(events)} steps, {last.origin}",
            table(
                "Steps of the critical path",
                ["step", "", "start", "time", "where"],
                steps,
                wide=True,
            ),
        ),
    )


def _copies(report: Report) -> Cell:
    if not report.copies:
        return Cell("")
    last = report.timelines[-1]
    spent = {event.subject: event.end_us - event.start_us for event in last.events if event.is_copy}
    links: dict[tuple[int, int], list[int]] = {}
    for index, copy in enumerate(report.copies):
        links.setdefault((copy.src, copy.dst), []).append(index)
    rows = []
    for (src, dst), indices in sorted(links.items()):
        size = sum(report.copies[i].size_bytes for i in indices)
        time_us = sum(spent.get(i, 0.0) for i in indices)
        rows.append(
            [
                f"{report.devices[src].name} → {report.devices[dst].name}",
                len(indices),
                format_bytes(size) if size else "–",
                format_us(time_us),
                f"{time_us / (last.makespan_us or 1.0):.1%}",
                f"{size / time_us / 1e3:.2f} GB/s" if size and time_us > 0 else "–",
            ]
        )
    longest = sorted(range(len(report.copies)), key=lambda i: -spent.get(i, 0.0))[:_MAX_ROWS]
    each = [
        [
            _link(report, True, i, report.copies[i].name),
            report.copies[i].shape or "–",
            format_bytes(report.copies[i].size_bytes) if report.copies[i].size_bytes else "–",
            (
                f"{report.devices[report.copies[i].src].name} → "
                f"{report.devices[report.copies[i].dst].name}"
            ),
            format_us(spent.get(i, 0.0)),
        ]
        for i in longest
    ]
    shown = "The longest" if len(longest) < len(report.copies) else "All"
    return section(
        "copies",
        "Transfers",
        f"Tensors that go from one device to another, {last.origin}; a link carries one at a time.",
        table("Links", ["link", "copies", "size", "time", "of the makespan", "rate"], rows),
        _folded(
            f"{shown} {len(longest)} copies",
            table("Copies", ["tensor", "shape", "size", "link", "time"], each),
        ),
    )


def _memory(report: Report) -> Cell:
    if not report.memory:
        return Cell("")
    most = max(row.weight_bytes + row.arena_bytes for row in report.memory) or 1
    headers = ["device", "", "total", "weights", "arena", "arena’s bound"]
    is_limited = any(row.capacity_bytes is not None for row in report.memory)
    rows: list[list[object]] = []
    for index, row in enumerate(report.memory):
        colour = device_variable(index)
        total = row.weight_bytes + row.arena_bytes
        capacity = row.capacity_bytes
        rows.append(
            [
                _swatch(colour, report.devices[index].name),
                stacked_bar(
                    [
                        (row.weight_bytes / most, "", colour),
                        (row.arena_bytes / most, "arena", ""),
                    ]
                ),
                format_bytes(total),
                format_bytes(row.weight_bytes),
                format_bytes(row.arena_bytes),
                format_bytes(row.least_arena_bytes),
            ]
        )
        if is_limited:
            of = "–" if capacity is None else f"{total / capacity:.1%} of {format_bytes(capacity)}"
            rows[-1].append(of)
    if is_limited:
        headers.append("of the device")
    legend = Cell(
        '<p class="legend"><span><i class="chip solid"></i>weights</span>'
        '<span><i class="chip arena"></i>arena</span></p>'
    )
    return section(
        "memory",
        "Memory",
        "Weights are placed once on each device that reads them. Inputs, activations and outputs "
        "share one arena per device; no arena for this plan could be smaller than the bound.",
        table(
            "Memory of each device",
            headers,
            rows,
            wide=True,
        ),
        legend,
    )


def _rivals(report: Report) -> Cell:
    if not report.rivals:
        return Cell("")
    times = [t for row in report.rivals for t in (row.makespan_us, row.measured_us) if t]
    most = max([*times, report.lower_bound_us, report.sequential_us]) * 1.02 or 1.0
    bound = report.lower_bound_us / most
    is_measured = any(row.measured_us is not None for row in report.rivals)
    headers = ["scheduler", "", "predicted", "above the bound", "deciding took"]
    if is_measured:
        headers.insert(4, "measured")

    def length(row: RivalRow) -> float:
        return row.makespan_us or row.measured_us or float("inf")

    rows = []
    for row in sorted(report.rivals, key=length):
        shown = row.makespan_us if row.makespan_us is not None else row.measured_us
        measured = (
            ["–" if row.measured_us is None else format_us(row.measured_us)] if is_measured else []
        )
        above = (
            f"+{row.makespan_us / report.lower_bound_us - 1:.1%}"
            if row.makespan_us is not None and report.lower_bound_us > 0
            else "–"
        )
        rows.append(
            [
                "ours" if row.is_this else "",
                f"{row.name} (this report)" if row.is_this else row.name,
                bar(shown / most, style="mine" if row.is_this else "rival", mark=bound)
                if shown is not None
                else text(row.remark),
                "–" if row.makespan_us is None else format_us(row.makespan_us),
                above,
                *measured,
                "–" if row.seconds is None else f"{row.seconds:.2f} s",
            ]
        )
    return section(
        "rivals",
        "Rivals",
        Cell(
            "Other schedulers on the same graph, machine and times. The dotted line is the lower "
            f"bound, <b>{text(format_us(report.lower_bound_us))}</b>: no schedule is predicted "
            "to be faster. One after another, on the first device: "
            f"<b>{text(format_us(report.sequential_us))}</b>."
        ),
        table(
            "Makespan by scheduler",
            headers,
            rows,
            wide=True,
        ),
    )


def _comparison(report: Report) -> Cell:
    parts = [_compared(model) for model in report.comparisons]
    return section(
        "comparison",
        "Against other engines",
        "The same input on the same machine, engines taking turns in one run. Bars are medians, "
        "lines the 10th to 90th percentile; above 1× is faster than the baseline.",
        *parts,
    )


def _compared(model: ComparedModel) -> Cell:
    times = [t for row in model.engines for t in (row.median_us, row.p90_us) if t]
    most = max(times, default=1.0) * 1.02
    rows = []
    for row in model.engines:
        ratio = "–" if row.ratio is None else f"{row.ratio:.2f}×"
        if row.ratio_low is not None and row.ratio_high is not None:
            ratio += f" ({row.ratio_low:.2f}–{row.ratio_high:.2f})"
        if row.median_us is None:
            rows.append(["absent", row.name, row.remark or "absent", "–", "–", "–"])
            continue
        spread, told = None, "–"
        if row.p10_us is not None and row.p90_us is not None:
            spread = (row.p10_us / most, row.p90_us / most)
            told = f"{format_us(row.p10_us)}–{format_us(row.p90_us)}"
        style = "mine" if row.is_ours else "rival"
        rows.append(
            [
                "ours" if row.is_ours else "",
                row.name,
                bar(row.median_us / most, style=style, whisker=spread),
                format_us(row.median_us),
                told,
                ratio,
            ]
        )
    about = [model.machine, model.date] + ([f"baseline {model.baseline}"] if model.baseline else [])
    return Cell(
        f"<h3>{text(model.name)}</h3>"
        f'<p class="note">{text(" · ".join(part for part in about if part))}</p>'
        + table(
            f"Engines on {model.name}",
            ["engine", "", "median", "p10–p90", "speed-up"],
            rows,
            wide=True,
        )
        + (f"<pre><code>{text(model.command)}</code></pre>" if model.command else "")
    )


def _trust(report: Report) -> Cell:
    trust = report.trust
    lines = [f"<p>Times come from <b>{text(trust.source)}</b>.</p>"]
    if trust.with_interval:
        inside = "" if trust.inside is None else f", {trust.inside} were measured inside theirs"
        lines.append(f"<p>{trust.with_interval} operators have an interval{inside}.</p>")
    rows = []
    for row in trust.kinds:
        change = row.measured_us / row.predicted_us - 1 if row.predicted_us > 0 else 0.0
        rows.append(
            [
                _swatch(report.kinds[row.kind or "operator"], row.kind or "operator"),
                row.operators,
                format_us(row.predicted_us),
                format_us(row.measured_us),
                f"{change:+.1%}",
                f"{row.error:.1%}",
            ]
        )
    if len(report.timelines) == 2:
        predicted, measured = (timeline.makespan_us for timeline in report.timelines)
        change = measured / predicted - 1 if predicted > 0 else 0.0
        typical = "" if trust.error is None else f"; a typical operator is off by {trust.error:.1%}"
        lines.append(
            f"<p>The whole run took <b>{change:+.1%}</b> against its prediction{typical}. One run "
            "was measured, operators beside one another as they ran.</p>"
        )
    else:
        lines.append(
            "<p>No run was measured: everything here is a prediction. <code>hios report "
            "--measure</code> on the devices themselves shows how well it holds.</p>"
        )
    return section(
        "trust",
        "How sure the times are",
        "A schedule is as good as the times it was decided with.",
        Cell("".join(lines)),
        Cell('<div class="beside">')
        + (
            table(
                "Prediction and measurement by kind",
                ["kind", "operators", "predicted", "measured", "sum", "median error"],
                rows,
            )
            + scatter(report)
            if rows
            else Cell("")
        )
        + Cell("</div>"),
    )


def _origin(report: Report) -> Cell:
    origin = report.provenance
    commands = "".join(
        f"<p>{text(label)}</p><pre><code>{text(line)}</code></pre>"
        for label, line in origin.commands
    )
    facts = [
        ("host", origin.host),
        ("date", origin.date),
        ("versions", ", ".join(f"{name} {version}" for name, version in origin.versions)),
        ("graph", f"{report.name}, {len(report.operators)} operators"),
        ("machine", report.machine),
        *sorted(report.notes.items()),
    ]
    rows = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in facts)
    return section(
        "origin",
        "How this was made",
        "The commands that repeat it, and what they ran on.",
        Cell(commands),
        Cell(f'<dl class="facts">{rows}</dl>'),
    )


def _swatch(colour: str, name: str) -> Cell:
    return Cell(f'<i class="chip" style="background:{colour}"></i>{text(name)}')


def _link(report: Report, is_copy: bool, subject: int, name: str) -> Cell:
    """Return a button that shows an operator or a copy in the pictures."""
    kind = "copy" if is_copy else "op"
    return Cell(f'<button class="goto" data-{kind}="{subject}">{text(name)}</button>')


def _folded(title: str, body: Cell) -> Cell:
    return Cell(f"<details><summary>{text(title)}</summary>{body}</details>")
