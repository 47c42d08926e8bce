"""The table of kernel rules of a target, and the pass that applies it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.target.codegen import llvm_get_cpu_features, llvm_get_vector_width

from relay_passes.kernels.cpu.conv2d import legalize_conv2d, schedule_conv2d
from relay_passes.kernels.cpu.dense import legalize_matmul, schedule_dense
from relay_passes.kernels.cpu.depthwise import schedule_depthwise
from relay_passes.kernels.cpu.generic import schedule_generic
from relay_passes.kernels.cpu.global_pool import schedule_global_pool
from relay_passes.kernels.cpu.lrn import schedule_lrn
from relay_passes.kernels.cpu.matmul import schedule_batch_matmul
from relay_passes.kernels.cpu.rows import legalize_softmax, schedule_rows
from relay_passes.kernels.cpu.tiling import VectorUnit

__all__ = ["ScheduleKernels", "legalize_map", "vector_unit"]


def vector_unit(target: tvm.target.Target) -> VectorUnit:
    """Return the vector registers of an LLVM target.

    On x86 the instruction set tells; TVM's own figure is 512 bits for every processor of the
    last years, whether it has AVX-512 or not.
    """
    features = {str(name) for name in llvm_get_cpu_features(target)}
    if "avx512f" in features:
        return VectorUnit.of_bits(512)
    if "avx" in features:
        return VectorUnit.of_bits(256)
    if "sse2" in features:
        return VectorUnit.of_bits(128)
    return VectorUnit.of_bits(int(llvm_get_vector_width(target)), registers=32)


def legalize_map(target: tvm.target.Target) -> dict[str, Callable[[Any, Any], Any]]:
    """Return the operators that are lowered here and not by TVM's default, for a CPU target."""
    unit = vector_unit(target)
    return {
        "relax.nn.conv2d": legalize_conv2d(unit),
        "relax.matmul": legalize_matmul(unit),
        "relax.nn.softmax": legalize_softmax,
    }


@tvm.transform.module_pass(opt_level=0, name="HiosScheduleKernels")
class ScheduleKernels:
    """Module pass: schedule every PrimFunc of a module for a CPU target.

    Parameters
    ----------
    target : tvm.target.Target
        An ``llvm`` target.
    """

    def __init__(self, target: tvm.target.Target) -> None:
        self.unit = vector_unit(target)

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Apply the first rule that fits to each function."""
        new = tvm.IRModule(dict(mod.functions_items()), attrs=mod.attrs)
        for gvar, func in mod.functions_items():
            if isinstance(func, tirx.PrimFunc):
                new.update_func(gvar, self._schedule(func))
        return new

    def _schedule(self, func: tirx.PrimFunc) -> tirx.PrimFunc:
        if not isinstance(func.body, s_tir.SBlockRealize):
            return func  # a call of a library routine (sorting): nothing to schedule
        for rule in (schedule_conv2d, schedule_dense, schedule_depthwise, schedule_batch_matmul):
            sch = rule(func)
            if sch is not None:
                break
        else:
            sch = (
                schedule_lrn(func, self.unit)
                or schedule_global_pool(func, self.unit)
                or schedule_rows(func, self.unit)
                or schedule_generic(func, self.unit.lanes)
            )
        if sch is None:
            return func
        return sch.mod["main"].with_attr("tirx.is_scheduled", True)
