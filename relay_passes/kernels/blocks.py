"""Finding and preparing the blocks of a PrimFunc that a schedule rule works on.

Computations written here mark their main block with the annotation `ROLE`, which survives
operator fusion (block names may be changed by it).
"""

from __future__ import annotations

import math
from typing import Any

from tvm import s_tir, tirx

__all__ = [
    "ROLE",
    "all_blocks",
    "annotation",
    "inline_epilogue",
    "inline_spatial",
    "is_spatial",
    "is_static",
    "role_block",
    "roles",
    "schedule_pad",
    "static_extents",
    "store_tile",
    "vectorize_innermost",
]

ROLE = "hios.role"
"""Block annotation that names the family of the computation (``conv2d``, ``dense``, ...)."""

_MOST_STORES = 64
"""Stores of one tile up to which they are written out."""


def all_blocks(sch: s_tir.Schedule) -> list[Any]:
    """Return the blocks below the root of ``main``, in program order."""
    root = sch.get_sblock("root")
    return list(sch.get_child_blocks(root))


def annotation(sch: s_tir.Schedule, block: Any, key: str) -> Any:
    """Return the annotation `key` of `block`, or None."""
    return sch.get(block).annotations.get(key)


def roles(func: tirx.PrimFunc) -> list[str]:
    """Return the roles of all marked blocks of `func`, in program order."""
    sch = s_tir.Schedule(func)
    named = (annotation(sch, block, ROLE) for block in all_blocks(sch))
    return [str(role) for role in named if role is not None]


def role_block(sch: s_tir.Schedule, role: str) -> Any:
    """Return the block marked with `role`, or None."""
    for block in all_blocks(sch):
        if annotation(sch, block, ROLE) == role:
            return block
    return None


def is_spatial(sch: s_tir.Schedule, block: Any) -> bool:
    """Return whether `block` computes each element by itself, without reducing."""
    return all(v.iter_type == tirx.IterVar.DataPar for v in sch.get(block).iter_vars)


def static_extents(sch: s_tir.Schedule, block: Any) -> list[int] | None:
    """Return the extents of the loops around `block`, or None where one is not static or zero."""
    extents = [sch.get(loop).extent for loop in sch.get_loops(block)]
    if not all(isinstance(e, tirx.IntImm) and int(e) > 0 for e in extents):
        return None
    return [int(e) for e in extents]


def is_static(sch: s_tir.Schedule, loop: Any) -> bool:
    """Return whether the extent of `loop` is known."""
    return isinstance(sch.get(loop).extent, tirx.IntImm)


def inline_spatial(func: tirx.PrimFunc) -> s_tir.Schedule | None:
    """Return a schedule of `func` with every block inlined that can be and does not reduce.

    None where the form of the function is not understood.
    """
    sch = s_tir.Schedule(func)
    try:
        blocks = all_blocks(sch)
    except s_tir.ScheduleError:
        return None
    for block in blocks:
        if is_spatial(sch, block) and sch.get_consumers(block):
            try:
                sch.compute_inline(block)
            except s_tir.ScheduleError:
                continue
    return sch


def inline_epilogue(sch: s_tir.Schedule, main: Any) -> Any:
    """Inline every elementwise block behind `main` into the one that writes the output.

    Blocks that feed `main`, and the one marked ``group``, stay.

    Parameters
    ----------
    sch : tvm.s_tir.Schedule
        Schedule of a fused kernel with the single output.
    main : SBlockRV
        The reduction that the elementwise blocks stand behind.

    Returns
    -------
    SBlockRV or None
        The block that writes the kernel's output; None when that cannot be reached by inlining.
    """
    before = {sch.get(b).name_hint for b in _ancestors(sch, main)}
    main_name = sch.get(main).name_hint
    last = None
    for block in all_blocks(sch):
        name = sch.get(block).name_hint
        if name in before or name == main_name or annotation(sch, block, ROLE) == "group":
            continue
        if sch.get_consumers(block):
            sch.compute_inline(block)
        elif last is None:
            last = block
        else:
            return None
    return last


def _ancestors(sch: s_tir.Schedule, block: Any) -> list[Any]:
    found = []
    for producer in sch.get_producers(block):
        found.append(producer)
        found.extend(_ancestors(sch, producer))
    return found


def vectorize_innermost(sch: s_tir.Schedule, loop: Any, lanes: int) -> None:
    """Vectorise `loop` in chunks that divide its extent; leave it serial when none does."""
    extent = sch.get(loop).extent
    if not isinstance(extent, tirx.IntImm):
        return
    size = int(extent)
    width = lanes
    while width > 1 and size % width:
        width //= 2
    if size <= lanes:
        sch.vectorize(loop)
    elif width >= 4:
        _, inner = sch.split(loop, [None, width])
        sch.vectorize(inner)


def store_tile(sch: s_tir.Schedule, out: Any, depth: int, width: int) -> None:
    """Vectorise the block that stores a tile, and unroll what is around in the tile.

    Where a tile ends beyond the last row or channel, a store depends on conditions. A loop over
    such stores would stay a loop, and its changing index would keep the tile in memory.

    Parameters
    ----------
    sch : tvm.s_tir.Schedule
        Schedule of the kernel.
    out : SBlockRV
        The block, already placed below the loop over tiles.
    depth : int
        How many loops there are around the tile.
    width : int
        Elements stored at once; divides the tile.
    """
    _, last = sch.split(sch.get_loops(out)[-1], [None, width])
    inside = sch.get_loops(out)[depth:-1]
    count = math.prod(int(sch.get(loop).extent) for loop in inside)
    sch.vectorize(last)
    if count <= _MOST_STORES:
        for loop in inside:
            sch.unroll(loop)


def schedule_pad(sch: s_tir.Schedule, lanes: int) -> None:
    """Parallelise and vectorise the padding stage of a kernel, where it has one."""
    pad = role_block(sch, "pad")
    if pad is None:
        return
    loops = sch.get_loops(pad)
    vectorize_innermost(sch, loops[-1], lanes)
    # A row of a flat image has no outer loops to spread.
    outer = 2 if int(sch.get(loops[1]).extent) > 1 else 3
    sch.parallel(sch.fuse(*loops[:outer]))
