"""Kernels that reduce along the innermost axis on a CPU: softmax, layer norm, means of rows.

A sum along contiguous data is a chain of additions that a compiler must not reorder, so each row
is reduced in as many interleaved partial results as a vector has lanes, and these at the end.
Everything that belongs to a row is computed row by row, so that a row stays in the nearest cache
between its passes, and rows are spread over the cores.
"""

from __future__ import annotations

import math
from typing import Any

import tvm_ffi
from tvm import ir, s_tir, tirx, topi
from tvm.relax.transform.legalize_ops import nn as default_legalize

from relay_passes.kernels.blocks import all_blocks, is_spatial, static_extents
from relay_passes.kernels.cpu.tiling import VectorUnit
from relay_passes.straight_line import dtype_of

__all__ = ["legalize_softmax", "schedule_rows"]

_PARALLEL_FROM = 4096
_STACK_BYTES = 1024
"""TVM takes larger local buffers from a heap at every entry of their scope."""


def legalize_softmax(bb: Any, call: Any) -> Any:
    """Lower ``relax.nn.softmax`` with an exponential that vectorises.

    Its arguments are zero or less, so nothing overflows; the polynomial is good to rounding.
    The library's exponential would be called once an element.
    """
    if dtype_of(call) != "float32":
        return default_legalize._nn_softmax(bb, call)
    return bb.call_te(
        topi.nn.fast_softmax, call.args[0], int(call.attrs.axis), primfunc_name_hint="softmax"
    )


def schedule_rows(func: tirx.PrimFunc, unit: VectorUnit) -> s_tir.Schedule | None:
    """Schedule a kernel all of whose reductions run along its rows; None for any other."""
    sch = s_tir.Schedule(func)
    blocks = all_blocks(sch)
    extents = [static_extents(sch, block) for block in blocks]
    outputs = [block for block in blocks if not sch.get_consumers(block)]
    if len(outputs) != 1 or not is_spatial(sch, outputs[0]) or any(e is None for e in extents):
        return None
    rank = len(sch.get_loops(outputs[0]))
    shape = static_extents(sch, outputs[0])
    reductions = [block for block in blocks if not is_spatial(sch, block)]
    if shape is None or rank < 2 or not reductions:
        return None
    if any(not _is_row_reduction(sch, block, shape) for block in reductions):
        return None
    _inline(sch)
    out = outputs[0]
    for block in [b for b in all_blocks(sch) if not is_spatial(sch, b)]:
        _spread_over_lanes(sch, block, unit)
    rest = [b for b in all_blocks(sch) if sch.get(b).name_hint != sch.get(out).name_hint]
    loops = sch.get_loops(out)
    row = sch.fuse(*loops[:-1])
    for block in reversed(rest):
        try:
            sch.compute_at(block, row, preserve_unit_loops=True)
        except s_tir.ScheduleError:
            return None
    for block in [b for b in sch.get_child_blocks(row) if _differs(sch, b, out)]:
        if _bytes_of_row(sch, block, shape) <= _STACK_BYTES:
            sch.set_scope(block, 0, "local")
    if math.prod(shape) >= _PARALLEL_FROM:
        sch.parallel(row)
    _vectorize(sch, sch.get_loops(out)[-1], unit.lanes)
    for block in sch.get_child_blocks(row):
        if _differs(sch, block, out):
            _finish(sch, block, unit.lanes)
    return sch


def _is_row_reduction(sch: s_tir.Schedule, block: Any, shape: list[int]) -> bool:
    """Return whether `block` reduces one innermost axis, one result a row of the output."""
    kinds = [v.iter_type for v in sch.get(block).iter_vars]
    extents = static_extents(sch, block)
    if extents is None or len(extents) != len(kinds):
        return False
    if kinds.count(tirx.IterVar.CommReduce) != 1 or kinds[-1] != tirx.IterVar.CommReduce:
        return False
    spatial = [e for e in extents[:-1] if e != 1]
    return spatial == [e for e in shape[:-1] if e != 1] and len(sch.get(block).writes) == 1


def _inline(sch: s_tir.Schedule) -> None:
    """Inline what is cheap; a function of several instructions is computed once an element."""
    for block in all_blocks(sch):
        consumers = sch.get_consumers(block)
        if not is_spatial(sch, block) or not consumers:
            continue
        if len(consumers) > 1 and _is_costly(sch, block):
            continue
        try:
            sch.compute_inline(block)
        except s_tir.ScheduleError:
            continue


def _is_costly(sch: s_tir.Schedule, block: Any) -> bool:
    found = False

    def visit(call: Any) -> None:
        nonlocal found
        found = found or str(getattr(call.op, "name", "")) in _COSTLY

    tvm_ffi.structural_walk(sch.get(block).body, (ir.Call, visit), order="pre")
    return found


_COSTLY = frozenset({"tirx.exp", "tirx.tanh", "tirx.erf", "tirx.pow", "tirx.reinterpret"})


def _spread_over_lanes(sch: s_tir.Schedule, block: Any, unit: VectorUnit) -> None:
    loop = sch.get_loops(block)[-1]
    size = int(sch.get(loop).extent)
    lanes = unit.lanes
    while lanes > 1 and size % lanes:
        lanes //= 2
    if lanes < 4 or size == lanes:
        return
    _, lane = sch.split(loop, [None, lanes])
    sch.rfactor(lane, 0)


def _differs(sch: s_tir.Schedule, block: Any, out: Any) -> bool:
    return bool(sch.get(block).name_hint != sch.get(out).name_hint)


def _bytes_of_row(sch: s_tir.Schedule, block: Any, shape: list[int]) -> int:
    buffer = sch.get(block).writes[0].source
    elements = math.prod(int(s) for s in buffer.ty.shape)
    return elements // math.prod(shape[:-1]) * 8


def _finish(sch: s_tir.Schedule, block: Any, lanes: int) -> None:
    loops = sch.get_loops(block)
    kinds = [v.iter_type for v in sch.get(block).iter_vars]
    if all(kind == tirx.IterVar.DataPar for kind in kinds):
        _vectorize(sch, loops[-1], lanes)
        return
    own = loops[len(loops) - len(kinds) :]
    reduced = [x for x, k in zip(own, kinds, strict=True) if k == tirx.IterVar.CommReduce]
    wide = [
        x
        for x, k in zip(own, kinds, strict=True)
        if k == tirx.IterVar.DataPar and int(sch.get(x).extent) > 1
    ]
    if wide:
        sch.reorder(*reduced, *wide)
        _vectorize(sch, wide[-1], lanes)
    sch.decompose_reduction(block, reduced[0])


def _vectorize(sch: s_tir.Schedule, loop: Any, lanes: int) -> None:
    size = int(sch.get(loop).extent)
    width = lanes
    while width > 1 and size % width:
        width //= 2
    if size == width and size > 1:
        sch.vectorize(loop)
    elif width >= 4:
        _, inner = sch.split(loop, [None, width])
        sch.vectorize(inner)
