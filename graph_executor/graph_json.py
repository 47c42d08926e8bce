"""Reads the decision that a Relay graph JSON carries in the attributes of its nodes.

Format 1: the node of every operator has ``hios_op``, its id in the operator graph; the node of
operator 0 also has ``hios_manifest``, ``hios_graph``, ``hios_schedule`` and ``hios_machine``. Which
parameter is which weight follows from the inputs of the nodes: TVM names parameters only when
it writes this JSON.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hios.errors import ArtifactMismatch, InvalidGraph
from hios.ir.graph import OpGraph
from hios.ir.ids import TensorId

__all__ = ["GraphNotes", "read_notes"]

_TEXTS = ("hios_manifest", "hios_graph", "hios_schedule", "hios_machine")


@dataclass(frozen=True, slots=True)
class GraphNotes:
    """What a graph JSON carries.

    Attributes
    ----------
    texts
        The JSON texts by name.
    weights
        Name of the parameter of every weight of the operator graph.
    """

    texts: Mapping[str, str]
    weights: Mapping[TensorId, str]


def read_notes(graph_json: str) -> GraphNotes:
    """Read the notes of a graph JSON.

    Parameters
    ----------
    graph_json
        As ``factory.get_graph_json()`` gives it.

    Returns
    -------
    GraphNotes
        Without any texts when there are no notes.

    Raises
    ------
    ArtifactMismatch
        When it is no graph JSON, or its notes are not about its nodes.
    """
    try:
        described = json.loads(graph_json)
        nodes = described["nodes"]
        heads = described["heads"]
    except (ValueError, KeyError, TypeError) as problem:
        raise ArtifactMismatch(f"this is no graph JSON of TVM ({problem}); build again") from None
    noted = {
        int(node["attrs"]["hios_op"]): node for node in nodes if "hios_op" in node.get("attrs", {})
    }
    first = noted[0]["attrs"] if 0 in noted else {}
    texts = {name: first[name] for name in _TEXTS if name in first}
    if "hios_graph" not in texts:
        return GraphNotes({}, {})
    try:
        graph = OpGraph.from_json(texts["hios_graph"], "embedded graph")
    except InvalidGraph as problem:
        raise ArtifactMismatch(f"{problem}; build again") from problem
    weights: dict[TensorId, str] = {}
    if sorted(noted) != list(range(len(graph.operators))):
        raise ArtifactMismatch(
            f"the graph JSON has {len(noted)} noted nodes, its operator graph "
            f"{len(graph.operators)} operators; build again"
        )
    for operator in graph.operators:
        node = noted[operator.id]
        called = node["attrs"]["func_name"]
        if called != operator.kernel or len(node["inputs"]) != len(operator.inputs):
            raise ArtifactMismatch(
                f"node {node['name']!r} calls {called!r} with {len(node['inputs'])} inputs, its "
                f"operator {operator.kernel!r} with {len(operator.inputs)}; build again"
            )
        for tensor, entry in zip(operator.inputs, node["inputs"], strict=True):
            _name(graph, tensor, nodes, entry, weights)
    for tensor, entry in zip(graph.outputs, heads, strict=False):
        _name(graph, tensor, nodes, entry, weights)
    return GraphNotes(texts, weights)


def _name(
    graph: OpGraph, tensor: TensorId, nodes: Any, entry: Any, weights: dict[TensorId, str]
) -> None:
    """Note the parameter behind `tensor`, if it is a weight; views have nodes of their own."""
    if not graph.is_weight(tensor):
        return
    node = nodes[entry[0]]
    while node["op"] != "null" and node["attrs"]["func_name"] == "__nop":
        node = nodes[node["inputs"][0][0]]
    weights[graph.root(tensor)] = node["name"]
