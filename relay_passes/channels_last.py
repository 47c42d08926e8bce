"""Move 2-D convolutions and what surrounds them to channels-last storage.

CPU kernels vectorise over channels, so activations are stored as NHWC. The walk keeps, for every
value, the permutation under which it is stored: ``stored.shape[i] == logical.shape[perm[i]]``.
Convolutions and poolings demand ``(0, 2, 3, 1)``; elementwise operators, concatenations and
reductions follow their arguments; a transposition of an already permuted value costs nothing,
it only changes the permutation. Whatever is not known here gets its arguments back in logical
order, so an unknown operator costs a transposition, never a wrong answer. Weights are constants
and are permuted with numpy at compile time.
"""

from __future__ import annotations

import math
from typing import Any

import tvm
from tvm import ir, relax

from relay_passes.lrn import match_lrn, te_lrn
from relay_passes.straight_line import (
    StraightLineRewriter,
    constant_of,
    dtype_of,
    op_name,
    static_shape,
    tensor_constant,
)

__all__ = ["ChannelsLast"]

_NHWC = (0, 2, 3, 1)

_ELEMENTWISE = frozenset(
    f"relax.{name}"
    for names in (
        "abs acos acosh asin asinh astype atan atanh bitwise_not ceil clip cos cosh erf exp floor",
        "isfinite isinf isnan log logical_not negative round rsqrt sigmoid sign sin sinh sqrt",
        "square tan tanh add subtract multiply divide power maximum minimum equal greater",
        "greater_equal less less_equal not_equal logical_and logical_or where",
        "nn.relu nn.relu6 nn.leakyrelu nn.gelu nn.gelu_tanh nn.selu nn.silu nn.softplus",
    )
    for name in names.split(" ")
)
# An image of so few channels is read as it comes: kernels broadcast inputs, whatever their order.
_PLANAR_CHANNELS = 8

_POOLS = frozenset({"relax.nn.max_pool2d", "relax.nn.avg_pool2d", "relax.nn.adaptive_avg_pool2d"})
_REDUCTIONS = frozenset({"relax.mean", "relax.sum", "relax.max", "relax.min"})


