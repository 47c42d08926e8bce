"""Rewriting a straight-line Relax ``main`` binding by binding.

Networks come as one list of bindings without control flow. `StraightLineRewriter` walks that
list once, hands every call (with its arguments already rewritten) to a method, and emits what
the method returns into one new dataflow block. The passes that fold constants, move layouts and
recognise patterns derive from it: each says only what it does with the operators it knows.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from tvm import ir, relax, tirx

from hios.errors import UnsupportedModel

__all__ = [
    "StraightLineRewriter",
    "constant_of",
    "dtype_of",
    "op_name",
    "static_shape",
    "tensor_constant",
]


def op_name(expr: Any) -> str:
    """Return the name of the operator a call applies (``relax.add``), or ''."""
    if isinstance(expr, ir.Call) and isinstance(expr.op, ir.Op):
        return str(expr.op.name)
    return ""


def constant_of(expr: Any) -> np.ndarray[Any, Any] | None:
    """Return the data of a tensor constant, or None for anything else."""
    if isinstance(expr, ir.GenericConst):
        return np.asarray(expr.value.numpy())
    return None


def tensor_constant(array: np.ndarray[Any, Any]) -> Any:
    """Return `array` as a tensor constant of its own dtype.

    ``relax.const`` alone narrows 64-bit arrays to 32 bits.
    """
    return relax.const(np.asarray(array, order="C"), str(array.dtype))


def dtype_of(expr: Any) -> str:
    """Return the numpy name of a tensor expression's element type (``float32``)."""
    return str(expr.ty.dtype.dtype)


def static_shape(expr: Any) -> tuple[int, ...] | None:
    """Return the shape of a tensor expression when all of it is known, else None."""
    ty = expr.ty
    if not isinstance(ty, relax.TensorType) or ty.shape is None:
        return None
    if not isinstance(ty.shape, relax.ShapeExpr):
        return None
    values = ty.shape.values
    if not all(isinstance(v, tirx.IntImm) for v in values):
        return None
    return tuple(int(v) for v in values)


class StraightLineRewriter:
    """Rebuild ``main`` of a module, one binding at a time.

    Parameters
    ----------
    mod : tvm.IRModule
        Its ``main`` must be free of control flow.

    Raises
    ------
    UnsupportedModel
        At `run`, when ``main`` holds a branch or a nested function.
    """

    def __init__(self, mod: Any) -> None:
        self.mod = mod
        self.bb = relax.BlockBuilder(mod)
        self.value: dict[Any, Any] = {}
        self.uses: Counter[Any] = Counter()
        self._single: set[Any] = set()

    # -- for subclasses ---------------------------------------------------------------------

    def rewrite_call(self, call: Any, name: str) -> Any:
        """Return the expression that takes the place of `call` (arguments already rewritten)."""
        return call

    def rewrite_output(self, expr: Any) -> Any:
        """Return what ``main`` returns in the place of `expr`."""
        return expr

    def emit(self, expr: Any, name_hint: str = "") -> Any:
        """Emit `expr` and return the variable; constants, variables and tuples pass through."""
        if isinstance(expr, (ir.GenericConst, relax.Var, relax.Tuple, relax.ShapeExpr)):
            return expr
        var = self.bb.emit(expr, name_hint)
        self._single.add(var)
        return var

    def definition(self, var: Any) -> Any:
        """Return the call that a new variable is bound to, or None."""
        return self.bb.lookup_binding(var) if isinstance(var, relax.Var) else None

    def read_once(self, var: Any) -> bool:
        """Return whether exactly one binding of the old function reads `var`."""
        return var in self._single

    # -- the walk -----------------------------------------------------------------------------

    def run(self) -> Any:
        """Rewrite ``main`` and return the new module."""
        gvar = self.mod.get_global_var("main")
        func = self.mod[gvar]
        body = func.body
        if not isinstance(body, relax.SeqExpr):
            return self.mod
        self._count_uses(body)
        self.bb.begin_scope(list(func.params))
        self.bb._begin_dataflow_block()
        for param in func.params:
            self.value[param] = param
        for block in body.blocks:
            for binding in block.bindings:
                self._bind(binding)
        result = self.rewrite_output(_as_tensor(self._resolve(body.body)))
        out = self.bb.emit_output(self.bb.normalize(result))
        block = self.bb._end_block()
        seq = self.bb.normalize(relax.SeqExpr([block], out))
        new = relax.Function(list(func.params), seq, out.ty, func.is_pure, func.attrs)
        self.bb.end_scope()
        self.bb.update_func(gvar, new)
        return relax.transform.DeadCodeElimination()(self.bb.get())

    def _count_uses(self, body: Any) -> None:
        def count(expr: Any) -> None:
            if isinstance(expr, relax.Var):
                self.uses[expr] += 1

        for block in body.blocks:
            for binding in block.bindings:
                relax.analysis.post_order_visit(binding.value, count)
        relax.analysis.post_order_visit(body.body, count)

    def _resolve(self, expr: Any) -> Any:
        if isinstance(expr, relax.Var):
            return self.value.get(expr, expr)
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self._resolve(f) for f in expr.fields])
        if isinstance(expr, relax.TupleGetItem):
            whole = self._resolve(expr.tuple_value)
            if isinstance(whole, relax.Tuple):
                return whole.fields[expr.index]
            return relax.TupleGetItem(whole, expr.index)
        return expr

    def _bind(self, binding: Any) -> None:
        value = binding.value
        if isinstance(value, (relax.If, relax.Function)):
            raise UnsupportedModel(
                f"the model holds control flow ({type(value).__name__} at "
                f"{binding.var.name!r}); only straight-line networks can be compiled"
            )
        if isinstance(binding, relax.MatchCast):
            new = self._resolve(value)
            if static_shape(binding.var) is None or static_shape(new) != static_shape(binding.var):
                new = self.bb.match_cast(new, binding.ty)
        elif isinstance(value, ir.Call):
            call = ir.Call(
                value.op,
                [self._resolve(a) for a in value.args],
                value.attrs,
                value.ty_args,
            )
            call = self.bb.normalize(call)
            new = self.rewrite_call(call, op_name(call))
        else:
            new = self._resolve(value)
        new = self.emit(new, binding.var.name)
        if self.uses[binding.var] > 1:
            self._single.discard(new)
        self.value[binding.var] = new


def _as_tensor(expr: Any) -> Any:
    """Return a shape that the model hands out as the tensor that it stands for."""
    if isinstance(expr, relax.Tuple):
        return relax.Tuple([_as_tensor(f) for f in expr.fields])
    if isinstance(expr, relax.ShapeExpr) and all(isinstance(v, tirx.IntImm) for v in expr.values):
        return tensor_constant(np.asarray([int(v) for v in expr.values], dtype=np.int64))
    return expr
