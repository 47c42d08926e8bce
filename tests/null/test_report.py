"""Pictures, traces and tables of a small schedule whose times are known by hand."""

import json
from io import StringIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from hios.errors import InvalidOption, StorageError
from hios.graph_file import parse_graph_file
from hios.ir import DeviceId, OpId, Placement, Schedule, StageId, StreamId, Timeline
from hios.ir.presets import abstract_machine
from hios.simulator import complete_links, simulate
from hios_tvm.report.gantt import draw_gantt
from hios_tvm.report.palette import colour_of, ink_on
from hios_tvm.report.summary import (
    ScheduleSummary,
    devices_table,
    format_bytes,
    format_us,
    kinds_table,
    schedule_table,
)
from hios_tvm.report.trace import trace_events, write_trace

# a -> b, c -> d: b stays with a on the first device, c goes to the second and comes back.
DIAMOND = {
    "name": "diamond",
    "operators": [
        {"id": 0, "time_us": 10, "utilization": 1},
        {"id": 1, "time_us": 20, "utilization": 1},
        {"id": 2, "time_us": 12, "utilization": 1},
        {"id": 3, "time_us": 5, "utilization": 1},
    ],
    "edges": [
        {"src": 0, "dst": 1, "transfer_us": 3},
        {"src": 0, "dst": 2, "transfer_us": 3},
        {"src": 1, "dst": 3, "transfer_us": 3},
        {"src": 2, "dst": 3, "transfer_us": 3},
    ],
}


def diamond() -> ScheduleSummary:
    file = parse_graph_file(json.dumps(DIAMOND))
    machine = abstract_machine(2)
    costs = file.costs(machine)
    schedule = Schedule(
        "by-hand",
        tuple(Placement(OpId(op), DeviceId(d)) for op, d in ((0, 0), (1, 0), (2, 1), (3, 0))),
    )
    schedule = complete_links(file.graph, machine, costs, schedule)
    timeline = simulate(file.graph, machine, costs, schedule)
    return ScheduleSummary(file.graph, machine, schedule, timeline, 47.0, 35.0, 0.25)


