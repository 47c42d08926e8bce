"""What a network is made of: operators, width, critical path, parameters and work.

Counted on the ONNX graph, before any compiler: element-wise operators and reshapes that are the
only reader of their producer are counted with it, as compilers fuse them; everything else is an
operator of its own. Work is counted as in `hios_tvm.models.node`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx
import onnx

from hios.errors import UnsupportedModel
from hios.ir import OpGraph
from hios.structure import longest_path, width
from hios_tvm.models.draft import OnnxDraft

__all__ = ["ModelSummary", "operator_graph", "summarize", "with_compiled_operators"]

_ELEMENTWISE = {"Add", "Clip", "Div", "Erf", "Exp", "LeakyRelu", "Mul", "Neg", "Pow", "Relu"}
_ELEMENTWISE |= {"Sigmoid", "Softplus", "Sqrt", "Sub", "Tanh"}
_COPIES = {"Cast", "Concat", "Constant", "Dropout", "Expand", "Flatten", "Gather", "Identity"}
_COPIES |= {"Reshape", "Resize", "Shape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
# Operators that follow their only producer into one kernel.
_FOLLOWERS = (_ELEMENTWISE | _COPIES) - {"Concat", "Resize", "Split", "Gather"}
_NORMALISERS = {"Softmax": 5, "LayerNormalization": 8, "BatchNormalization": 2, "LRN": 10}


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """The figures of one network, for the batch that it was built with.

    Attributes
    ----------
    name
        Of the network.
    operators
        Operators after joining element-wise ones to their producers.
    width
        The most of them that could run at once.
    critical_path
        Operators on the path with the most operators.
    parameters
        Elements of all weights; a shared weight counts once.
    macs
        Multiply-adds of convolutions and matrix products.
    flops
        Floating-point operations, a multiply-add being two.
    critical_flops
        Most floating-point operations on one path.
    """

    name: str
    operators: int
    width: int
    critical_path: int
    parameters: int
    macs: int
    flops: int
    critical_flops: int

    @property
    def parallelism(self) -> float:
        """Work over critical path: the speed-up with free transfers and any number of devices."""
        return self.flops / self.critical_flops if self.critical_flops else 1.0


def summarize(network: OnnxDraft | onnx.ModelProto) -> ModelSummary:
    """Return the figures of a network.

    Parameters
    ----------
    network : OnnxDraft or onnx.ModelProto
        A draft is counted without drawing its weights.

    Raises
    ------
    UnsupportedModel
        When the shape of some tensor is not static.

    Notes
    -----
    Dominated by the width; below a second for a thousand operators.
    """
    model = network.skeleton() if isinstance(network, OnnxDraft) else network
    if isinstance(network, OnnxDraft):
        parameters = network.parameters
    else:
        parameters = sum(
            math.prod(tensor.dims)
            for tensor in model.graph.initializer
            if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
        )
    graph = operator_graph(model)
    flops = {node: int(graph.nodes[node]["flops"]) for node in graph}
    return ModelSummary(
        name=model.graph.name,
        operators=len(graph),
        width=width(graph),
        critical_path=int(longest_path(graph)[0]),
        parameters=parameters,
        macs=sum(int(graph.nodes[node]["macs"]) for node in graph),
        flops=sum(flops.values()),
        critical_flops=int(longest_path(graph, lambda node: float(flops[node]))[0]),
    )


def with_compiled_operators(summary: ModelSummary, graph: OpGraph) -> ModelSummary:
    """Return the figures of a network with the operators that a compiler made of it.

    Parameters
    ----------
    summary : ModelSummary
        Of the network; parameters and multiply-adds are kept.
    graph : OpGraph
        The operators after fusion, one kernel call each.
    """
    dependencies = graph.to_networkx()
    flops = [op.flops for op in graph.operators]
    return replace(
        summary,
        operators=len(graph.operators),
        width=width(dependencies),
        critical_path=int(longest_path(dependencies)[0]),
        flops=int(sum(flops)),
        critical_flops=int(longest_path(dependencies, lambda op: flops[op])[0]),
    )


def operator_graph(model: onnx.ModelProto) -> nx.DiGraph[str]:
    """Return the operators of a model and who reads whom.

    Parameters
    ----------
    model : onnx.ModelProto
        A model with static shapes.

    Returns
    -------
    networkx.DiGraph
        Nodes are named after the first ONNX node of each operator and carry ``members``,
        ``kind``, ``macs`` and ``flops``.
    """
    shapes = _shapes(model)
    readers: dict[str, int] = {}
    for node in model.graph.node:
        for tensor in dict.fromkeys(node.input):
            readers[tensor] = readers.get(tensor, 0) + 1
    for output in model.graph.output:
        readers[output.name] = readers.get(output.name, 0) + 1
    graph: nx.DiGraph[str] = nx.DiGraph()
    owner: dict[str, str] = {}
    for node in model.graph.node:
        sources = [tensor for tensor in dict.fromkeys(node.input) if tensor in owner]
        alone = [tensor for tensor in sources if readers[tensor] == 1]
        if node.op_type in _FOLLOWERS and alone:
            home = owner[alone[0]]
        else:
            home = node.output[0]
            graph.add_node(home, kind=node.op_type, members=[], macs=0, flops=0)
        macs, flops = _work(node, shapes)
        graph.nodes[home]["members"].append(node.output[0])
        graph.nodes[home]["macs"] += macs
        graph.nodes[home]["flops"] += flops
        for tensor in sources:
            if owner[tensor] != home:
                graph.add_edge(owner[tensor], home)
        owner.update(dict.fromkeys(node.output, home))
    return graph


def _shapes(model: onnx.ModelProto) -> Mapping[str, tuple[int, ...]]:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for group in (inferred.graph.input, inferred.graph.value_info, inferred.graph.output):
        for info in group:
            extents = info.type.tensor_type.shape.dim
            if all(d.HasField("dim_value") for d in extents):
                shapes[info.name] = tuple(d.dim_value for d in extents)
    for node in model.graph.node:
        if node.output[0] not in shapes:
            raise UnsupportedModel(
                f"model {model.graph.name!r}: the shape of {node.output[0]!r} ({node.op_type}) "
                "is not known before it runs; give the inputs static shapes"
            )
    return shapes


def _work(node: Any, shapes: Mapping[str, Sequence[int]]) -> tuple[int, int]:
    kind = node.op_type
    elements = math.prod(shapes[node.output[0]])
    if kind == "Conv":
        macs = elements * math.prod(shapes[node.input[1]][1:])
        return macs, 2 * macs
    if kind in ("Gemm", "MatMul"):
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        macs = elements * shapes[node.input[0]][-2 if transposed else -1]
        return macs, 2 * macs
    if kind in ("MaxPool", "AveragePool"):
        kernel = next(a.ints for a in node.attribute if a.name == "kernel_shape")
        return 0, elements * math.prod(kernel)
    if kind in ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceSum", "ReduceMax"):
        return 0, math.prod(shapes[node.input[0]])
    if kind in _COPIES:
        return 0, 0
    return 0, elements * _NORMALISERS.get(kind, 1)
