"""The page itself: template, styles and scripts of this package, with a report's data inside."""

import re
from importlib import resources
from os import PathLike

import msgspec

from hios.ir.serial import write_bytes
from hios_tvm.report.html.data import Report
from hios_tvm.report.html.markup import Cell, cards, text
from hios_tvm.report.html.sections import all_sections
from hios_tvm.report.summary import format_bytes, format_us

__all__ = ["render_page", "write_page"]

# In the order in which they depend on each other; one function scope holds them all.
_SCRIPTS = (
    "format.js",
    "model.js",
    "selection.js",
    "theme.js",
    "viewport.js",
    "overview.js",
    "timeline.js",
    "graph.js",
    "inspector.js",
    "operators.js",
    "main.js",
)
_STYLES = ("base.css", "figures.css", "print.css")

_TITLES = {
    "time": "Time",
    "chain": "Critical path",
    "copies": "Transfers",
    "memory": "Memory",
    "rivals": "Rivals",
    "comparison": "Engines",
    "trust": "Trust",
    "origin": "Origin",
}


def write_page(report: Report, path: str | PathLike[str]) -> None:
    """Write a report as one HTML file.

    Raises
    ------
    StorageError
        When it cannot be written; nothing half-written stays.
    """
    write_bytes(path, render_page(report).encode())


def render_page(report: Report) -> str:
    """Return a report as one HTML page that needs nothing else."""
    sections = all_sections(report)
    links = {"timeline": "Timeline", "graph": "Graph"} | {name: _TITLES[name] for name in sections}
    values = {
        "title": text(f"{report.name} · {report.scheduler}"),
        "name": text(report.name),
        "subtitle": text(_subtitle(report)),
        "links": "".join(f'<a href="#{name}">{text(title)}</a>' for name, title in links.items()),
        "cards": _cards(report),
        "sections": "\n".join(sections.values()),
        "styles": "\n".join([*(_asset(name) for name in _STYLES), _device_colours(report)]),
        "data": _embedded(report),
        "scripts": "\n".join(_asset(name) for name in _SCRIPTS),
    }
    # One pass: what a value holds is never taken for a placeholder.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], _asset("page.html"))


def _subtitle(report: Report) -> str:
    streams = max(device.streams for device in report.devices)
    devices = len(report.devices)
    return (
        f"{report.scheduler} · {len(report.operators)} operators · "
        f"{devices} device{'s' if devices > 1 else ''}"
        f"{f' × {streams} streams' if streams > 1 else ''} ({report.machine}) · "
        f"{report.provenance.date[:10]}"
    )


def _cards(report: Report) -> Cell:
    predicted = report.timelines[0]
    facts = [
        (
            "predicted",
            format_us(predicted.makespan_us),
            f"bound {format_us(report.lower_bound_us)}",
        )
    ]
    if len(report.timelines) > 1:
        measured = report.timelines[1].makespan_us
        change = measured / predicted.makespan_us - 1 if predicted.makespan_us > 0 else 0.0
        facts.append(("measured", format_us(measured), f"{change:+.1%} against predicted"))
    if predicted.makespan_us > 0:
        speedup = report.sequential_us / predicted.makespan_us
        facts.append(
            ("speed-up", f"{speedup:.2f}×", f"one after another {format_us(report.sequential_us)}")
        )
    if report.lower_bound_us > 0:
        gap = max(0.0, predicted.makespan_us / report.lower_bound_us - 1)
        facts.append(("above the bound", f"{gap:.1%}", "of what no schedule beats"))
    size = sum(copy.size_bytes for copy in report.copies)
    facts.append(("copies", str(len(report.copies)), format_bytes(size) if size else ""))
    if report.memory:
        most = max(row.weight_bytes + row.arena_bytes for row in report.memory)
        facts.append(("memory", format_bytes(most), "on the fullest device"))
    return cards(facts)


def _device_colours(report: Report) -> str:
    """Return the rules that give each device its colour on light and on dark ground."""
    light, dark = (
        "".join(f"--device-{index}:{colour};" for index, colour in enumerate(colours))
        for colours in (
            [device.colour for device in report.devices],
            [device.dark_colour for device in report.devices],
        )
    )
    return (
        f":root{{{light}}}\n@media (prefers-color-scheme: dark){{"
        f':root:not([data-theme="light"]){{{dark}}}}}\n:root[data-theme="dark"]{{{dark}}}'
    )


def _embedded(report: Report) -> str:
    """Return the data as JSON that cannot end its element, whatever names it holds."""
    data = msgspec.json.encode(report).decode()
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    return data


def _asset(name: str) -> str:
    return (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")
