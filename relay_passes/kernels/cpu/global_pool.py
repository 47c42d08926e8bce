"""Reductions over a whole image on a CPU: global pooling, means and sums per channel.

The innermost axis of the output is not reduced (channels-last data), so a few vectors of outputs
are reduced at once, accumulators in registers, and every load is whole cache lines. The order of
additions is that of the plain loops, whatever the number of threads. Windows of a few positions
are left to the generic rule, which was measured to be as good or better on them.
"""

from __future__ import annotations

import math
from typing import Any

from tvm import s_tir, tirx

from relay_passes.kernels.blocks import all_blocks, inline_epilogue, is_spatial, static_extents
from relay_passes.kernels.cpu.tiling import VectorUnit

__all__ = ["schedule_global_pool"]

_WINDOW = 25
"""Positions up to which a reduction is a window, and no rule is needed."""
_VECTORS = 4
"""Vectors of outputs that one tile holds at most."""


def schedule_global_pool(func: tirx.PrimFunc, unit: VectorUnit) -> s_tir.Schedule | None:
    """Schedule a kernel of one reduction over vectors of outputs; None for any other."""
    sch = s_tir.Schedule(func)
    blocks = all_blocks(sch)
    reductions = [block for block in blocks if not is_spatial(sch, block)]
    if len(reductions) != 1:
        return None
    main = reductions[0]
    loops = sch.get_loops(main)
    extents = static_extents(sch, main)
    kinds = [v.iter_type for v in sch.get(main).iter_vars]
    n_spatial = kinds.count(tirx.IterVar.DataPar)
    if (
        extents is None
        or len(loops) != len(kinds)
        or kinds
        != [tirx.IterVar.DataPar] * n_spatial + [tirx.IterVar.CommReduce] * (len(kinds) - n_spatial)
        or n_spatial == 0
        or len(kinds) == n_spatial
    ):
        return None
    channels = extents[n_spatial - 1]
    lanes = _power_of_two(channels, unit.lanes)
    is_window = math.prod(extents[n_spatial:]) <= _WINDOW
    if lanes < 4 or is_window or _reads_innermost(sch, main):
        return None
    for block in blocks:
        if is_spatial(sch, block) and _feeds(sch, block, main):
            try:
                sch.compute_inline(block)
            except s_tir.ScheduleError:
                return None
    out = inline_epilogue(sch, main)
    if out is None and sch.get_consumers(main):
        return None
    if out is not None and len(sch.get_loops(out)) != n_spatial:
        return None
    vectors = _vectors(channels // lanes, math.prod(extents[: n_spatial - 1]))
    if out is None:
        out = sch.cache_write(main, 0, "local")
    else:
        sch.set_scope(main, 0, "local")
    loops = sch.get_loops(main)
    spatial, reduced = loops[:n_spatial], loops[n_spatial:]
    tile, vector, lane = sch.split(spatial[-1], [None, vectors, lanes])
    sch.reorder(*spatial[:-1], tile, *reduced, vector, lane)
    sch.reverse_compute_at(out, tile, preserve_unit_loops=True)
    store, last = sch.split(sch.get_loops(out)[-1], [None, lanes])
    sch.vectorize(last)
    sch.unroll(store)
    sch.vectorize(lane)
    sch.unroll(vector)
    sch.parallel(sch.fuse(*spatial[:-1], tile))
    sch.decompose_reduction(main, reduced[0])
    return sch


def _vectors(count: int, positions: int) -> int:
    """Return how many of `count` vectors one tile takes; where work is scarce, fewer."""
    most = _VECTORS if positions > 1 else max(1, min(_VECTORS, count // 4))
    return max(v for v in range(1, most + 1) if count % v == 0)


def _power_of_two(size: int, most: int) -> int:
    while size % most:
        most //= 2
    return most


def _feeds(sch: s_tir.Schedule, block: Any, main: Any) -> bool:
    name = sch.get(main).name_hint
    pending = list(sch.get_consumers(block))
    while pending:
        consumer = pending.pop()
        if sch.get(consumer).name_hint == name:
            return True
        pending.extend(sch.get_consumers(consumer))
    return False


def _reads_innermost(sch: s_tir.Schedule, main: Any) -> bool:
    """Return whether the reduction runs along the innermost axis of what it reads."""
    block = sch.get(main)
    reduced = {v.var for v in block.iter_vars if v.iter_type == tirx.IterVar.CommReduce}
    return any(
        any(var in reduced for var in tirx.analysis.undefined_vars(region.region[-1].min))
        for region in block.reads
    )
