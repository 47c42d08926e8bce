"""Fold constants and per-channel affine chains before any layout is chosen.

Three things happen in one walk over ``main``:

* An operator whose arguments are all constants is evaluated with numpy. TVM's own `FoldConstant`
  compiles a kernel for each of them, which takes seconds on networks with many batch norms; it
  still runs afterwards for the operators that are not known here.
* Inference-time identities disappear: dropout, broadcasts to the same shape, and the
  stack-then-sum by which the ONNX importer writes an n-ary sum.
* ``batch_norm`` with constant statistics becomes a scale and a shift; chains of per-channel
  scales and shifts collapse into one of each, and a scale behind a convolution moves into its
  weights. This covers the separate ``Mul``/``Add`` that Caffe exports put behind a batch norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import ir, relax

from relay_passes.straight_line import (
    StraightLineRewriter,
    constant_of,
    dtype_of,
    op_name,
    static_shape,
    tensor_constant,
)

__all__ = ["Simplify"]

Array = np.ndarray[Any, Any]

_FOLDED_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "relax.add": np.add,
    "relax.subtract": np.subtract,
    "relax.multiply": np.multiply,
}
_AFFINE = frozenset({"relax.add", "relax.subtract", "relax.multiply", "relax.divide"})


@tvm.transform.module_pass(opt_level=0, name="HiosSimplify")
class Simplify:
    """Module pass: constant folding, inference identities, affine chains (see the module)."""

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Rewrite ``main``."""
        return _Simplifier(mod).run()


class _Simplifier(StraightLineRewriter):
    def rewrite_call(self, call: Any, name: str) -> Any:
        folded = _fold(call, name)
        if folded is not None:
            return folded
        if name == "relax.nn.dropout":
            # The mask of an inference-time dropout is all ones; only its first field is real.
            shape, dtype = static_shape(call.args[0]), dtype_of(call.args[0])
            if shape is not None:
                return relax.Tuple([call.args[0], relax.op.ones(shape, dtype)])
            return call
        if name == "relax.broadcast_to" and _same_type(call, call.args[0]):
            return call.args[0]
        if name == "relax.nn.batch_norm":
            return self._batch_norm(call)
        if name == "relax.sum":
            return self._sum_of_stack(call)
        if name in _AFFINE:
            return self._affine(call, name)
        return call

    # -- batch norm and affine chains -----------------------------------------------------------

    def _batch_norm(self, call: Any) -> Any:
        data, *params = call.args
        arrays = [constant_of(p) for p in params]
        shape = static_shape(data)
        if shape is None or any(a is None for a in arrays) or bool(call.attrs.training):
            return call
        gamma, beta, mean, var = (a.astype("float64") for a in arrays if a is not None)
        scale = 1.0 / np.sqrt(var + float(call.attrs.epsilon))
        if call.attrs.scale:
            scale = scale * gamma
        shift = -mean * scale
        if call.attrs.center:
            shift = shift + beta
        axis = int(call.attrs.axis) % len(shape)
        wide = [1] * len(shape)
        wide[axis] = -1
        out = self._scaled(data, scale.reshape(wide))
        out = self._shifted(out, shift.reshape(wide))
        return relax.Tuple([out, params[2], params[3]])

    def _affine(self, call: Any, name: str) -> Any:
        lhs, rhs = call.args
        left, right = constant_of(lhs), constant_of(rhs)
        if left is not None and right is None and name in ("relax.add", "relax.multiply"):
            lhs, rhs, right = rhs, lhs, left
        if right is None or not _is_float(right) or static_shape(lhs) is None:
            return call
        if len(static_shape(lhs) or ()) < right.ndim or not _is_per_channel(lhs, right):
            return call
        wide = right.astype("float64")
        if name == "relax.multiply":
            return self._scaled(lhs, wide)
        if name == "relax.divide":
            return self._scaled(lhs, 1.0 / wide) if np.all(wide != 0) else call
        return self._shifted(lhs, wide if name == "relax.add" else -wide)

    def _scaled(self, data: Any, scale: Array) -> Any:
        """Return ``data * scale`` with the scale moved as far up as it can go."""
        made: Any = self.definition(data) if self.read_once(data) else None
        kind = _name(made)
        if kind == "relax.add" and (shift := constant_of(made.args[1])) is not None:
            return self._shifted(self._scaled(made.args[0], scale), shift * scale)
        if kind == "relax.multiply" and (factor := constant_of(made.args[1])) is not None:
            return self._scaled(made.args[0], factor * scale)
        if kind == "relax.nn.conv2d" and (weight := constant_of(made.args[1])) is not None:
            per_output = _along_channels(scale, static_shape(data), 1)
            if per_output is not None and made.attrs.kernel_layout == "OIHW":
                moved = (weight * per_output.reshape(-1, 1, 1, 1)).astype(weight.dtype)
                return self.emit(_with_weight(made, moved))
        if np.all(scale == 1.0):
            return data
        return self.emit(relax.op.multiply(data, tensor_constant(scale.astype(dtype_of(data)))))

    def _shifted(self, data: Any, shift: Array) -> Any:
        """Return ``data + shift``, merged with a constant that was already added."""
        made: Any = self.definition(data) if self.read_once(data) else None
        if _name(made) == "relax.add" and (before := constant_of(made.args[1])) is not None:
            data, shift = made.args[0], before + shift
        if np.all(shift == 0.0):
            return data
        return self.emit(relax.op.add(data, tensor_constant(shift.astype(dtype_of(data)))))

    # -- n-ary sums -----------------------------------------------------------------------------

    def _sum_of_stack(self, call: Any) -> Any:
        stack = self.definition(call.args[0])
        axes = call.attrs.axis
        if _name(stack) != "relax.stack" or axes is None or bool(call.attrs.keepdims):
            return call
        if [int(a) for a in axes] != [int(stack.attrs.axis)]:
            return call
        fields = self._fields(stack.args[0])
        if fields is None or len(fields) == 0:
            return call
        total = fields[0]
        for field in fields[1:]:
            total = self.emit(relax.op.add(total, field))
        return total

    def _fields(self, expr: Any) -> list[Any] | None:
        if isinstance(expr, relax.Tuple):
            return list(expr.fields)
        made = self.definition(expr)
        return list(made.fields) if isinstance(made, relax.Tuple) else None