@tvm.transform.module_pass(opt_level=0, name="HiosChannelsLast")
class ChannelsLast:
    """Module pass: store activations of convolutional networks channels-last."""

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Rewrite ``main``."""
        return _ChannelsLast(mod).run()


class _ChannelsLast(StraightLineRewriter):
    def __init__(self, mod: Any) -> None:
        super().__init__(mod)
        # Keyed by the *new* variable that holds the stored value; absent means logical order.
        self.perm: dict[Any, tuple[int, ...]] = {}
        self._moved: dict[tuple[Any, tuple[int, ...]], Any] = {}
        # Definitions in the old function, where patterns are still free of transpositions.
        self._old: dict[Any, Any] = {}

    # -- storage order of a value ------------------------------------------------------------

    def _perm_of(self, expr: Any) -> tuple[int, ...] | None:
        return self.perm.get(expr) if isinstance(expr, relax.Var) else None

    def _stored_as(self, expr: Any, perm: tuple[int, ...]) -> Any:
        """Return `expr` stored under `perm`, transposing (once) where it is not."""
        array = constant_of(expr)
        if array is not None:
            return tensor_constant(array.transpose(perm))
        have = self._perm_of(expr) or tuple(range(len(perm)))
        if have == perm:
            return expr
        key = (expr, perm)
        if key not in self._moved:
            axes = [have.index(axis) for axis in perm]
            shape = static_shape(expr)
            moved: Any
            if shape is not None and _keeps_order(shape, axes):
                moved = relax.op.reshape(expr, tuple(shape[a] for a in axes))
            else:
                moved = relax.op.permute_dims(expr, axes)
            self._moved[key] = self._emit_as(moved, perm)
        return self._moved[key]

    def _logical(self, expr: Any) -> Any:
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self._logical(f) for f in expr.fields])
        perm = self._perm_of(expr)
        return expr if perm is None else self._stored_as(expr, tuple(range(len(perm))))

    def _emit_as(self, expr: Any, perm: tuple[int, ...]) -> Any:
        var = self.emit(expr)
        if perm != tuple(range(len(perm))):
            self.perm[var] = perm
        return var

    # -- operators -----------------------------------------------------------------------------

    def rewrite_output(self, expr: Any) -> Any:
        return self._logical(expr)

    def rewrite_call(self, call: Any, name: str) -> Any:
        new = self._follow(call, name)
        if new is not None:
            return new
        args = [self._logical(a) for a in call.args]
        return ir.Call(call.op, args, call.attrs, call.ty_args)

    def _bind(self, binding: Any) -> None:
        # Arguments arrive in stored order, so the type that normalisation infers for the call in
        # between would be wrong or an error: rewrite from the old call's own attributes instead.
        value = binding.value
        if not isinstance(value, ir.Call) or isinstance(binding, relax.MatchCast):
            super()._bind(binding)
            return
        self._old[binding.var] = value
        if op_name(value) == "relax.divide" and (lrn := match_lrn(value, self._old.get)):
            self.value[binding.var] = self._lrn(self._resolve(lrn[0]), *lrn[1:])
            return
        call = ir.Call(
            value.op,
            [self._resolve(a) for a in value.args],
            value.attrs,
            value.ty_args,
            ret_ty=value.ty,
        )
        new = self.emit(self.rewrite_call(call, op_name(value)), binding.var.name)
        if self.uses[binding.var] > 1:
            self._single.discard(new)
        self.value[binding.var] = new

    def _follow(self, call: Any, name: str) -> Any:
        if name == "relax.nn.conv2d":
            return self._conv2d(call)
        if name in _POOLS:
            return self._pool(call, name)
        if name in _ELEMENTWISE:
            return self._elementwise(call)
        if name == "relax.concat":
            return self._concat(call)
        if name in _REDUCTIONS:
            return self._reduce(call, name)
        if name == "relax.strided_slice":
            return self._strided_slice(call)
        if name == "relax.permute_dims":
            return self._permute(call)
        if name == "relax.reshape":
            return self._reshape(call)
        return None

    def _conv2d(self, call: Any) -> Any:
        attrs = call.attrs
        if attrs.data_layout != "NCHW" or attrs.kernel_layout != "OIHW":
            return None
        shape = static_shape(call.args[0])
        data, layout = call.args[0], "NCHW"
        planar = (
            self._perm_of(data) is None
            and shape is not None
            and shape[1] <= _PLANAR_CHANNELS
            and int(attrs.groups) == 1
            and dtype_of(call) == "float32"
        )
        if not planar:
            data, layout = self._stored_as(data, _NHWC), "NHWC"
        weight = self._stored_as(call.args[1], (2, 3, 1, 0))
        if weight in self.perm:
            # HWIO is how this convolution reads its weight, no property of the value.
            del self.perm[weight]
        conv = relax.op.nn.conv2d(
            data,
            weight,
            strides=[int(s) for s in attrs.strides],
            padding=[int(p) for p in attrs.padding],
            dilation=[int(d) for d in attrs.dilation],
            groups=int(attrs.groups),
            data_layout=layout,
            kernel_layout="HWIO",
            out_layout="NHWC",
            out_dtype=attrs.out_dtype or None,
        )
        return self._emit_as(conv, _NHWC)

    def _pool(self, call: Any, name: str) -> Any:
        attrs = call.attrs
        if attrs.layout != "NCHW" or attrs.out_layout not in ("NCHW", ""):
            return None
        data = self._stored_as(call.args[0], _NHWC)
        if name == "relax.nn.adaptive_avg_pool2d":
            size = None if attrs.output_size is None else [int(s) for s in attrs.output_size]
            return self._emit_as(relax.op.nn.adaptive_avg_pool2d(data, size, "NHWC"), _NHWC)
        pool = relax.op.nn.max_pool2d if name.endswith("max_pool2d") else relax.op.nn.avg_pool2d
        out = pool(
            data,
            pool_size=[int(s) for s in attrs.pool_size],
            strides=[int(s) for s in attrs.strides],
            padding=[int(p) for p in attrs.padding],
            dilation=[int(d) for d in attrs.dilation],
            ceil_mode=bool(attrs.ceil_mode),
            count_include_pad=bool(attrs.count_include_pad),
            layout="NHWC",
            out_layout="NHWC",
        )
        return self._emit_as(out, _NHWC)

    def _lrn(self, data: Any, size: int, alpha: float, bias: float, beta: float) -> Any:
        perm = self._perm_of(data) or tuple(range(len(static_shape(data) or ())))
        axis = perm.index(1)
        expr = self.bb.call_te(
            te_lrn, data, axis, size, alpha, bias, beta, primfunc_name_hint="lrn"
        )
        return self._emit_as(expr, perm)

    def _elementwise(self, call: Any) -> Any:
        perms = [p for p in map(self._perm_of, call.args) if p is not None]
        if not perms:
            return None
        perm = max(set(perms), key=lambda p: (perms.count(p), p))
        args = []
        for arg in call.args:
            shape = static_shape(arg)
            if shape is None:  # a scalar expression or a shape: not stored at all
                args.append(arg)
            elif len(shape) == len(perm):
                args.append(self._stored_as(arg, perm))
            elif len(shape) == 0:
                args.append(arg)
            elif len(shape) < len(perm) and (array := constant_of(arg)) is not None:
                wide = array.reshape((1,) * (len(perm) - len(shape)) + shape)
                args.append(self._stored_as(tensor_constant(wide), perm))
            else:
                return None
        return self._emit_as(ir.Call(call.op, args, call.attrs, call.ty_args), perm)

    def _concat(self, call: Any) -> Any:
        fields = call.args[0].fields if isinstance(call.args[0], relax.Tuple) else None
        if fields is None or call.attrs.axis is None:
            return None
        perms = [p for p in map(self._perm_of, fields) if p is not None]
        if not perms:
            return None
        perm = max(set(perms), key=lambda p: (perms.count(p), p))
        axis = int(call.attrs.axis) % len(perm)
        stored = [self._stored_as(f, perm) for f in fields]
        return self._emit_as(relax.op.concat(stored, perm.index(axis)), perm)

    def _reduce(self, call: Any, name: str) -> Any:
        perm = self._perm_of(call.args[0])
        axes = call.attrs.axis
        if perm is None or axes is None:
            return None
        logical = {int(a) % len(perm) for a in axes}
        stored = sorted(perm.index(a) for a in logical)
        reduce = getattr(relax.op, name.removeprefix("relax."))
        keepdims = bool(call.attrs.keepdims)
        out = reduce(call.args[0], stored, keepdims)
        if keepdims:
            return self._emit_as(out, perm)
        left = [a for a in perm if a not in logical]
        order = sorted(left)
        return self._emit_as(out, tuple(order.index(a) for a in left))

    def _strided_slice(self, call: Any) -> Any:
        perm = self._perm_of(call.args[0])
        if perm is None or not isinstance(call.args[1], relax.Tuple):
            return None
        axes = [perm.index(int(axis) % len(perm)) for axis in call.args[1].fields]
        args = [call.args[0], relax.Tuple([relax.prim_value(a) for a in axes]), *call.args[2:]]
        return self._emit_as(ir.Call(call.op, args, call.attrs, call.ty_args), perm)

    def _permute(self, call: Any) -> Any:
        perm = self._perm_of(call.args[0])
        if perm is None:
            return None
        axes = call.attrs.axes
        order = list(reversed(range(len(perm)))) if axes is None else [int(a) for a in axes]
        # Logical axis order[j] becomes axis j; the stored value stays where it is.
        new = tuple(order.index(axis) for axis in perm)
        # A binding of its own, since the permutation belongs to the variable.
        alias = self.bb.emit(call.args[0])
        if new != tuple(range(len(new))):
            self.perm[alias] = new
        return alias

    def _reshape(self, call: Any) -> Any:
        data = call.args[0]
        perm = self._perm_of(data)
        new = static_shape(call)
        stored = static_shape(data)
        if perm is None or new is None or stored is None:
            return None
        old = tuple(stored[perm.index(axis)] for axis in range(len(perm)))
        if new == old:
            return data
        # Where only one axis has an extent other than one, order means nothing.
        big = [s for s in old if s != 1]
        if len(big) <= 1 or _keeps_order(stored, [perm.index(a) for a in range(len(perm))]):
            return self.emit(relax.op.reshape(data, new))
        if perm == _NHWC and len(new) == 5 and _splits_channels(old, new):
            n, h, w = stored[0], stored[1], stored[2]
            split = relax.op.reshape(data, (n, h, w, new[1], new[2]))
            return self._emit_as(split, (0, 3, 4, 1, 2))
        if len(old) == 5 and len(new) == 4 and _splits_channels(new, old):
            data = self._stored_as(data, (0, 3, 4, 1, 2))
            return self._emit_as(relax.op.reshape(data, (new[0], new[2], new[3], new[1])), _NHWC)
        return None


def _splits_channels(four: tuple[int, ...], five: tuple[int, ...]) -> bool:
    return (
        four[0] == five[0]
        and four[1] == five[1] * five[2]
        and four[2:] == five[3:]
        and math.prod(four) == math.prod(five)
    )


def _keeps_order(shape: tuple[int, ...], axes: list[int]) -> bool:
    """Return whether transposing by `axes` leaves the elements in the same linear order."""
    real = [a for a in axes if shape[a] != 1]
    return real == sorted(real)
