"""Graph files: what they mean, and one clear line for each way to get them wrong."""

import json
from pathlib import Path

import pytest

from hios.errors import CyclicGraph, HiosError, InvalidCosts, InvalidGraph, MissingFile
from hios.graph_file import (
    encode_graph_file,
    parse_graph_file,
    read_graph_file,
    write_graph_file,
)
from hios.ir.presets import abstract_machine
from hios.schedulers import schedule
from hios.simulator import makespan

OPERATORS = [
    {"id": 7, "time_us": 3.0, "utilization": 0.5},
    {"id": -2, "time_us": 4, "utilization": 1},
    {"id": 100, "time_us": 0.0},
]
EDGES = [{"src": 7, "dst": -2, "transfer_us": 1.5}, {"src": 7, "dst": 100, "transfer_us": 2.5}]


def text(operators: object = OPERATORS, edges: object = EDGES, **more: object) -> str:
    return json.dumps({"name": "g", "operators": operators, "edges": edges, **more})


def test_ids_are_any_integers_and_unknown_keys_are_ignored() -> None:
    file = parse_graph_file(text(reference=[{"devices": 2}], comment="x"))
    assert [op.name for op in file.graph.operators] == ["7", "-2", "100"]
    assert file.times_us == (3.0, 4.0, 0.0)
    assert file.utilization == (0.5, 1.0, 1.0)
    assert file.graph.edges() == {(0, 1): (0,), (0, 2): (1,)}
    assert (file.graph.inputs, file.graph.outputs) == ((), ())


def test_each_edge_pays_its_own_transfer() -> None:
    file = parse_graph_file(text())
    costs = file.costs(abstract_machine(3))
    assert costs.transfer_us(0, 0, 1) == 1.5
    assert costs.transfer_us(1, 2, 1) == 2.5
    assert costs.transfer_us(1, 1, 1) == 0.0


def test_round_trip(tmp_path: Path, reference_graph: tuple) -> None:
    file, _ = reference_graph
    data = encode_graph_file(file.graph, file.times_us, file.transfers_us, file.utilization)
    write_graph_file(tmp_path / "g.json", data)
    again = read_graph_file(tmp_path / "g.json")
    assert again.times_us == file.times_us
    assert again.graph.edges().keys() == file.graph.edges().keys()
    machine = abstract_machine(4)
    spans = [
        makespan(f.graph, machine, c, schedule("hios-lp", f.graph, machine, c))
        for f, c in ((file, file.costs(machine)), (again, again.costs(machine)))
    ]
    assert spans[0] == spans[1]


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        ("", InvalidGraph, "not a JSON"),
        ("{", InvalidGraph, "not a JSON"),
        (b"\xff\xfe\x00", InvalidGraph, "not a JSON"),
        ("[" * 100_000, InvalidGraph, "not a JSON"),
        ("[]", InvalidGraph, "operators and edges"),
        ("{}", InvalidGraph, "'operators'"),
        (text(edges=3), InvalidGraph, "'edges'"),
        (text(operators=[1]), InvalidGraph, "'operators'"),
        (text(name=5), InvalidGraph, "name"),
        (text(operators=[{"time_us": 1}], edges=[]), InvalidGraph, "'id' is missing"),
        (text(operators=[{"id": True, "time_us": 1}], edges=[]), InvalidGraph, "'id'"),
        (text(operators=[{"id": "0", "time_us": 1}], edges=[]), InvalidGraph, "'id'"),
        (text(operators=[{"id": 0}], edges=[]), InvalidGraph, "'time_us' is missing"),
        (text(operators=[{"id": 0, "time_us": "1"}], edges=[]), InvalidGraph, "'time_us'"),
        (text(operators=[{"id": 0, "time_us": None}], edges=[]), InvalidGraph, "'time_us'"),
        (text(operators=[{"id": 0, "time_us": -1}], edges=[]), InvalidCosts, "operator 0"),
        (text(operators=[{"id": 4, "time_us": float("nan")}], edges=[]), InvalidCosts, "nan"),
        (text(operators=[{"id": 0, "time_us": float("inf")}], edges=[]), InvalidCosts, "inf"),
        (text(operators=[{"id": 0, "time_us": 10**400}], edges=[]), InvalidCosts, "finite"),
        (
            text(operators=[{"id": 0, "time_us": 1, "utilization": 1.5}], edges=[]),
            InvalidCosts,
            "utilization",
        ),
        (text(operators=OPERATORS + OPERATORS[:1]), InvalidGraph, "two operators have id 7"),
        (text(edges=[{"src": 7, "dst": 8, "transfer_us": 1}]), InvalidGraph, "no operator 8"),
        (text(edges=[{"src": 7, "dst": 7, "transfer_us": 1}]), InvalidGraph, "itself"),
        (text(edges=[{"src": 7, "transfer_us": 1}]), InvalidGraph, "'dst' is missing"),
        (text(edges=EDGES + EDGES[:1]), InvalidGraph, "twice"),
        (text(edges=[{"src": 7, "dst": -2, "transfer_us": -1}]), InvalidCosts, "transfer_us"),
        (
            text(edges=[{"src": 7, "dst": -2, "transfer_us": float("nan")}]),
            InvalidCosts,
            "7 -> -2",
        ),
        (
            text(edges=[*EDGES, {"src": 100, "dst": 7, "transfer_us": 1}]),
            CyclicGraph,
            "7 -> 100 -> 7",
        ),
    ],
)
def test_bad_files(data: str | bytes, error: type[HiosError], said: str) -> None:
    with pytest.raises(error) as caught:
        parse_graph_file(data, "bad.json")
    message = str(caught.value)
    assert said in message
    assert "\n" not in message


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"nowhere\.json"):
        read_graph_file(tmp_path / "nowhere.json")
