"""The table of kernel rules for CUDA, and the pass that applies it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.s_tir import dlight

from relay_passes.cuda.target import allows_tf32
from relay_passes.features import RULE
from relay_passes.kernels.cuda.conv2d import legalize_conv2d
from relay_passes.kernels.cuda.dense import legalize_matmul, schedule_rows
from relay_passes.kernels.cuda.depthwise import schedule_depthwise
from relay_passes.kernels.cuda.generic import schedule_generic
from relay_passes.kernels.cuda.product import schedule_product
from relay_passes.kernels.cuda.tensor_cores import schedule_tensor_cores
from relay_passes.offset_factor import with_buffers

__all__ = ["ScheduleKernels", "legalize_map"]


def legalize_map(target: tvm.target.Target) -> dict[str, Callable[[Any, Any], Any]]:
    """Return the operators that are lowered here and not by TVM's default, for a CUDA target."""
    arch = str(target.attrs["arch"])
    tf32 = allows_tf32(target)
    return {
        "relax.nn.conv2d": legalize_conv2d(arch, tf32),
        "relax.matmul": legalize_matmul(arch, tf32),
    }


@tvm.transform.module_pass(opt_level=0, name="HiosScheduleCudaKernels")
class ScheduleKernels:
    """Module pass: schedule every PrimFunc of a module for a CUDA target.

    Parameters
    ----------
    target : tvm.target.Target
        A ``cuda`` target with its ``arch``.
    """

    def __init__(self, target: tvm.target.Target) -> None:
        self.target = target

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Apply the first rule that fits to each function."""
        new = tvm.IRModule(dict(mod.functions_items()), attrs=mod.attrs)
        for gvar, func in mod.functions_items():
            if isinstance(func, tirx.PrimFunc):
                new.update_func(gvar, self._schedule(_with_short_indices(_with_plain_names(func))))
        return new

    def _schedule(self, func: tirx.PrimFunc) -> tirx.PrimFunc:
        if not isinstance(func.body, s_tir.SBlockRealize):
            return func  # a call of a library routine (sorting): nothing to schedule
        for name, rule in (*_RULES, ("row reduction", self._rows), ("generic", schedule_generic)):
            sch = rule(func)
            if sch is not None:
                scheduled = sch.mod["main"].with_attr("tirx.is_scheduled", True)
                return scheduled.with_attr(RULE, name)
        return func

    def _rows(self, func: tirx.PrimFunc) -> Any:
        """Schedule chains of reductions over one axis (softmax, layer norm) as one kernel."""
        plain = s_tir.Schedule(func)
        reductions = [
            block
            for block in plain.get_child_blocks(plain.get_sblock("root"))
            if any(v.iter_type == tirx.IterVar.CommReduce for v in plain.get(block).iter_vars)
        ]
        if len(reductions) < 2:
            return None
        return dlight.gpu.GeneralReduction().apply(func, self.target, False)


def _with_plain_names(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return `func` with identifiers for its tensors.

    They are named after the values of the model (``gpu_0/data_0``), and so are the parameters of
    the generated kernel.
    """
    replaced = {}
    for param in func.params:
        ty, plain = param.ty, re.sub(r"\W", "_", str(param.name))
        if plain != str(param.name):
            replaced[param] = tirx.decl_buffer(
                ty.shape,
                ty.dtype,
                plain,
                scope=ty.storage_scope,
                elem_offset=ty.elem_offset,
                data_alignment=ty.data_alignment,
                offset_factor=ty.offset_factor,
            )
    return with_buffers(func, replaced)


def _with_short_indices(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return `func` with 32-bit indices where its buffers are small enough.

    A GPU divides 64-bit numbers several times slower than 32-bit ones, and im2col divides.
    """
    types = [param.ty for param in func.params]
    large = any(math.prod(int(s) for s in ty.shape) >= 1 << 31 for ty in types)
    if large or any("int64" in str(ty.dtype.dtype) for ty in types):
        return func
    module = tvm.IRModule({"main": func})
    return tirx.transform.ForceNarrowIndexToInt32()(module)["main"]


_RULES: tuple[tuple[str, Callable[[tirx.PrimFunc], s_tir.Schedule | None]], ...] = (
    ("tensor cores", schedule_tensor_cores),
    ("product", schedule_product),
    ("rows", schedule_rows),
    ("depthwise", schedule_depthwise),
)
