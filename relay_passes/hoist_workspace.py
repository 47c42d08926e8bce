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

from relay_passes.straight_line import StraightLineRewriter

__all__ = ["WORKSPACES", "HoistWorkspace"]

WORKSPACES = "hios.workspaces"
"""PrimFunc attribute: how many of the last outputs are scratch."""


@tvm.transform.module_pass(opt_level=0, name="HiosHoistWorkspace")
class HoistWorkspace:
    """Module pass: no PrimFunc called by ``main`` allocates a global buffer afterwards."""

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Rewrite the kernels, then their calls."""
        extra: dict[str, list[Any]] = {}
        updated = {}
        for gvar, func in mod.functions_items():
            if isinstance(func, tirx.PrimFunc):
                hoisted, buffers = _hoist(func)
                if buffers:
                    updated[gvar] = hoisted
                    extra[gvar.name_hint] = buffers
        if not extra:
            return mod
        new = tvm.IRModule(dict(mod.functions_items()), attrs=mod.attrs)
        for gvar, func in updated.items():
            new.update_func(gvar, func)
        return _CallRewriter(new, extra).run()


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
    def __init__(self, mod: Any, extra: dict[str, list[Any]]) -> None:
        super().__init__(mod)
        self.extra = extra

    def rewrite_call(self, call: Any, name: str) -> Any:
        if name != "relax.call_tir" or not isinstance(call.args[0], ir.GlobalVar):
            return call
        buffers = self.extra.get(call.args[0].name_hint)
        if not buffers:
            return call
        own = call.ty_args[0]
        outputs = list(own.fields) if isinstance(own, relax.TupleType) else [own]
        scratch = [relax.TensorType(list(b.ty.shape), str(b.ty.dtype.dtype)) for b in buffers]
        whole = self.emit(
            relax.call_tir(call.args[0], call.args[1], [*outputs, *scratch], *call.args[2:])
        )
        if isinstance(own, relax.TupleType):
            return relax.Tuple([relax.TupleGetItem(whole, i) for i in range(len(outputs))])
        return relax.TupleGetItem(whole, 0)
