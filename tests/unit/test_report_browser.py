"""Reports of real networks in a real browser: what people see, point at, and print."""

import json
import random
import re
from pathlib import Path

import pytest
from chromium import Chromium, find_chromium
from msgspec.structs import replace

from graph_executor.executor import random_inputs
from hios.costs.analytic import AnalyticCosts
from hios.graph_file import parse_graph_file
from hios.ir.presets import abstract_machine
from hios.schedulers import schedule
from hios_tvm.cli.problem import summarise
from hios_tvm.machines import resolve_machine
from hios_tvm.model import Model
from hios_tvm.report.html import ReportParts, build_report, write_page
from hios_tvm.report.html.data import ComparedEngine, ComparedModel, RivalRow
from hios_tvm.report.html.memory import memory_of

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium; install it (Debian: apt install chromium)"
)


@pytest.fixture(scope="module")
def browser():
    with Chromium(CHROMIUM) as opened:
        yield opened


@pytest.fixture(scope="module")
def network_page(tmp_path_factory, light_network):
    """A report of squeezenet, predicted and measured on two devices."""
    compiled = light_network("squeezenet").compiled
    machine = resolve_machine("cpu:0,cpu:1", None, 2)
    costs = AnalyticCosts(compiled.graph, machine)
    decided = schedule("hios-lp", compiled.graph, machine, costs)
    with Model(compiled, machine, decided) as model:
        measured = model.profile(runs=1, warmup=1, inputs=random_inputs(compiled.graph, 0))
    summary = summarise(compiled.graph, machine, costs, decided)
    report = build_report(
        ReportParts(
            summary,
            costs,
            "an estimate",
            measured=measured,
            memory=memory_of(compiled.graph, machine, decided),
            rivals=[RivalRow("hios-lp", summary.makespan_us, is_this=True), RivalRow("heft", 1e4)],
            comparisons=[
                ComparedModel(
                    "net", "host", "hios compare", (ComparedEngine("ours", 9.0, 8.0, 12.0),)
                )
            ],
            commands={"This page": "hios report model.hios"},
        )
    )
    path = tmp_path_factory.mktemp("report") / "squeezenet.html"
    write_page(report, path)
    return path


def graph_page(path: Path, text: str, devices: int = 2, streams: int = 2, prefix: str = "") -> Path:
    """Write the report of a graph file, `prefix` before the name of every operator."""
    file = parse_graph_file(text)
    machine = abstract_machine(devices, streams)
    costs = file.costs(machine)
    decided = schedule("hios-lp", file.graph, machine, costs)
    parts = ReportParts(summarise(file.graph, machine, costs, decided), costs, "the graph file")
    report = build_report(parts)
    renamed = [replace(operator, name=prefix + operator.name) for operator in report.operators]
    write_page(replace(report, operators=tuple(renamed)), path)
    return path


@pytest.fixture
def page(browser, network_page):
    browser.resize(1280, 900)
    browser.prefer("light")
    browser.open(network_page)
    return browser


def colours(browser, canvas: str) -> int:
    """Return how many colours a canvas shows."""
    return browser.run(
        f"""(() => {{ const c = document.getElementById('{canvas}');
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        return new Set(new Uint32Array(d.buffer)).size; }})()"""
    )


def pointed(browser, picture: str, item: str) -> list[float]:
    """Return where an item is drawn, in the window."""
    where = {
        "timeline": "const e = h.timeline.panels[0].timeline.ofItem.get(item); const v = p.view;"
        "const x = v.inset + ((e.start + e.end) / 2 - v.x) * v.scale;"
        "const y = e.rows[0].top + e.rows[0].height / 2;",
        "graph": "const [wx, wy] = p.nodes[+item.slice(1)]; const v = p.view;"
        "const x = (wx - v.x) * v.scale, y = (wy - v.y) * v.scale;",
    }[picture]
    return browser.run(
        f"""(() => {{ const h = hiosReport, p = h.{picture}, item = '{item}'; {where}
        p.canvas.scrollIntoView({{block: 'center', behavior: 'instant'}});
        const b = p.canvas.getBoundingClientRect(); return [b.x + x, b.y + y]; }})()"""
    )


