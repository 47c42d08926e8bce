"""What a report holds and how its page is put together; the browser has tests of its own."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

import hios.schedulers  # noqa: F401  (registers the algorithms)
from hios.errors import CyclicGraph, InvalidOption, MissingFile
from hios.graph_file import parse_graph_file
from hios.ir import DeviceId, OpId, Placement, Schedule, Timeline
from hios.ir.presets import abstract_machine
from hios.ir.serial import encode_json
from hios.simulator import complete_links, simulate
from hios.testing import Case, cases, op_graphs
from hios_tvm.cli.main import main
from hios_tvm.comparison_result import ComparisonResult, EngineRow, HostFacts
from hios_tvm.report.html import ReportParts, build_report, render_page
from hios_tvm.report.html.chain import critical_chain
from hios_tvm.report.html.comparison import read_comparison
from hios_tvm.report.html.data import Report
from hios_tvm.report.html.layout import draw_layers
from hios_tvm.report.html.memory import memory_of
from hios_tvm.report.html.rivals import RivalProblem, default_rivals, measured_rivals, run_rivals
from hios_tvm.report.html.trust import trust_in
from hios_tvm.report.html.usage import use_of_devices, use_of_kinds
from hios_tvm.report.palette import device_colour
from hios_tvm.report.summary import ScheduleSummary

# a -> b, c -> d: b stays with a on the first device, c goes to the second and comes back.
DIAMOND = json.dumps(
    {
        "name": "diamond",
        "operators": [{"id": i, "time_us": t} for i, t in enumerate((10, 20, 12, 5))],
        "edges": [
            {"src": a, "dst": b, "transfer_us": 5} for a, b in ((0, 1), (0, 2), (1, 3), (2, 3))
        ],
    }
)


def diamond() -> ReportParts:
    file = parse_graph_file(DIAMOND)
    machine = abstract_machine(2)
    costs = file.costs(machine)
    placed = tuple(Placement(OpId(op), DeviceId(d)) for op, d in ((0, 0), (1, 0), (2, 1), (3, 0)))
    decided = complete_links(file.graph, machine, costs, Schedule("by-hand", placed))
    timeline = simulate(file.graph, machine, costs, decided)
    summary = ScheduleSummary(file.graph, machine, decided, timeline, 47.0, 35.0, 0.0)
    return ReportParts(summary, costs, "the graph file", commands={"This page": "hios report x"})


def longer(timeline: Timeline, factor: float) -> Timeline:
    """Return a timeline as if measured, everything `factor` longer."""
    events = tuple(
        replace(event, start_us=event.start_us * factor, end_us=event.end_us * factor)
        for event in timeline.events
    )
    return Timeline("measured", timeline.makespan_us * factor, events)


class TestLayers:
    @given(op_graphs(max_operators=14))
    def test_layers_go_along_the_edges_and_nothing_overlaps(self, graph: Any) -> None:
        edges = [(int(a), int(b)) for a, b in graph.edges()]
        drawing = draw_layers(len(graph.operators), edges)
        for (source, target), bends in drawing.bends.items():
            xs = [drawing.places[source][0], *(x for x, _ in bends), drawing.places[target][0]]
            assert all(b - a == 1 for a, b in pairwise(xs))
        for layer in range(drawing.layers):
            rows = sorted(y for x, y in drawing.places if x == layer)
            assert all(b - a >= 1 - 1e-2 for a, b in pairwise(rows))
        assert all(0 <= y <= drawing.rows for _, y in drawing.places)

    def test_a_chain_is_a_straight_line(self) -> None:
        drawing = draw_layers(5, [(i, i + 1) for i in range(4)] + [(0, 4)])
        rows = [y for _, y in drawing.places[1:4]]
        assert max(rows) - min(rows) < 0.1
        # The long edge passes beside the chain, and not through it.
        assert all(abs(y - drawing.places[2][1]) > 0.5 for _, y in drawing.bends[0, 4])

    def test_long_edges_of_one_operator_share_their_bends(self) -> None:
        edges = [(0, 1), (1, 2), (2, 3), (3, 4), (0, 3), (0, 4)]
        drawing = draw_layers(5, edges)
        assert drawing.bends[0, 4][:2] == drawing.bends[0, 3]

    def test_crossed_pairs_are_uncrossed(self) -> None:
        # 0 and 1 above, joined to 3 and 2: one swap removes the crossing.
        drawing = draw_layers(4, [(0, 3), (1, 2)])
        below = drawing.places[3][1] < drawing.places[2][1]
        assert below == (drawing.places[0][1] < drawing.places[1][1])

    def test_empty_and_circular(self) -> None:
        assert draw_layers(0, []).places == ()
        with pytest.raises(CyclicGraph):
            draw_layers(2, [(0, 1), (1, 0)])


class TestChain:
    def test_by_hand(self) -> None:
        parts = diamond()
        chain = critical_chain(parts.summary.graph, parts.summary.timeline)
        events = [parts.summary.timeline.events[index] for index in chain.events]
        # 10 + copy 5 + 12 + copy 5 + 5 = 37 beats 10 + 20 + 5.
        told = [(event.kind, event.subject) for event in events if event.kind == "operator"]
        assert told == [("operator", 0), ("operator", 2), ("operator", 3)]
        assert (chain.operators_us, chain.copies_us, chain.waits_us) == (27.0, 10.0, 0.0)

    @settings(max_examples=50, suppress_health_check=[HealthCheck.filter_too_much])
    @given(cases(max_operators=10))
    def test_explains_every_prediction_without_a_wait(self, case: Case) -> None:
        schedule = complete_links(case.graph, case.machine, case.costs, case.schedule)
        timeline = simulate(case.graph, case.machine, case.costs, schedule)
        # What takes no time has no place in time: two such events may explain each other.
        assume(all(event.start_us < event.end_us for event in timeline.events))
        chain = critical_chain(case.graph, timeline)
        events = [timeline.events[index] for index in chain.events]
        assert all(a.end_us <= b.start_us + 0.051 for a, b in pairwise(events))
        assert chain.waits_us == pytest.approx(0, abs=0.06 * (len(events) + 1))

    def test_waits_are_told(self) -> None:
        parts = diamond()
        events = parts.summary.timeline.events
        late = [replace(e, start_us=e.start_us + 3, end_us=e.end_us + 3) for e in events]
        makespan = parts.summary.makespan_us + 3
        chain = critical_chain(parts.summary.graph, Timeline("measured", makespan, tuple(late)))
        assert chain.waits_us == pytest.approx(3)


class TestWhereTimeGoes:
    def test_by_hand(self) -> None:
        parts = diamond()
        summary = parts.summary
        first, second = use_of_devices(summary.machine, summary.timeline)
        assert (first.busy_us, first.operators) == (35.0, 3)
        assert (second.busy_us, second.copying_us) == (12.0, 10.0)
        assert second.busy_us + second.copying_us + second.idle_us == summary.makespan_us
        (kind,) = use_of_kinds(summary.graph, summary.timeline)
        assert (kind.operators, kind.time_us) == (4, 47.0)

    @given(cases(max_operators=8))
    def test_parts_make_the_whole(self, case: Case) -> None:
        schedule = complete_links(case.graph, case.machine, case.costs, case.schedule)
        timeline = simulate(case.graph, case.machine, case.costs, schedule)
        for use in use_of_devices(case.machine, timeline):
            whole = use.busy_us + use.copying_us + use.idle_us
            assert whole == pytest.approx(timeline.makespan_us)
        kinds = use_of_kinds(case.graph, timeline)
        assert sum(kind.operators for kind in kinds) == len(case.graph.operators)


class TestTrust:
    def test_error_of_a_run(self) -> None:
        summary = diamond().summary
        trust = trust_in(
            summary.graph, "x", summary.timeline, longer(summary.timeline, 1.2), {OpId(0): (9, 11)}
        )
        assert trust.error == pytest.approx(0.2)
        assert (trust.with_interval, trust.inside) == (1, 0)
        assert trust.kinds[0].measured_us == pytest.approx(1.2 * trust.kinds[0].predicted_us)

    def test_nothing_measured(self) -> None:
        summary = diamond().summary
        trust = trust_in(summary.graph, "x", summary.timeline, None, {})
        assert (trust.error, trust.kinds) == (None, ())


class TestMemory:
    def test_unknown_sizes_are_no_memory(self) -> None:
        summary = diamond().summary
        assert memory_of(summary.graph, summary.machine, summary.schedule) == ()

    @given(cases(max_operators=6))
    def test_arena_is_at_least_its_bound(self, case: Case) -> None:
        schedule = complete_links(case.graph, case.machine, case.costs, case.schedule)
        for row in memory_of(case.graph, case.machine, schedule):
            assert row.arena_bytes >= row.least_arena_bytes >= 0


class TestRivals:
    def test_within_the_time(self) -> None:
        parts = diamond()
        summary = parts.summary
        problem = RivalProblem(summary.graph, summary.machine, parts.costs)
        names = ("sequential", "heft", "no-such")
        told: list[str] = []
        rows = run_rivals(problem, names, 60.0, lambda name, share: told.append(name))
        assert [row.name for row in rows] == list(names)
        assert rows[0].makespan_us == 47.0
        assert rows[1].makespan_us is not None
        assert rows[1].makespan_us <= 37.0
        assert (rows[2].makespan_us, "no-such" in rows[2].remark) == (None, True)
        assert set(told) <= set(names)

    def test_who_is_late_is_told(self) -> None:
        parts = diamond()
        summary = parts.summary
        problem = RivalProblem(summary.graph, summary.machine, parts.costs)
        rows = run_rivals(problem, ("sequential",), 0.001)
        assert rows[0].makespan_us is None
        assert "0.001 s" in rows[0].remark

    def test_names_and_measured_candidates(self) -> None:
        names = default_rivals()
        assert {"sequential", "heft", "hios-lp", "ios", "auto"} <= set(names)
        assert names[-1] == "auto"
        notes = {"measured_heft_us": 4.0, "measured_mine_us": 3.0, "window": 2}
        rows = measured_rivals(Schedule("mine", (), notes=notes), 2.5)
        assert [(row.name, row.makespan_us, row.measured_us) for row in rows] == [
            ("mine", 2.5, 3.0),
            ("heft", None, 4.0),
        ]


RESULT = ComparisonResult(
    model="net",
    operators=3,
    devices=("cpu:0",),
    streams=1,
    inputs=(),
    seed=0,
    host=HostFacts("cpu", (0, 1), "x", "3"),
    date="2026-11-26",
    command="hios compare net",
    baseline="tvm",
    reference="tvm",
    energy_source=None,
    rows=(
        EngineRow(
            "tvm", "tvm", "TVM", "fp32", "", "measured", "", None, 30, 9.0, 8.0, 11.0, speedup=1.0
        ),
        EngineRow(
            "lp",
            "hios",
            "hios-lp",
            "fp32",
            "",
            "measured",
            median_us=3.0,
            speedup=3.0,
            speedup_low=2.9,
            speedup_high=3.1,
        ),
        EngineRow("trt", "tensorrt", "TensorRT", "fp16", "", "absent", "", "pip install tensorrt"),
    ),
)
ONE = encode_json(RESULT).decode()


class TestComparison:
    def test_rows(self, tmp_path: Path) -> None:
        path = tmp_path / "compare.json"
        path.write_text(ONE)
        (model,) = read_comparison(path)
        assert [row.name for row in model.engines] == ["hios-lp", "TVM", "TensorRT, fp16"]
        assert [row.is_ours for row in model.engines] == [True, False, False]
        assert (model.baseline, model.engines[2].remark) == ("TVM", "pip install tensorrt")
        path.write_bytes(encode_json([RESULT, RESULT]))
        assert len(read_comparison(path)) == 2

    @pytest.mark.parametrize(
        "text",
        ["{}", "[1]", "nonsense", "[nonsense", encode_json(replace(RESULT, format=9)).decode()],
    )
    def test_anything_else_is_a_mistake(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "compare.json"
        path.write_text(text)
        with pytest.raises(InvalidOption, match=re.escape("compare.json")):
            read_comparison(path)
        with pytest.raises(MissingFile):
            read_comparison(tmp_path / "absent.json")


class _Elements(HTMLParser):
    """Checks that elements nest, and keeps what the page would fetch."""

    VOID = frozenset({"meta", "link", "input", "br", "img", "path", "circle"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        named = dict(attrs)
        self.ids += [named["id"] or ""] if "id" in named else []
        for name in ("src", "href", "action"):
            if not (named.get(name) or "#").startswith(("#", "data:")):
                self.fetched.append(f"{tag} {named[name]}")

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


class TestPage:
    def test_is_whole_and_well_formed(self) -> None:
        page = render_page(build_report(diamond()))
        elements = _Elements()
        elements.feed(page)
        assert elements.open == []
        assert elements.fetched == []
        assert len(elements.ids) == len(set(elements.ids))
        assert "{{" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
        for word in ("@import", "url(", "fetch(", "XMLHttpRequest", "import("):
            assert word not in page

    def test_data_comes_back(self) -> None:
        report = build_report(diamond())
        page = render_page(report)
        (data,) = re.findall(r'id="report-data">(.*?)</script>', page, flags=re.DOTALL)
        assert not set("<>&") & set(data)
        assert msgspec.json.decode(data, type=Report) == report

    def test_figures_are_in_the_page_without_script(self) -> None:
        parts = diamond()
        measured = longer(parts.summary.timeline, 1.1)
        report = build_report(
            ReportParts(parts.summary, parts.costs, "the graph file", measured=measured)
        )
        page = re.sub(r"<script.*?</script>", "", render_page(report), flags=re.DOTALL)
        for told in ("37.00 µs", "40.70 µs", "+10.0%", "1.27×", "35.00 µs", "the graph file"):
            assert told in page


class TestPalette:
    # H. Brettel, F. Viénot and J. Mollon (1997) as linear maps by G. Machado et al. (2009),
    # "A physiologically-based model for simulation of color vision deficiency", severity 1.
    SEEN: ClassVar[dict[str, Any]] = {
        "usual": np.eye(3),
        "protanopia": np.array(
            [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
             [-0.003882, -0.048116, 1.051998]]
        ),
        "deuteranopia": np.array(
            [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
             [-0.011820, 0.042940, 0.968881]]
        ),
    }  # fmt: skip

    @pytest.mark.parametrize("eyes", SEEN)
    @pytest.mark.parametrize("ground", [0, 1], ids=["light", "dark"])
    def test_devices_are_told_apart(self, eyes: str, ground: int) -> None:
        colours = [device_colour(device)[ground] for device in range(4)]
        seen = [self.lab(self.SEEN[eyes] @ self.linear(colour)) for colour in colours]
        for i, one in enumerate(seen):
            for other in seen[:i]:
                assert np.linalg.norm(one - other) > 15

    def linear(self, colour: str) -> Any:
        values = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)

    def lab(self, linear: Any) -> Any:
        to_xyz = np.array(
            [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
        )
        x, y, z = np.cbrt((to_xyz @ linear.clip(0, 1)) / np.array([0.9505, 1.0, 1.089]))
        return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


class TestCommand:
    def test_graph_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        graph, page, compared = tmp_path / "g.json", tmp_path / "g.html", tmp_path / "c.json"
        graph.write_text(DIAMOND)
        compared.write_text(ONE)
        arguments = ["report", str(graph), "--devices", "2", "--scheduler", "hios-lp"]
        assert main([*arguments, "--comparison", str(compared), "-o", str(page), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["bytes"] == page.stat().st_size
        assert told["timelines"] == {"predicted": 37.0}
        text = page.read_text(encoding="utf-8")
        assert "hios report" in text
        assert "pip install tensorrt" in text
        assert main([*arguments, "-o", str(page)]) == 0
        assert str(page) in capsys.readouterr().out.replace("\n", "")

    def test_mistakes(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        graph = tmp_path / "g.json"
        graph.write_text(DIAMOND)
        for extra in (
            ["--measure"],
            ["-o", str(tmp_path / "no" / "p.html")],
            ["--comparison", "x"],
        ):
            assert main(["report", str(graph), *extra]) == 2
            told = capsys.readouterr()
            assert told.out == ""
            assert told.err.count("\n") == 1
        assert list(tmp_path.iterdir()) == [graph]
