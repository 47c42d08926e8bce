"""What a graph JSON of Relay carries, read without TVM."""

import json

import pytest

from graph_executor.graph_json import read_notes
from hios.errors import ArtifactMismatch
from hios.ir import Operator, OpGraph, OpId, Tensor, TensorId


def graph():
    """dense(x, w), a view of it, and an operator that reads the view and the weight again."""
    tensors = (
        Tensor(TensorId(0), "x", (2, 4), "float32", 32, consumers=(OpId(0),)),
        Tensor(TensorId(1), "weight.0", (4, 4), "float32", 64, consumers=(OpId(0),)),
        Tensor(TensorId(2), "dense", (2, 4), "float32", 32, producer=OpId(0)),
        Tensor(
            TensorId(3), "flat", (8,), "float32", 32, consumers=(OpId(1),), alias_of=TensorId(2)
        ),
        Tensor(
            TensorId(4), "wide", (16,), "float32", 64, consumers=(OpId(1),), alias_of=TensorId(1)
        ),
        Tensor(TensorId(5), "out", (8,), "float32", 32, producer=OpId(1)),
    )
    operators = (
        Operator(OpId(0), "dense", "dense", "k_dense", (TensorId(0), TensorId(1)), (TensorId(2),)),
        Operator(OpId(1), "last", "other", "k_last", (TensorId(3), TensorId(4)), (TensorId(5),)),
    )
    made = OpGraph("g", operators, tensors, (TensorId(0),), (TensorId(5),))
    made.validate()
    return made


def described(**first):
    def call(name, inputs, **attrs):
        attrs = {"func_name": name, "num_inputs": str(len(inputs)), **attrs}
        return {"op": "tvm_op", "name": name, "attrs": attrs, "inputs": inputs}

    notes = {"hios_op": "0", "hios_graph": graph().to_json().decode(), "hios_schedule": "{}"}
    nodes = [
        {"op": "null", "name": "x", "inputs": []},
        {"op": "null", "name": "p0", "inputs": []},
        call("k_dense", [[0, 0, 0], [1, 0, 0]], **notes, **first),
        call("__nop", [[2, 0, 0]]),
        call("__nop", [[1, 0, 0]]),
        call("k_last", [[3, 0, 0], [4, 0, 0]], hios_op="1"),
    ]
    return {"nodes": nodes, "heads": [[5, 0, 0]]}


def test_weights_are_found_by_the_inputs_of_nodes_and_through_views():
    notes = read_notes(json.dumps(described(hios_machine="m", hios_manifest="n")))
    assert notes.weights == {1: "p0"}
    assert notes.texts["hios_machine"] == "m"
    assert notes.texts["hios_manifest"] == "n"


def test_a_graph_without_notes_has_none():
    plain = described()
    for node in plain["nodes"]:
        if "attrs" in node:
            node["attrs"] = {"func_name": node["attrs"]["func_name"]}
    notes = read_notes(json.dumps(plain))
    assert not notes.texts
    assert not notes.weights


@pytest.mark.parametrize(
    "spoil",
    [
        lambda nodes: nodes[5]["attrs"].update(hios_op="2"),
        lambda nodes: nodes[5]["attrs"].update(func_name="k_other"),
        lambda nodes: nodes[5]["inputs"].pop(),
        lambda nodes: nodes[2]["attrs"].update(hios_graph="{}"),
        lambda nodes: nodes.pop(),
    ],
)
def test_notes_that_are_not_about_the_nodes_are_refused(spoil):
    wrong = described()
    spoil(wrong["nodes"])
    with pytest.raises(ArtifactMismatch, match="build again"):
        read_notes(json.dumps(wrong))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"nodes": []}', "nonsense"])
def test_other_texts_are_refused(text):
    with pytest.raises(ArtifactMismatch, match="no graph JSON"):
        read_notes(text)