def staged_wide(n_operators: int) -> ScheduleSummary:
    """Independent operators, two at once on each of two devices."""
    text = json.dumps(
        {
            "operators": [{"id": i, "time_us": 1 + i % 7} for i in range(n_operators)],
            "edges": [],
        }
    )
    file = parse_graph_file(text)
    machine = abstract_machine(2, streams=2)
    costs = file.costs(machine)
    placements = tuple(
        Placement(OpId(i), DeviceId(i // 2 % 2), StreamId(i % 2), StageId(i // 4))
        for i in range(n_operators)
    )
    schedule = Schedule("by-hand", placements)
    timeline = simulate(file.graph, machine, costs, schedule)
    return ScheduleSummary(file.graph, machine, schedule, timeline, 1.0, 1.0, 0.0)


def text_of(table: object) -> str:
    out = StringIO()
    Console(file=out, width=160).print(table)
    return out.getvalue()


class TestSummary:
    def test_figures_of_the_diamond(self) -> None:
        summary = diamond()
        # a 0–10, copy 10–13, c 13–25, copy 25–28; b 10–30; d 30–35.
        assert summary.makespan_us == 35.0
        assert summary.gap == 0.0
        assert summary.speedup == pytest.approx(47 / 35)
        assert summary.copies == 2

    def test_json_object_has_the_documented_keys(self) -> None:
        stated = diamond().to_dict()
        assert json.loads(json.dumps(stated)) == stated
        assert stated.keys() >= {
            *("scheduler", "devices", "makespan_us", "sequential_us", "lower_bound_us", "gap"),
            *("seconds", "placements", "links", "streams", "version"),
        }
        assert stated["devices"] == 2
        assert stated["placements"][2] == {
            "op": 2,
            "name": "2",
            "device": 1,
            "stream": 0,
            "stage": None,
            "start_us": 13.0,
            "end_us": 25.0,
        }
        assert stated["links"] == [
            {"src": 0, "dst": 1, "tensors": [1]},
            {"src": 1, "dst": 0, "tensors": [3]},
        ]

    def test_tables_tell_units(self) -> None:
        summary = diamond()
        head = text_of(schedule_table(summary))
        assert "35.00 µs predicted" in head
        assert "1.34× over one after another" in head
        devices = text_of(devices_table(summary.graph, summary.machine, summary.timeline))
        assert "100%" in devices  # the first device is never idle
        assert "12.00 µs" in devices
        kinds = text_of(kinds_table(summary.graph, {OpId(0): 10.0, OpId(1): 30.0}))
        assert "40.00 µs" in kinds

    def test_names_are_no_markup(self) -> None:
        file = parse_graph_file('{"name": "[red]x[/nope]", "operators": [], "edges": []}')
        timeline = Timeline("predicted", 0.0, ())
        summary = ScheduleSummary(
            file.graph, abstract_machine(1), Schedule("s", ()), timeline, 0.0, 0.0, 0.0
        )
        assert "[red]x[/nope]" in text_of(schedule_table(summary))
        assert summary.speedup == 1.0

    @pytest.mark.parametrize(
        ("value", "text"),
        [(0, "0.00 µs"), (999.4, "999.40 µs"), (1e3, "1.00 ms"), (2.5e6, "2.50 s")],
    )
    def test_times_have_a_fitting_unit(self, value: float, text: str) -> None:
        assert format_us(value) == text

    @pytest.mark.parametrize(
        ("value", "text"), [(0, "0 B"), (1e3, "1.0 kB"), (2e6, "2.0 MB"), (3e9, "3.00 GB")]
    )
    def test_sizes_have_a_fitting_unit(self, value: float, text: str) -> None:
        assert format_bytes(value) == text


class TestTrace:
    def test_slices_cover_the_timeline(self, tmp_path: Path) -> None:
        summary = diamond()
        path = tmp_path / "trace.json"
        measured = Timeline("measured", summary.makespan_us, summary.timeline.events)
        write_trace(summary.graph, summary.machine, [summary.timeline, measured], path)
        document = json.loads(path.read_text())
        events = document["traceEvents"]
        slices = [event for event in events if event["ph"] == "X"]
        assert len(slices) == 2 * len(summary.timeline.events)
        names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
        assert names == {
            0: "predicted · gpu:0",
            1: "predicted · gpu:1",
            2: "measured · gpu:0",
            3: "measured · gpu:1",
        }
        first = next(e for e in slices if e["name"] == "2" and e["pid"] == 1)
        assert (first["ts"], first["dur"], first["tid"]) == (13.0, 12.0, 0)

    def test_flows_lead_from_producer_over_copy_to_reader(self) -> None:
        summary = diamond()
        events = trace_events(summary.graph, summary.machine, summary.timeline)
        flows: dict[int, list[dict[str, object]]] = {}
        for event in events:
            if event["ph"] in "stf":
                flows.setdefault(event["id"], []).append(event)
        assert len(flows) == summary.copies
        slices = [event for event in events if event["ph"] == "X"]
        for steps in flows.values():
            assert [step["ph"] for step in steps] == ["s", "t", "f"]
            for step in steps:
                assert any(
                    one["pid"] == step["pid"]
                    and one["tid"] == step["tid"]
                    and one["ts"] <= step["ts"] <= one["ts"] + one["dur"]
                    for one in slices
                ), "a flow must bind to a slice"

    def test_slices_of_one_thread_do_not_overlap(self) -> None:
        summary = staged_wide(40)
        by_thread: dict[tuple[int, int], list[tuple[float, float]]] = {}
        for event in trace_events(summary.graph, summary.machine, summary.timeline):
            if event["ph"] == "X":
                span = (event["ts"], event["ts"] + event["dur"])
                by_thread.setdefault((event["pid"], event["tid"]), []).append(span)
        assert len(by_thread) == 4
        for spans in by_thread.values():
            spans.sort()
            assert all(a[1] <= b[0] + 1e-9 for a, b in pairwise(spans))


class TestGantt:
    def test_picture_shows_each_kind_and_the_stages(self, tmp_path: Path) -> None:
        summary = staged_wide(24)
        path = tmp_path / "gantt.png"
        draw_gantt(summary.graph, summary.machine, [summary.timeline], path)
        pixels = np.round(imread(path)[..., :3] * 255).astype(int)
        for colour in (colour_of("opaque"), "#fbe6a8", "#ffffff"):
            wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
            found = (np.abs(pixels - wanted).max(axis=-1) <= 1).sum()
            assert found > 200, f"{colour} is missing"

    def test_measured_goes_below_predicted_on_one_axis(self, tmp_path: Path) -> None:
        summary = diamond()
        one, two = tmp_path / "one.png", tmp_path / "two.png"
        slower = Timeline("measured", 2 * summary.makespan_us, summary.timeline.events)
        draw_gantt(summary.graph, summary.machine, [summary.timeline], one)
        draw_gantt(
            summary.graph,
            summary.machine,
            [summary.timeline, slower],
            two,
            sequential_us=47.0,
            lower_bound_us=35.0,
        )
        assert imread(two).shape[0] > imread(one).shape[0]
        assert imread(two).shape[1] == imread(one).shape[1]

    def test_five_hundred_operators_stay_in_a_viewable_size(self, tmp_path: Path) -> None:
        summary = staged_wide(500)
        path = tmp_path / "gantt.png"
        draw_gantt(summary.graph, summary.machine, [summary.timeline], path)
        height, width = imread(path).shape[:2]
        assert width <= 32 * 150
        assert height < width

    def test_same_input_gives_the_same_bytes(self, tmp_path: Path) -> None:
        summary = diamond()
        paths = [tmp_path / "a.png", tmp_path / "b.png"]
        for path in paths:
            draw_gantt(summary.graph, summary.machine, [summary.timeline], path)
        assert paths[0].read_bytes() == paths[1].read_bytes()

    def test_nothing_to_draw_is_said(self, tmp_path: Path) -> None:
        summary = diamond()
        with pytest.raises(InvalidOption, match="no timeline"):
            draw_gantt(summary.graph, summary.machine, [], tmp_path / "x.png")

    def test_no_file_is_left_where_writing_fails(self, tmp_path: Path) -> None:
        summary = diamond()
        with pytest.raises(StorageError, match="cannot write"):
            draw_gantt(
                summary.graph, summary.machine, [summary.timeline], tmp_path / "no" / "x.png"
            )
        assert list(tmp_path.iterdir()) == []

    def test_colours_do_not_depend_on_company(self) -> None:
        assert colour_of("my-own-kind") == colour_of("my-own-kind")
        assert colour_of("my-own-kind") != colour_of("another-kind")
        assert ink_on("#ffffff") != ink_on("#000000")
