"""An ONNX network as a PyTorch module, so that both run the same weights.

The graph becomes a `torch.fx.GraphModule`: straight-line Python that calls PyTorch's functions,
without an interpreter, which runs eagerly, through ``torch.compile`` and in a CUDA graph.
It knows the operators of the zoo and of the networks in the ``onnx`` package, with static
shapes; what it does not know it names.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hios.errors import UnsupportedModel

__all__ = ["torch_module", "unsupported"]

Attributes = dict[str, Any]


class _Emit:
    """Adds calls to an fx graph, and knows which values are constants."""

    def __init__(self, graph: Any, constants: dict[str, np.ndarray[Any, Any]]) -> None:
        import torch

        self.torch = torch
        self.nn = torch.nn.functional
        self.constants = constants
        self._graph = graph

    def call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Add one call and return its value."""
        return self._graph.call_function(function, arguments, named)

    def numbers(self, name: str) -> list[int]:
        """Return a constant input as plain numbers: a shape, or axes."""
        if name not in self.constants:
            raise UnsupportedModel(
                f"value {name!r} is computed, where PyTorch needs a constant; fold constants first"
            )
        return [int(x) for x in self.constants[name].ravel()]


def unsupported(model: Any) -> str | None:
    """Return which operators of a model have no counterpart here, or None."""
    kinds = sorted({node.op_type for node in model.graph.node} - _EMITTERS.keys() - {"Constant"})
    return f"no PyTorch counterpart here for {', '.join(kinds)}" if kinds else None


def torch_module(model: Any) -> Any:
    """Rebuild a network in PyTorch.

    Parameters
    ----------
    model : onnx.ModelProto
        With static shapes.

    Returns
    -------
    torch.fx.GraphModule
        Takes the inputs in order, returns a tuple of the outputs.

    Raises
    ------
    UnsupportedModel
        When an operator, or one of its options, has no counterpart.
    """
    import torch
    from onnx import helper, numpy_helper

    if (reason := unsupported(model)) is not None:
        raise UnsupportedModel(f"{reason}; compare without PyTorch")
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    root = torch.nn.Module()
    graph = torch.fx.Graph()
    emit = _Emit(graph, constants)
    values: dict[str, Any] = {}
    for index, given in enumerate(i for i in model.graph.input if i.name not in constants):
        values[given.name] = graph.placeholder(f"input_{index}")

    def value(name: str) -> Any:
        if name not in values and name:
            attribute = f"weight_{len(values)}"
            # A copy: what ONNX hands out is read-only memory of the model.
            root.register_buffer(attribute, torch.from_numpy(np.array(constants[name])))
            values[name] = graph.get_attr(attribute)
        return values.get(name)

    for node in model.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(attributes["value"])
            continue
        read = _Lazy(node.input, value)
        found = _EMITTERS[node.op_type](emit, read, {**attributes, "opset": opset})
        values[node.output[0]] = found
    graph.output(tuple(value(out.name) for out in model.graph.output))
    graph.eliminate_dead_code()
    return torch.fx.GraphModule(root, graph).eval()


class _Lazy:
    """The inputs of a node; a constant that is only read as numbers never becomes a tensor."""

    def __init__(self, names: Sequence[str], value: Callable[[str], Any]) -> None:
        self.names = list(names)
        self._value = value

    def __getitem__(self, index: int) -> Any:
        return self._value(self.names[index]) if index < len(self.names) else None

    def __len__(self) -> int:
        return len(self.names)


def _conv(emit: _Emit, x: _Lazy, a: Attributes) -> Any:
    rank = len(emit.constants[x.names[1]].shape) - 2
    strides, dilations = a.get("strides", [1] * rank), a.get("dilations", [1] * rank)
    data, pads = _padded(emit, x[0], a, rank, 0.0)
    function = {1: emit.nn.conv1d, 2: emit.nn.conv2d, 3: emit.nn.conv3d}[rank]
    return emit.call(function, data, x[1], x[2], strides, pads, dilations, a.get("group", 1))


