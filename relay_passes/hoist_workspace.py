"""Turn the scratch buffers of kernels into explicit outputs.

A PrimFunc that allocates a global buffer takes it, at run time, from TVM's workspace pool, which
belongs to the calling thread. Two streams fed by one thread would share it, and the planner of
memory would know nothing of it. This pass makes every such buffer one more output of the kernel
that nobody reads: the arena plans it like any other tensor, alive for that one operator.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import ir, relax, s_tir, tirx
from tvm.relax.expr import _update_type

from relay_passes.straight_line import StraightLineRewriter

__all__ = ["WORKSPACES", "HoistWorkspace"]

WORKSPACES = "hios.workspaces"
"""PrimFunc attribute: how many of the last outputs are scratch."""


@tvm.transform.module_pass(opt_level=0, name="HiosHoistWorkspace")
class HoistWorkspace:
    """Module pass: no PrimFunc called by ``main`` allocates a global buffer afterwards."""

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Rewrite the kernels, then their calls."""
        extra: dict[str, tuple[Any, list[Any]]] = {}
        functions: dict[Any, Any] = {}
        for gvar, func in mod.functions_items():
            buffers: list[Any] = []
            if isinstance(func, tirx.PrimFunc):
                func, buffers = _hoist(func)
            if buffers:
                # The old variable carries the type of the old signature: take a new one.
                name = str(gvar.name_hint)
                gvar = ir.GlobalVar(name)
                _update_type(gvar, _kernel_type(func))
                extra[name] = (gvar, buffers)
            functions[gvar] = func
        if not extra:
            return mod
        return _CallRewriter(tvm.IRModule(functions, attrs=mod.attrs), extra).run()


def _kernel_type(func: tirx.PrimFunc) -> Any:
    """Return the type under which Relax knows a kernel that writes into its arguments."""
    params = [relax.TensorType(list(p.ty.shape), str(p.ty.dtype.dtype)) for p in func.params]
    return relax.FuncType(params, relax.TupleType([]), False)


def _hoist(func: tirx.PrimFunc) -> tuple[tirx.PrimFunc, list[Any]]:
    root = func.body
    if not isinstance(root, s_tir.SBlockRealize):
        return func, []
    block = root.block
    buffers = [b for b in block.alloc_buffers if b.scope() == "global"]
    if not buffers:
        return func, []
    kept = [b for b in block.alloc_buffers if b.scope() != "global"]
    body = s_tir.SBlockRealize(
        root.iter_values,
        root.predicate,
        s_tir.SBlock(
            block.iter_vars,
            block.reads,
            block.writes,
            block.name_hint,
            block.body,
            block.init,
            kept,
            block.match_buffers,
            block.annotations,
        ),
    )
    # In this generation of TVM a buffer is itself a variable, so it can be a parameter as it is.
    hoisted = tirx.PrimFunc([*func.params, *buffers], body, func.ret_type, func.attrs)
    return hoisted.with_attr(WORKSPACES, len(buffers)), buffers


class _CallRewriter(StraightLineRewriter):
    def __init__(self, mod: Any, extra: dict[str, tuple[Any, list[Any]]]) -> None:
        super().__init__(mod)
        self.extra = extra

    def rewrite_call(self, call: Any, name: str) -> Any:
        if name != "relax.call_tir" or not isinstance(call.args[0], ir.GlobalVar):
            return call
        if str(call.args[0].name_hint) not in self.extra:
            return call
        kernel, buffers = self.extra[str(call.args[0].name_hint)]
        own = call.ty_args[0]
        outputs = list(own.fields) if isinstance(own, relax.TupleType) else [own]
        scratch = [relax.TensorType(list(b.ty.shape), str(b.ty.dtype.dtype)) for b in buffers]
        whole = self.emit(
            relax.call_tir(kernel, call.args[1], [*outputs, *scratch], *call.args[2:])
        )
        if isinstance(own, relax.TupleType):
            return relax.Tuple([relax.TupleGetItem(whole, i) for i in range(len(outputs))])
        return relax.TupleGetItem(whole, 0)
