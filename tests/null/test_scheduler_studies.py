"""The simulation study and the cost of scheduling: what they write, and that it adds up."""

import csv
import json
import math
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import optimization_cost, simulate, simulate_zoo
from benchmarks.confidence import mean_of, student_t_975
from hios.errors import InvalidOption
from hios.ir.presets import abstract_machine
from hios.random_graphs import layered_graph
from hios.schedulers import schedule
from hios.simulator import makespan
from hios_tvm.models import zoo


@pytest.mark.parametrize(
    ("degrees", "table"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (29, 2.045), (60, 2.0)]
)
def test_quantiles_are_those_of_the_table(degrees: int, table: float) -> None:
    assert student_t_975(degrees) == pytest.approx(table, abs=1e-3)


def test_an_interval_needs_two_observations() -> None:
    assert mean_of([3.0]).half_width == math.inf
    assert mean_of([3.0, 3.0]).half_width == 0.0
    with pytest.raises(InvalidOption, match="no observations"):
        mean_of([])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study")
    arguments = ["--quick", "--graphs", "3", "--schedulers", "heft,hios-mr", "--out", str(out)]
    result = CliRunner().invoke(simulate.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_study_writes_every_point_and_scheduler(study: Path) -> None:
    found = rows(study / "study.csv")
    assert [(r["sweep"], float(r["value"])) for r in found[::4]] == [
        ("gpus", 2.0), ("gpus", 4.0), ("ratio", 0.2), ("ratio", 1.0)
    ]  # fmt: skip
    assert [r["scheduler"] for r in found[:4]] == ["sequential", "heft", "hios-mr", "bound"]
    assert len(rows(study / "graphs.csv")) == 3 * len(found)
    for name in ("gpus.png", "ratio.png"):
        assert (study / name).read_bytes().startswith(b"\x89PNG")
    table = (study / "study.md").read_text()
    assert table.count("| `heft` |") == 2
    for row in found:
        own = {r["scheduler"]: float(r["speedup"]) for r in found
               if (r["sweep"], r["value"]) == (row["sweep"], row["value"])}  # fmt: skip
        assert own["sequential"] == 1.0
        assert 1.0 < float(own["heft"]) <= own["bound"]


def test_speedups_are_means_over_the_graphs(study: Path) -> None:
    options = simulate.sweep_points(is_quick=True)[0].options
    machine = abstract_machine(2, streams=2)
    ratios = []
    for seed in range(3):
        drawn = layered_graph(seed, options)
        costs = drawn.costs(machine)
        decided = schedule("heft", drawn.graph, machine, costs)
        ratios.append(sum(drawn.times_us) / makespan(drawn.graph, machine, costs, decided))
    first = next(r for r in rows(study / "study.csv") if r["scheduler"] == "heft")
    assert float(first["speedup"]) == pytest.approx(sum(ratios) / 3)


def test_the_full_study_covers_the_papers_parameters() -> None:
    points = simulate.sweep_points()
    assert {point.sweep for point in points} == {"gpus", "operators", "edges", "layers", "ratio"}
    gpus = [point.value for point in points if point.sweep == "gpus"]
    assert (min(gpus), max(gpus)) == (2, 12)
    for point in points:
        drawn = layered_graph(0, point.options)
        assert len(drawn.graph.operators) == point.options.operators


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--schedulers", "nope"], "no scheduler 'nope'"),
        (["--sweeps", "colour"], "no sweep 'colour'; there are gpus"),
        (["--graphs", "1"], "need at least 2 and 1"),
    ],
)
def test_a_wrong_study_is_refused_in_one_line(arguments: list[str], complaint: str) -> None:
    result = CliRunner().invoke(simulate.main, ["--quick", *arguments])
    assert result.exit_code != 0
    assert complaint in result.output
    assert "Traceback" not in result.output


def test_the_exponent_is_the_slope_of_the_logarithms() -> None:
    points = [optimization_cost.Point("x", n, 2, 3e-7 * n**1.5) for n in (10, 100, 300, 1000)]
    assert optimization_cost.growth_exponent(points) == pytest.approx(1.5)
    assert optimization_cost.growth_exponent(points[:2]) is None


def test_points_are_timed_in_a_process_of_their_own_and_ended_at_the_cap() -> None:
    point = optimization_cost.timed_point("heft", 20, 2, 1, 0, 30.0)
    assert point.status == "ok"
    assert point.seconds is not None
    assert 0.0 < point.seconds < 1.0
    began = time.perf_counter()
    slow = optimization_cost.timed_point("ios", 5000, 2, 8, 0, 0.5, grace_s=0.5)
    assert (slow.seconds, slow.status) == (None, "over cap")
    assert time.perf_counter() - began < 10.0
    refused = optimization_cost.timed_point("nope", 20, 2, 1, 0, 30.0)
    assert "no scheduler 'nope'" in refused.status


def test_costs_are_printed_for_every_size(tmp_path: Path) -> None:
    arguments = ["--schedulers", "sequential", "--operators", "10,20", "--devices", "2"]
    arguments += ["--out", str(tmp_path / "cost.csv"), "--json"]
    result = CliRunner().invoke(optimization_cost.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    told = json.loads(result.output)
    assert [point["operators"] for point in told["points"]] == [10, 20]
    assert [row["operators"] for row in rows(tmp_path / "cost.csv")] == ["10", "20"]
    assert told["growth"] == [{"scheduler": "sequential", "devices": 2, "exponent": None}]
    read = optimization_cost.read_points(tmp_path / "cost.csv")
    assert [asdict(point) for point in read] == told["points"]


def test_sizes_expected_over_the_cap_are_skipped() -> None:
    slow = [optimization_cost.Point("x", 100, 2, 4.0)]
    skipped = optimization_cost.next_point(slow, "heft", 10_000, 2, 1, 0, 60.0)
    assert (skipped.status, skipped.seconds) == ("skipped", None)


@pytest.mark.parametrize("name", ["squeezenet_bypass", "randwire_small", "nasnet_mobile"])
def test_units_of_a_network_become_operators(name: str) -> None:
    network = zoo.graph(name, 64)
    graph = simulate_zoo.unit_operator_graph(network)
    names = [op.name for op in graph.operators]
    assert {(names[u], names[v]) for u, v in graph.edges()} == set(network.unit_graph().edges)
    assert sum(op.flops for op in graph.operators) == network.flops()
    assert len(graph.inputs) == len(graph.outputs) == 1
    weights = [t for t in graph.tensors if graph.is_weight(t.id)]
    assert sum(t.bytes for t in weights) == 4 * network.parameters()


def test_the_zoo_is_scheduled_on_simulated_machines(tmp_path: Path) -> None:
    arguments = ["--models", "squeezenet_bypass", "--machines", "2xA40-NVLink,2xA40-PCIe4"]
    arguments += ["--sizes", "64,128", "--schedulers", "sequential,heft", "--json"]
    arguments += ["--out", str(tmp_path / "zoo.csv")]
    result = CliRunner().invoke(simulate_zoo.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    told = json.loads(result.output)["rows"]
    assert len(told) == len(rows(tmp_path / "zoo.csv")) == 8
    for row in told:
        assert row["gap"] >= -1e-9
        assert row["speedup"] > 0.0
        if row["scheduler"] == "sequential":
            assert row["speedup"] == 1.0
    refused = CliRunner().invoke(simulate_zoo.main, ["--sizes", "big"])
    assert "image size 'big'; need a whole number" in refused.output
