"""What an operator computes, read from its Relay function: family and arithmetic.

The work is that of the mathematical operator, whatever algorithm its kernel uses (a Winograd
convolution counts like a direct one), so that two schedules of one operator have equal features.
A multiply-add counts two; moving data counts nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relay

from relay_passes.kinds import kind_from_name
from relay_passes.relay.dataflow import dataflow_order

__all__ = ["Work", "work_of_call", "work_of_function"]

_RANK = (
    "conv2d",
    "depthwise",
    "dense",
    "attention",
    "pool",
    "global_pool",
    "softmax",
    "lrn",
    "norm",
    "resize",
    "concat",
    "split",
    "gather",
    "reduce",
    "transpose",
    "slice",
    "pad",
    "elementwise",
    "copy",
)
"""The first of these families inside a fused function is the function's."""

_MOVES = frozenset({"concat", "split", "gather", "transpose", "slice", "pad", "copy"})
_SOFTMAX_FLOPS = 5
"""Maximum, difference, exponential, sum, quotient: one each per element."""


@dataclass(frozen=True, slots=True)
class Work:
    """Family and arithmetic operations of one operator."""

    kind: str
    flops: float


def work_of_function(function: Any) -> Work:
    """Return the family and the arithmetic of a typed fused Relay function."""
    parts = [
        work_of_call(expr)
        for expr in dataflow_order(function.body)
        if isinstance(expr, relay.Call) and isinstance(expr.op, tvm.ir.Op)
    ]
    kinds = {part.kind for part in parts}
    kind = next((kind for kind in _RANK if kind in kinds), "other")
    return Work(kind, sum(part.flops for part in parts))


def work_of_call(call: Any) -> Work:
    """Return the family and the arithmetic of one typed operator call, without its arguments."""
    name = str(call.op.name)
    kind = "depthwise" if _is_depthwise(call, name) else kind_from_name(name)
    return Work(kind, _flops(call, kind))


def _elements(kind: Any) -> int:
    if isinstance(kind, relay.TupleType):
        return sum(_elements(field) for field in kind.fields)
    return math.prod(int(extent) for extent in kind.shape)


def _flops(call: Any, kind: str) -> float:
    outputs = _elements(call.checked_type)
    if kind in ("conv2d", "depthwise"):
        return 2.0 * outputs * _conv_reduction(call)
    if kind == "dense":
        return 2.0 * outputs * _dense_reduction(call)
    if kind == "pool":
        window = getattr(call.attrs, "pool_size", None)
        return float(outputs * (math.prod(int(w) for w in window) if window is not None else 1))
    if kind in ("global_pool", "reduce"):
        return float(_elements(call.args[0].checked_type))
    if kind == "softmax":
        return float(_SOFTMAX_FLOPS * outputs)
    if kind == "lrn":
        return float(outputs * (2 * int(call.attrs.size) + 3))
    if kind == "norm":
        return 2.0 * outputs
    return 0.0 if kind in _MOVES else float(outputs)


def _channels(call: Any) -> int | None:
    """Return how many channels the data of a convolution have."""
    layout = str(getattr(call.attrs, "data_layout", ""))
    shape = [int(extent) for extent in call.args[0].checked_type.shape]
    axes = [letter for letter in layout if letter.isalpha()]
    if len(axes) != len(shape):
        return None
    return math.prod(
        extent for letter, extent in zip(axes, shape, strict=True) if letter in ("C", "c")
    )


def _conv_reduction(call: Any) -> float:
    channels = _channels(call)
    window = getattr(call.attrs, "kernel_size", None)
    if channels is not None and window is not None:
        groups = int(getattr(call.attrs, "groups", 1))
        return channels / groups * math.prod(int(extent) for extent in window)
    weights = _elements(call.args[1].checked_type)
    produced = getattr(call.attrs, "channels", None)
    return weights / int(produced) if produced is not None else 1.0


def _dense_reduction(call: Any) -> float:
    name = str(call.op.name)
    shape = [int(extent) for extent in call.args[0].checked_type.shape]
    if getattr(call.attrs, "transpose_a", False) and len(shape) > 1:
        return float(shape[-2])
    return float(shape[-1]) if name.startswith("nn.") else 1.0


def _is_depthwise(call: Any, name: str) -> bool:
    if "conv" not in name:
        return False
    groups = int(getattr(call.attrs, "groups", 1) or 1)
    return "depthwise" in name or (groups > 1 and groups == _channels(call))