def test_loads_alone_and_without_a_complaint(page, network_page):
    assert page.complaints() == []
    assert page.requests() == [network_page.resolve().as_uri()]
    assert network_page.stat().st_size < 2_000_000
    sections = page.run("[...document.querySelectorAll('main section')].map(s => s.id)")
    wanted = ["timeline", "graph", "time", "chain", "copies", "memory", "rivals"]
    assert sections == [*wanted, "comparison", "trust", "origin"]
    links = page.run("[...document.querySelectorAll('nav a')].map(a => a.hash.slice(1))")
    assert links == sections
    assert colours(page, "timeline-canvas") > 10
    assert colours(page, "graph-canvas") > 5
    assert page.run("document.querySelectorAll('svg.scatter circle').length") > 20


@pytest.mark.parametrize(("picture", "other"), [("timeline", "graph"), ("graph", "timeline")])
def test_pointing_lights_up_both_pictures(page, picture, other):
    page.run("hiosReport.graph.view.fit()")
    before = page.run(f"document.getElementById('{other}-canvas').toDataURL()")
    page.move(*pointed(page, picture, "o3"))
    page.wait("!document.getElementById('tooltip').hidden")
    assert page.run("hiosReport.selection.hover") == "o3"
    assert page.run("document.getElementById('tooltip').textContent").startswith(
        page.run("hiosReport.report.operators[3].name")
    )
    page.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.run(f"document.getElementById('{other}-canvas').toDataURL()") != before
    page.move(2, 2)
    page.wait("document.getElementById('tooltip').hidden")


def test_click_wheel_and_drag(page):
    page.run("hiosReport.graph.view.fit()")
    x, y = pointed(page, "timeline", "o3")
    for kind in ("mousePressed", "mouseReleased"):
        page.move(x, y, kind, button="left", clickCount=1)
    page.wait("!document.getElementById('inspector').hidden")
    assert page.run("hiosReport.selection.chosen") == "o3"
    assert "conv2d" in page.run("document.getElementById('inspector').textContent")
    start = page.run("hiosReport.timeline.view.scale")
    page.move(x, y, "mouseWheel", deltaX=0, deltaY=-120, modifiers=2)
    page.wait(f"hiosReport.timeline.view.scale > {start} * 1.2")
    # What was under the pointer stays there.
    near = pointed(page, "timeline", "o3")
    assert near == pytest.approx([x, y], abs=1.5)
    shift = page.run("hiosReport.timeline.view.x")
    page.move(x, y, "mousePressed", button="left", clickCount=1)
    page.move(x - 60, y, button="left", buttons=1)
    page.move(x - 60, y, "mouseReleased", button="left", clickCount=1)
    assert page.run("hiosReport.timeline.view.x") > shift
    # Without a key the wheel scrolls the page.
    scale = page.run("hiosReport.timeline.view.scale")
    page.move(x, y, "mouseWheel", deltaX=0, deltaY=120)
    assert page.run("hiosReport.timeline.view.scale") == scale


def test_all_by_keyboard(page):
    page.run("document.getElementById('timeline-canvas').focus()")
    page.press("ArrowRight")
    first = page.run("hiosReport.selection.chosen")
    page.press("ArrowRight")
    second = page.run("hiosReport.selection.chosen")
    assert first != second
    assert page.run("document.getElementById('announce').textContent").startswith(
        page.run("document.querySelector('#inspector h3').textContent")
    )
    page.press("Enter")
    assert page.run("hiosReport.graph.view.scale") >= 0.8
    page.press("Escape")
    assert page.run("hiosReport.selection.chosen") is None
    assert page.run("document.getElementById('inspector').hidden")
    page.run("document.getElementById('graph-canvas').focus()")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft"):
        page.press(key)
    assert page.run("hiosReport.selection.chosen")[0] == "o"
    page.press("0")
    assert page.run("hiosReport.graph.view.isFit")


