"""Several graphs as one, so that several models can share one schedule."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hios.errors import InvalidGraph
from hios.ir.graph import Alternative, Operator, OpGraph, Tensor
from hios.ir.ids import OpId, TensorId

__all__ = ["MODEL_ATTRIBUTE", "GraphUnion", "union"]

MODEL_ATTRIBUTE = "model"
"""Key of `Operator.attrs` that holds the position of the graph an operator came from."""


@dataclass(frozen=True, slots=True)
class GraphUnion:
    """A union, and where each part of it begins.

    Attributes
    ----------
    graph
        All operators and tensors; those of the first graph come first.
    first_op, first_tensor
        By graph: what its operator 0 and tensor 0 have become.
    """

    graph: OpGraph
    first_op: tuple[OpId, ...]
    first_tensor: tuple[TensorId, ...]


def union(graphs: Sequence[OpGraph]) -> GraphUnion:
    """Put graphs side by side.

    Parameters
    ----------
    graphs
        At least one. The same graph may come several times.

    Returns
    -------
    GraphUnion
        Names of operators, tensors and alternatives get the prefix ``i/`` of their graph's
        position i, and every operator the attribute ``model``.

    Raises
    ------
    InvalidGraph
        When there are none.

    Examples
    --------
    >>> from hios.graph_file import parse_graph_file
    >>> one = parse_graph_file('{"operators": [{"id": 7, "time_us": 1}], "edges": []}').graph
    >>> [op.name for op in union([one, one]).graph.operators]
    ['0/7', '1/7']
    """
    if not graphs:
        raise InvalidGraph("a union needs at least one graph, got none")
    operators: list[Operator] = []
    tensors: list[Tensor] = []
    inputs: list[TensorId] = []
    outputs: list[TensorId] = []
    alternatives: list[Alternative] = []
    first_op, first_tensor = [], []
    for index, graph in enumerate(graphs):
        op0, tensor0 = len(operators), len(tensors)
        first_op.append(OpId(op0))
        first_tensor.append(TensorId(tensor0))
        operators += [_moved_operator(op, index, op0, tensor0) for op in graph.operators]
        tensors += [_moved_tensor(tensor, index, op0, tensor0) for tensor in graph.tensors]
        inputs += _shift(graph.inputs, tensor0)
        outputs += _shift(graph.outputs, tensor0)
        alternatives += [
            replace(
                one,
                name=f"{index}/{one.name}",
                members=tuple(OpId(op + op0) for op in one.members),
            )
            for one in graph.alternatives
        ]
    whole = OpGraph(
        "+".join(graph.name for graph in graphs),
        tuple(operators),
        tuple(tensors),
        tuple(inputs),
        tuple(outputs),
        tuple(alternatives),
    )
    return GraphUnion(whole, tuple(first_op), tuple(first_tensor))


def _shift(tensors: Sequence[TensorId], by: int) -> tuple[TensorId, ...]:
    return tuple(TensorId(tensor + by) for tensor in tensors)


def _moved_operator(op: Operator, index: int, op0: int, tensor0: int) -> Operator:
    return replace(
        op,
        id=OpId(op.id + op0),
        name=f"{index}/{op.name}",
        inputs=_shift(op.inputs, tensor0),
        outputs=_shift(op.outputs, tensor0),
        attrs={**op.attrs, MODEL_ATTRIBUTE: index},
    )


def _moved_tensor(tensor: Tensor, index: int, op0: int, tensor0: int) -> Tensor:
    producer, base = tensor.producer, tensor.alias_of
    return replace(
        tensor,
        id=TensorId(tensor.id + tensor0),
        name=f"{index}/{tensor.name}",
        producer=None if producer is None else OpId(producer + op0),
        consumers=tuple(OpId(op + op0) for op in tensor.consumers),
        alias_of=None if base is None else TensorId(base + tensor0),
    )
