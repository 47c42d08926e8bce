"""Let kernels accept tensors that are views into an arena.

A compiled kernel checks the byte offset of each tensor; by default only zero passes. With an
offset factor of 16 elements, every offset that is a multiple of ``16 × element size`` does,
which the planner's 256-byte grid keeps for elements up to 16 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.tirx.buffer import BufferType

__all__ = ["OFFSET_ELEMENTS", "AllowOffsets", "with_buffers"]

OFFSET_ELEMENTS = 16
"""Offsets of kernel arguments must be multiples of this many elements."""


@tvm.transform.module_pass(opt_level=0, name="HiosAllowOffsets")
class AllowOffsets:
    """Module pass: give every buffer parameter of every PrimFunc an offset factor."""

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Specialise each PrimFunc to buffers that may start inside an allocation."""
        new = tvm.IRModule(dict(mod.functions_items()), attrs=mod.attrs)
        for gvar, func in mod.functions_items():
            if isinstance(func, tirx.PrimFunc):
                new.update_func(gvar, _with_offsets(func))
        return new


def _with_offsets(func: tirx.PrimFunc) -> tirx.PrimFunc:
    replaced = {}
    for param in func.params:
        ty = param.ty
        if not isinstance(ty, BufferType) or ty.offset_factor == OFFSET_ELEMENTS:
            continue
        replaced[param] = tirx.decl_buffer(
            ty.shape,
            ty.dtype,
            param.name,
            scope=ty.storage_scope,
            data_alignment=ty.data_alignment,
            offset_factor=OFFSET_ELEMENTS,
        )
    return with_buffers(func, replaced)


def with_buffers(func: tirx.PrimFunc, replaced: Mapping[Any, Any]) -> tirx.PrimFunc:
    """Return `func` with other buffers as parameters, in its body as well."""
    if not replaced:
        return func
    body = tvm_ffi.structural_map(func.body, (tirx.Var, lambda var: replaced.get(var, var)))
    params = [replaced.get(param, param) for param in func.params]
    return tirx.PrimFunc(params, body, func.ret_type, func.attrs)