def _name(call: Any) -> str:
    return op_name(call) if call is not None else ""


def _with_weight(conv: Any, weight: Array) -> Any:
    return ir.Call(conv.op, [conv.args[0], tensor_constant(weight)], conv.attrs, conv.ty_args)


def _is_float(array: Array) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating))


def _same_type(a: Any, b: Any) -> bool:
    return bool(static_shape(a) is not None and static_shape(a) == static_shape(b))


def _is_per_channel(data: Any, constant: Array) -> bool:
    """Return whether `constant` varies along one axis of `data` at most."""
    shape = static_shape(data)
    if shape is None:
        return False
    wide = (1,) * (len(shape) - constant.ndim) + constant.shape
    if any(c not in (1, s) for c, s in zip(wide, shape, strict=True)):
        return False
    return len([c for c in wide if c != 1]) <= 1


def _along_channels(scale: Array, shape: tuple[int, ...] | None, axis: int) -> Array | None:
    """Return `scale` as one value per channel of `axis`, or None when it varies elsewhere."""
    if shape is None:
        return None
    wide = scale.reshape((1,) * (len(shape) - scale.ndim) + scale.shape)
    if any(n != 1 for i, n in enumerate(wide.shape) if i != axis):
        return None
    return np.broadcast_to(wide.reshape(-1), (shape[axis],))


def _fold(call: Any, name: str) -> Any:
    """Evaluate `call` with numpy when all its tensors are constants, else return None."""
    arrays = [constant_of(a) for a in call.args if not isinstance(a, relax.ShapeExpr)]
    if not arrays or any(a is None for a in arrays):
        return None
    shape = static_shape(call)
    if shape is None:
        return None
    first = arrays[0]
    assert first is not None
    result: Array | None = None
    if name in _FOLDED_BINARY and len(arrays) == 2 and arrays[1] is not None:
        result = _FOLDED_BINARY[name](first, arrays[1])
    elif name == "relax.divide" and _is_float(first) and arrays[1] is not None:
        result = np.divide(first, arrays[1])
    elif name == "relax.sqrt":
        result = np.sqrt(first)
    elif name in ("relax.reshape", "relax.expand_dims", "relax.squeeze", "relax.flatten"):
        result = first.reshape(shape)
    elif name == "relax.permute_dims":
        axes = call.attrs.axes
        result = np.transpose(first, None if axes is None else [int(a) for a in axes])
    elif name == "relax.broadcast_to" and math.prod(shape) == first.size:
        result = first.reshape(shape)
    elif name == "relax.astype":
        result = first
    if result is None or result.shape != shape:
        return None
    return tensor_constant(result.astype(dtype_of(call)))