def test_tables_stand_in_for_the_pictures(page):
    page.run("document.getElementById('operators').open = true")
    page.wait("document.querySelector('#operators-body tbody') !== null")
    count = page.run("hiosReport.report.operators.length")
    assert page.run("document.querySelectorAll('#operators-body tbody tr').length") == count
    page.run("document.querySelectorAll('#operators-body thead button')[6].click()")
    page.run("document.querySelectorAll('#operators-body thead button')[6].click()")
    page.run("document.querySelector('#operators-body tbody button').click()")
    longest = page.run(
        "(() => { const e = [...hiosReport.timeline.panels.at(-1).timeline.events]"
        ".filter(e => !e.isCopy).sort((a, b) => (b.end - b.start) - (a.end - a.start));"
        "return e[0].item; })()"
    )
    assert page.run("hiosReport.selection.chosen") == longest
    # Every control has a name, every table a caption, and nothing is out of the tab order.
    assert page.run(
        "[...document.querySelectorAll('button, input, select')].every(e =>"
        " e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)"
    )
    assert page.run("[...document.querySelectorAll('table')].every(t => t.caption)")
    assert page.run("document.querySelectorAll('[tabindex]:not([tabindex=\"0\"])').length") == 0


def test_light_dark_and_the_button(page, network_page):
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.run(ground)
    picture = page.run("document.getElementById('graph-canvas').toDataURL()")
    page.prefer("dark")
    page.wait(f"{ground} !== '{light}'")
    dark = page.run(ground)
    assert sum(map(int, re.findall(r"\d+", dark))) < 120
    page.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.run("document.getElementById('graph-canvas').toDataURL()") != picture
    page.run("document.getElementById('theme').click()")  # auto, then light whatever the system
    assert page.run(ground) == light
    page.run("document.getElementById('theme').click()")
    page.prefer("light")
    assert page.run(ground) == dark
    page.run("document.getElementById('theme').click()")


def test_prints_light_and_whole(page):
    page.prefer("dark")
    page.run("hiosReport.timeline.view.zoom(4)")
    scale = page.run("hiosReport.timeline.view.scale")
    page.run(
        "addEventListener('beforeprint', () => { window.printed ="
        " [getComputedStyle(document.body).color, hiosReport.timeline.view.isFit]; })"
    )
    printed = page.pdf()
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) >= 2
    assert page.run("window.printed") == ["rgb(23, 32, 44)", True]
    assert page.run("hiosReport.timeline.view.scale") == pytest.approx(scale)
    assert page.run("hiosReport.theme.isDark")


def test_narrow_window(page):
    page.resize(390, 800)
    page.wait("hiosReport.timeline.view.width < 390")
    assert page.run("document.documentElement.scrollWidth") <= 390
    assert colours(page, "timeline-canvas") > 10


def test_names_are_never_markup(browser, tmp_path):
    evil = "</script><img src=x onerror='window.bad=1'>{{data}}&amp;\u2028"
    text = json.dumps(
        {
            "name": evil,
            "operators": [{"id": i, "time_us": 5 + i} for i in range(4)],
            "edges": [{"src": 0, "dst": i, "transfer_us": 1} for i in (1, 2, 3)],
        }
    )
    browser.resize(1280, 900)
    browser.open(graph_page(tmp_path / "evil.html", text, prefix=evil))
    browser.run("hiosReport.selection.choose('o1')")
    assert browser.run("document.querySelector('h1').textContent") == evil
    assert browser.run("document.querySelector('#inspector h3').textContent") == f"{evil}1"
    assert browser.run("window.bad === undefined && document.images.length === 0")
    assert browser.complaints() == []


def test_thousands_of_operators_stay_smooth(browser, tmp_path):
    rng = random.Random(5)
    count, width = 1600, 12
    edges = {(rng.randrange(max(0, i - 3 * width), i), i) for i in range(1, count) for _ in (0, 1)}
    text = json.dumps(
        {
            "operators": [{"id": i, "time_us": rng.uniform(1, 90)} for i in range(count)],
            "edges": [{"src": a, "dst": b, "transfer_us": 2} for a, b in sorted(edges)],
        }
    )
    browser.resize(1280, 900)
    browser.open(graph_page(tmp_path / "large.html", text, devices=3))
    times = browser.run(
        """(() => { const took = [];
        for (const { view } of [hiosReport.timeline, hiosReport.graph]) {
          view.fit();
          for (let i = 0; i < 60; i += 1) {
            if (i < 25) view.zoom(1.12); else view.pan(i % 2 ? 25 : -31, 7);
            const start = performance.now();
            view.drawNow();
            took.push(performance.now() - start);
          } }
        return took.sort((a, b) => a - b); })()"""
    )
    # A frame at 60 Hz has 16.7 ms; the quicker half tells of the page, the rest of the host.
    assert times[len(times) // 2] < 16.7
    assert browser.complaints() == []
