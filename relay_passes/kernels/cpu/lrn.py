"""Local response normalisation on a CPU: vectors of channels, apart from both ends.

The window of a channel ends at the first and the last channel. The loop over vectors of channels
is parted, so that only the vectors at both ends ask where a window ends.
"""

from __future__ import annotations

from typing import Any

from tvm import s_tir, tirx

from relay_passes.kernels.blocks import ROLE, all_blocks, annotation, static_extents
from relay_passes.kernels.cpu.tiling import VectorUnit

__all__ = ["schedule_lrn"]

_PARTED = "pragma_loop_partition_hint"


def schedule_lrn(func: tirx.PrimFunc, unit: VectorUnit) -> s_tir.Schedule | None:
    """Schedule a kernel of `relay_passes.lrn.te_lrn` over innermost channels; None otherwise."""
    sch = s_tir.Schedule(func)
    blocks = all_blocks(sch)
    if len(blocks) != 1 or annotation(sch, blocks[0], ROLE) != "lrn":
        return None
    block: Any = blocks[0]
    loops = sch.get_loops(block)
    extents = static_extents(sch, block)
    if extents is None or int(annotation(sch, block, "hios.axis")) != len(loops) - 1:
        return None
    lanes = unit.lanes
    while extents[-1] % lanes:
        lanes //= 2
    if lanes < 4:
        return None
    outer, lane = sch.split(loops[-1], [None, lanes])
    sch.vectorize(lane)
    sch.annotate(outer, _PARTED, 1)
    if len(loops) > 1:
        sch.parallel(sch.fuse(*loops[:-1]))
    return _with_narrow_indices(sch)


def _with_narrow_indices(sch: s_tir.Schedule) -> s_tir.Schedule:
    """Return the schedule with 32-bit indices; TVM parts no loop whose bounds it narrows later."""
    return s_tir.Schedule(tirx.transform.ForceNarrowIndexToInt32()(sch.mod))