def _max_pool(emit: _Emit, x: _Lazy, a: Attributes) -> Any:
    kernel = a["kernel_shape"]
    data, pads = _padded(emit, x[0], a, len(kernel), -math.inf, most=[k // 2 for k in kernel])
    dilations = a.get("dilations", [1] * len(kernel))
    return emit.call(
        _pooling(emit, "max_pool", len(kernel)),
        data,
        kernel,
        a.get("strides", [1] * len(kernel)),
        pads,
        dilations,
        bool(a.get("ceil_mode", 0)),
    )


def _average_pool(emit: _Emit, x: _Lazy, a: Attributes) -> Any:
    kernel, counts = a["kernel_shape"], bool(a.get("count_include_pad", 0))
    data, pads = x[0], _pads(a, len(kernel))
    half = pads[: len(kernel)]
    if half != pads[len(kernel) :] or any(p > k // 2 for p, k in zip(half, kernel, strict=True)):
        if not counts:
            return _uneven_average(emit, data, a)
        data, half = _padded(emit, data, a, len(kernel), 0.0, most=[k // 2 for k in kernel])
    return emit.call(
        _pooling(emit, "avg_pool", len(kernel)),
        data,
        kernel,
        a.get("strides", [1] * len(kernel)),
        half,
        bool(a.get("ceil_mode", 0)),
        counts,
    )


def _uneven_average(emit: _Emit, data: Any, a: Attributes) -> Any:
    """Divide each sum by how many elements it has: PyTorch pads both ends alike only."""
    rank = len(a["kernel_shape"])
    zeros = [0] * rank
    settings = (a["kernel_shape"], a.get("strides", [1] * rank), zeros, bool(a.get("ceil_mode", 0)))
    ones = emit.call(emit.torch.ones_like, data)
    means = []
    for part in (data, ones):
        padded, _ = _padded(emit, part, a, rank, 0.0, most=zeros)
        means.append(emit.call(_pooling(emit, "avg_pool", rank), padded, *settings))
    return emit.call(emit.torch.div, *means)


def _pooling(emit: _Emit, kind: str, rank: int) -> Any:
    return getattr(emit.nn, f"{kind}{rank}d")


def _pads(a: Attributes, rank: int) -> list[int]:
    if a.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise UnsupportedModel(f"auto_pad {a['auto_pad']!r} has no counterpart; write pads")
    return list(a.get("pads", [0] * 2 * rank))


def _padded(
    emit: _Emit, data: Any, a: Attributes, rank: int, fill: float, most: list[int] | None = None
) -> tuple[Any, list[int]]:
    """Return the data and the even padding that is left; uneven padding becomes a call."""
    pads = _pads(a, rank)
    begin, end = pads[:rank], pads[rank:]
    fits = most is None or all(p <= m for p, m in zip(begin, most, strict=True))
    if begin == end and fits:
        return data, begin
    pairs = [p for axis in reversed(range(rank)) for p in (begin[axis], end[axis])]
    return emit.call(emit.nn.pad, data, pairs, "constant", fill), [0] * rank


def _gemm(emit: _Emit, x: _Lazy, a: Attributes) -> Any:
    torch = emit.torch
    left = emit.call(torch.t, x[0]) if a.get("transA") else x[0]
    alpha, beta = a.get("alpha", 1.0), a.get("beta", 1.0)
    if alpha == beta == 1.0 and a.get("transB") and len(x) > 2:
        return emit.call(emit.nn.linear, left, x[1], x[2])
    right = emit.call(torch.t, x[1]) if a.get("transB") else x[1]
    if len(x) < 3:
        product = emit.call(torch.matmul, left, right)
        return product if alpha == 1.0 else emit.call(torch.mul, product, alpha)
    return emit.call(torch.addmm, x[2], left, right, beta=beta, alpha=alpha)


def _batch_norm(emit: _Emit, x: _Lazy, a: Attributes) -> Any:
    return emit.call(
        emit.nn.batch_norm, x[0], x[3], x[4], x[1], x[2], False, 0.0, a.get("epsilon", 1e-5)
    )


def _layer_norm(emit: _Emit, x: _Lazy, a: Attributes) -> Any:
    shape = list(emit.constants[x.names[1]].shape)
    return emit.call(emit.nn.layer_norm, x[0], shape, x[1], x[2], a.get("epsilon", 1e-5))


def _lrn(emit: _Emit, x: _Lazy, a: Attributes) -> Any:
    return emit.call(
        emit.nn.local_response_norm,
        x[0],
        a["size"],
        a.get("alpha", 1e-4),
        a.get("beta", 0.75),
        a.get("bias", 1.0),
    )


def _reshape(emit: _Emit, x: _Lazy, a: Attributes) -> Any:
    shape = list(a["shape"]) if "shape" in a else emit.numbers(x.names[1])
    if not a.get("allowzero"):
        source: Any = x[0]
        shape = [
            emit.call(emit.torch.Tensor.size, source, i) if extent == 0 else extent
            for i, extent in enumerate(shape)
        ]
    return emit.call(emit.torch.reshape, x[0], shape)


def _flatten(emit: _Emit, x: _Lazy, a: Attributes) -> Any:
    if a.get("axis", 1) != 1:
        raise UnsupportedModel(f"Flatten with axis {a['axis']} has no counterpart here")
    return emit.call(emit.torch.flatten, x[0], 1)


def _softmax(emit: _Emit, x: _Lazy, a: Attributes) -> Any:
    axis = a.get("axis", 1 if a["opset"] < 13 else -1)
    return emit.call(emit.torch.softmax, x[0], axis)


def _unsqueeze(emit: _Emit, x: _Lazy, a: Attributes) -> Any:
    found = x[0]
    for axis in sorted(a["axes"] if "axes" in a else emit.numbers(x.names[1])):
        found = emit.call(emit.torch.unsqueeze, found, axis)
    return found


def _slice(emit: _Emit, x: _Lazy, a: Attributes) -> Any:
    starts, ends = emit.numbers(x.names[1]), emit.numbers(x.names[2])
    axes = emit.numbers(x.names[3]) if len(x) > 3 else list(range(len(starts)))
    steps = emit.numbers(x.names[4]) if len(x) > 4 else [1] * len(starts)
    if any(step != 1 for step in steps):
        raise UnsupportedModel("Slice with steps has no counterpart here")
    found = x[0]
    for axis, start, end in zip(axes, starts, ends, strict=True):
        found = emit.call(emit.torch.ops.aten.slice.Tensor, found, axis, start, end, 1)
    return found


def _resize(emit: _Emit, x: _Lazy, a: Attributes) -> Any:
    # PyTorch's nearest takes the pixel at floor(place × in / out), as ONNX's asymmetric floor.
    known = (b"nearest", b"asymmetric", b"floor")
    keys = ("mode", "coordinate_transformation_mode", "nearest_mode")
    if tuple(a.get(key) for key in keys) != known:
        raise UnsupportedModel("Resize other than nearest, asymmetric, floor has no counterpart")
    if len(x) > 3 and x.names[3]:
        return emit.call(emit.nn.interpolate, x[0], emit.numbers(x.names[3])[2:], None, "nearest")
    scales = [float(scale) for scale in emit.constants[x.names[2]][2:]]
    return emit.call(emit.nn.interpolate, x[0], None, scales, "nearest")


def _sum(emit: _Emit, x: _Lazy, _a: Attributes) -> Any:
    parts = [x[i] for i in range(len(x))]
    return functools.reduce(lambda p, q: emit.call(emit.torch.add, p, q), parts)


def _concat(emit: _Emit, x: _Lazy, a: Attributes) -> Any:
    return emit.call(emit.torch.cat, [x[i] for i in range(len(x))], a["axis"])


def _transpose(emit: _Emit, x: _Lazy, a: Attributes) -> Any:
    return emit.call(emit.torch.permute, x[0], list(a["perm"]))


def _global_average(emit: _Emit, x: _Lazy, _a: Attributes) -> Any:
    return emit.call(emit.nn.adaptive_avg_pool2d, x[0], 1)


def _plain(name: str) -> Callable[[_Emit, _Lazy, Attributes], Any]:
    """Return the emitter of an operator that PyTorch has under `name` with the same inputs."""

    def emit_plain(emit: _Emit, x: _Lazy, _a: Attributes) -> Any:
        return emit.call(getattr(emit.torch, name), *(x[i] for i in range(len(x))))

    return emit_plain


def _same(_emit: _Emit, x: _Lazy, _a: Attributes) -> Any:
    return x[0]


_EMITTERS: dict[str, Callable[[_Emit, _Lazy, Attributes], Any]] = {
    "Add": _plain("add"),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _plain("div"),
    "Dropout": _same,
    "Erf": _plain("erf"),
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "Identity": _same,
    "LRN": _lrn,
    "LayerNormalization": _layer_norm,
    "MatMul": _plain("matmul"),
    "MaxPool": _max_pool,
    "Mul": _plain("mul"),
    "Pow": _plain("pow"),
    "Relu": _plain("relu"),
    "Reshape": _reshape,
    "Resize": _resize,
    "Sigmoid": _plain("sigmoid"),
    "Slice": _slice,
    "Softmax": _softmax,
    "Sqrt": _plain("sqrt"),
    "Sub": _plain("sub"),
    "Sum": _sum,
    "Tanh": _plain("tanh"),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
