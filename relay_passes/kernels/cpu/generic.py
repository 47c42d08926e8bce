"""Everything else on a CPU: elementwise chains, pooling, softmax, normalisation, copies.

Elementwise blocks are inlined into their readers, what is left is parallelised over its outer
loops and vectorised over its innermost one. Reductions whose innermost *output* axis is
contiguous (channels-last pooling, means over the image) reduce vectors of outputs at once, so
that every load and store is a full vector and the order of additions is the same whatever the
number of threads.
"""

from __future__ import annotations

import math
from typing import Any

from tvm import s_tir, tirx

from relay_passes.kernels.blocks import (
    all_blocks,
    inline_spatial,
    is_static,
    vectorize_innermost,
)

__all__ = ["schedule_generic"]

_PARALLEL_FROM = 4096
"""Elements below which a kernel is not worth spreading over threads."""


def schedule_generic(func: tirx.PrimFunc, lanes: int) -> s_tir.Schedule | None:
    """Schedule any kernel of static shape; None when its form is not understood."""
    sch = inline_spatial(func)
    if sch is None:
        return None
    for block in all_blocks(sch):
        _schedule_block(sch, block, lanes)
    return sch


def _schedule_block(sch: s_tir.Schedule, block: Any, lanes: int) -> None:
    kinds = [v.iter_type for v in sch.get(block).iter_vars]
    loops = sch.get_loops(block)
    if len(loops) != len(kinds) or not all(is_static(sch, loop) for loop in loops):
        return
    spatial = [loop for loop, k in zip(loops, kinds, strict=True) if k == tirx.IterVar.DataPar]
    reduced = [loop for loop, k in zip(loops, kinds, strict=True) if k == tirx.IterVar.CommReduce]
    if len(spatial) + len(reduced) != len(loops) or not spatial:
        return
    work = math.prod(int(sch.get(loop).extent) for loop in loops)
    if work == 0:
        return
    if not reduced:
        inner = spatial[-1]
        outer = spatial[:-1]
        if int(sch.get(inner).extent) < lanes and len(spatial) > 1:
            inner = sch.fuse(*spatial)
            outer = []
        _finish(sch, outer, inner, work, lanes)
        return
    inner = spatial[-1]
    if int(sch.get(inner).extent) >= 4:
        chunk = _chunk(int(sch.get(inner).extent), lanes)
        outer_c, vector = sch.split(inner, [None, chunk])
        sch.reorder(*spatial[:-1], outer_c, *reduced, vector)
        sch.vectorize(vector)
        around = [*spatial[:-1], outer_c]
    else:
        sch.reorder(*spatial, *reduced)
        around = spatial
    fused = sch.fuse(*around)
    if work >= _PARALLEL_FROM:
        sch.parallel(fused)
    try:
        sch.decompose_reduction(block, reduced[0])
    except s_tir.ScheduleError:
        return


def _finish(sch: s_tir.Schedule, outer: list[Any], inner: Any, work: int, lanes: int) -> None:
    if not outer:
        size = int(sch.get(inner).extent)
        width = _chunk(size, lanes)
        if width > 1 and size > width:
            head, tail = sch.split(inner, [None, width])
            sch.vectorize(tail)
            if work >= _PARALLEL_FROM:
                sch.parallel(head)
        elif size <= lanes:
            sch.vectorize(inner)
        return
    vectorize_innermost(sch, inner, lanes)
    fused = sch.fuse(*outer)
    if work >= _PARALLEL_FROM:
        sch.parallel(fused)


def _chunk(size: int, lanes: int) -> int:
    width = lanes
    while width > 1 and size % width:
        width //= 2
    return width
