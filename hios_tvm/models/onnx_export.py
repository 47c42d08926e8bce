"""A network of the builder as ONNX.

Terms become Add (or Mul) and Concat, a value that is part of its operator a Slice, an activation
a node of its own, a linear layer Flatten and Gemm. Every node is named after its operator:
``conv_12``, ``conv_12.relu``, ``conv_12.sum0``; the operators of a sequential unit start with its
name: ``unit_7.conv_5``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from hios.errors import InvalidOption
from hios_tvm.models.draft import OnnxDraft
from hios_tvm.models.graph import Graph
from hios_tvm.models.node import Node
from hios_tvm.models.node_options import is_count
from hios_tvm.models.nodes import (
    Activation,
    Conv,
    Element,
    FloatArray,
    Identity,
    Linear,
    Placeholder,
    Pool,
    Relu,
    Sequential,
)
from hios_tvm.models.values import Inputs, Value
from hios_tvm.models.weights import BIAS_STD, WeightSpec, draw, he_std

__all__ = ["draft_graph", "emit_graph", "layer_weights"]

INPUT = "data"
OUTPUT = "output"

_FUNCTIONS = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}


def draft_graph(graph: Graph, batch: int = 1) -> OnnxDraft:
    """Return a network as a draft with input ``data`` and output ``output``.

    Parameters
    ----------
    graph : Graph
        The network.
    batch : int
        Images in one run.

    Raises
    ------
    InvalidOption
        When `batch` is below 1 or the weights set on a layer have another shape.
    """
    if not is_count(batch):
        raise InvalidOption(f"batch is {batch!r}; it must be a positive integer")
    draft = OnnxDraft(graph.name)
    data = draft.input(INPUT, (batch, *graph.input_shape))
    tensors = emit_graph(graph, draft, data)
    last = graph.exit_node
    draft.op("Identity", [tensors[last.name]], OUTPUT)
    is_flat = isinstance(last, Linear)
    draft.output(OUTPUT, (batch, last.shape[0]) if is_flat else (batch, *last.shape))
    return draft


def emit_graph(graph: Graph, draft: OnnxDraft, data: str) -> Mapping[str, str]:
    """Add the operators of a network to a draft.

    Parameters
    ----------
    graph : Graph
        The network.
    draft : OnnxDraft
        Where to add them.
    data : str
        The tensor that the placeholder stands for.

    Returns
    -------
    mapping
        Name of each operator -> name of its tensor.
    """
    emitter = _Emitter(draft)
    emitter.tensors[graph.input.name] = data
    for node in graph.nodes():
        emitter.emit(node, "")
    return emitter.tensors


def layer_weights(layer: Conv | Linear, seed: int) -> tuple[FloatArray, FloatArray | None]:
    """Return the weight and bias that the export draws for a layer.

    Parameters
    ----------
    layer : Conv or Linear
        The layer.
    seed : int
        Seed of the network.
    """
    weight, bias = _specs(layer)
    return draw(weight, seed), None if bias is None else draw(bias, seed)


class _Emitter:
    """Walks a network in order and remembers the tensor of each operator."""

    def __init__(self, draft: OnnxDraft) -> None:
        self.draft = draft
        self.tensors: dict[str, str] = {}
        self.flat: set[str] = set()

    def emit(self, node: Node, prefix: str) -> None:
        if isinstance(node, Placeholder):
            return
        if isinstance(node, Sequential):
            for inner in node.nodes:
                self.emit(inner, f"unit_{node.name}.")
            self.tensors[node.name] = self.tensors[node.nodes[-1].name]
            if node.nodes[-1].name in self.flat:
                self.flat.add(node.name)
            return
        name = f"{prefix}{node.type}_{node.name}"
        join = "Mul" if isinstance(node, Element) and node.op_type == "mul" else "Add"
        value = self.combine(node.terms, name, join)
        if isinstance(node, Conv):
            value = self.conv(node, value, name)
        elif isinstance(node, Linear):
            value = self.linear(node, value, name)
            self.flat.add(node.name)
        elif isinstance(node, Pool):
            value = self.pool(node, value, name)
        elif isinstance(node, Relu):
            value = self.draft.op("Relu", [value], name)
        elif isinstance(node, Activation):
            value = self.draft.op(_FUNCTIONS[node.act_type], [value], name)
        elif not isinstance(node, (Identity, Element)):
            raise InvalidOption(f"{node.owner} has no ONNX form; build it of the known operators")
        self.tensors[node.name] = value

    def combine(self, terms: Inputs, name: str, join: str) -> str:
        joined = []
        for index, term in enumerate(terms):
            total = self.read(term[0], f"{name}.in{index}_0")
            for position, value in enumerate(term[1:], start=1):
                other = self.read(value, f"{name}.in{index}_{position}")
                total = self.draft.op(join, [total, other], f"{name}.sum{index}_{position}")
            joined.append(total)
        if len(joined) == 1:
            return joined[0]
        return self.draft.op("Concat", joined, f"{name}.concat", axis=1)

    def read(self, value: Value, name: str) -> str:
        tensor = self.tensors[value.node.name]
        if value.node.name in self.flat:
            # A linear layer leaves (batch, features); everything else reads four dimensions.
            shape = self.draft.constant("shape.image", np.array([0, -1, 1, 1], np.int64))
            tensor = self.draft.op("Reshape", [tensor, shape], f"{name}.image")
        if value.length == value.node.shape[0]:
            return tensor
        bounds = [
            self.draft.constant(f"int.{number}", np.array([number], np.int64))
            for number in (value.begin, value.end, 1)
        ]
        return self.draft.op("Slice", [tensor, *bounds], f"{name}.slice")

    def conv(self, node: Conv, value: str, name: str) -> str:
        output = self.draft.op(
            "Conv",
            [value, *self.parameters(node)],
            name,
            kernel_shape=list(node.kernel),
            strides=list(node.stride),
            pads=[*node.padding, *node.padding],
            group=node.groups,
        )
        return self.activate(output, node.act)

    def linear(self, node: Linear, value: str, name: str) -> str:
        flat = self.draft.op("Flatten", [value], f"{name}.flat", axis=1)
        output = self.draft.op("Gemm", [flat, *self.parameters(node)], name, transB=1)
        return self.activate(output, node.act)

    def pool(self, node: Pool, value: str, name: str) -> str:
        if node.is_global:
            kind = "GlobalMaxPool" if node.pool_type == "global_max" else "GlobalAveragePool"
            return self.draft.op(kind, [value], name)
        attributes = {
            "kernel_shape": list(node.kernel),
            "strides": list(node.stride),
            "pads": [*node.padding, *node.padding],
        }
        kind = "MaxPool" if node.pool_type == "max" else "AveragePool"
        return self.draft.op(kind, [value], name, **attributes)

    def activate(self, value: str, act: str) -> str:
        if act == "identity":
            return value
        return self.draft.op(_FUNCTIONS[act], [value], f"{value}.{act}")

    def parameters(self, node: Conv | Linear) -> list[str]:
        names = []
        for spec, given in zip(_specs(node), (node.weight, node.bias), strict=True):
            if spec is None:
                continue
            if given is None:
                names.append(self.draft.weight(spec.name, spec.shape, spec.std))
            elif tuple(given.shape) == spec.shape:
                names.append(self.draft.given_weight(spec.name, given))
            else:
                raise InvalidOption(
                    f"{node.owner} was given {spec.name} of shape {tuple(given.shape)}; "
                    f"it must be {spec.shape}"
                )
        return names


def _specs(layer: Conv | Linear) -> tuple[WeightSpec, WeightSpec | None]:
    addends = max(len(term) for term in layer.terms)
    fan_in = math.prod(layer.weight_shape[1:]) * addends
    std = he_std(fan_in, rectified=_is_rectified(layer.terms[0][0]))
    weight = WeightSpec(f"{layer.type}_{layer.name}.weight", layer.weight_shape, std)
    if isinstance(layer, Conv) and not layer.has_bias:
        return weight, None
    return weight, WeightSpec(f"{layer.type}_{layer.name}.bias", layer.bias_shape, BIAS_STD)


def _is_rectified(value: Value) -> bool:
    node = value.node
    while True:
        if isinstance(node, Sequential):
            node = node.nodes[-1]
        if isinstance(node, (Conv, Linear)):
            return node.act == "relu"
        if isinstance(node, Relu) or (isinstance(node, Activation) and node.act_type == "relu"):
            return True
        if not isinstance(node, (Pool, Identity)):
            return False
        # Pooling and concatenation keep values as they are; sums count as fan-in instead.
        node = node.terms[0][0].node
