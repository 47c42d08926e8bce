"""Everything else on a GPU: elementwise chains, copies, pooling, reductions.

Elementwise blocks are inlined into their readers. What is left is bound by memory: neighbouring
threads write neighbouring outputs, each a vector where the innermost extent allows, so that a
warp writes whole lines. A thread of a pooling walks over its own window. A reduction with few
outputs and much to add up (a mean over an image, the sum of a softmax) is spread over the
threads of a block, which meet in shared memory.

A kernel of one small operator stays small: one thread per vector and no persistent blocks, so
that what is left of the GPU is free for another operator.
"""

from __future__ import annotations

import math
from typing import Any

import tvm
from tvm import s_tir, tirx

from relay_passes.kernels.blocks import all_blocks, inline_spatial, is_spatial, is_static

__all__ = ["schedule_generic"]

_THREADS = 128
_ACROSS_FROM = 128
"""Elements of a reduction from which on several threads share it."""
_FULL = 65536
"""Outputs from which on threads of their own fill any GPU."""


def schedule_generic(func: tirx.PrimFunc) -> s_tir.Schedule | None:
    """Schedule any kernel of static shape; None when its form is not understood."""
    sch = inline_spatial(func)
    if sch is None:
        return None
    left = all_blocks(sch)
    if len(left) == 2 and _follows(sch, *left):
        # What is done with a sum (the mean of a pooling) is done where the sum is.
        _finish_in_place(sch, *left)
        return sch
    for block in left:
        if not _schedule_block(sch, block):
            return None
    return sch


def _follows(sch: s_tir.Schedule, reduction: Any, out: Any) -> bool:
    """Return whether `out` takes each result of `reduction` once, of static shape."""
    if is_spatial(sch, reduction) or not is_spatial(sch, out) or sch.get_consumers(out):
        return False
    stmts = sch.get(reduction), sch.get(out)
    kinds = [v.iter_type for v in stmts[0].iter_vars]
    if any(k not in (tirx.IterVar.DataPar, tirx.IterVar.CommReduce) for k in kinds):
        return False
    outputs = [v.dom.extent for v in stmts[0].iter_vars if v.iter_type == tirx.IterVar.DataPar]
    wanted = [v.dom.extent for v in stmts[1].iter_vars]
    loops = [*sch.get_loops(reduction), *sch.get_loops(out)]
    return (
        all(is_static(sch, loop) for loop in loops)
        and len(sch.get_loops(reduction)) == len(kinds)
        and len(sch.get_loops(out)) == len(wanted) > 0
        and math.prod(map(int, outputs)) == math.prod(map(int, wanted))
        and [int(e) for e in outputs if int(e) > 1] == [int(e) for e in wanted if int(e) > 1]
        and len(stmts[0].writes) == 1
    )


def _finish_in_place(sch: s_tir.Schedule, reduction: Any, out: Any) -> None:
    kinds = [v.iter_type for v in sch.get(reduction).iter_vars]
    loops = sch.get_loops(reduction)
    spatial = [loop for loop, k in zip(loops, kinds, strict=True) if k == tirx.IterVar.DataPar]
    reduced = [loop for loop, k in zip(loops, kinds, strict=True) if k == tirx.IterVar.CommReduce]
    sch.reorder(*spatial, *reduced)
    outputs = math.prod(int(sch.get(loop).extent) for loop in spatial)
    depth = math.prod(int(sch.get(loop).extent) for loop in reduced)
    sch.set_scope(reduction, 0, "local")
    if depth >= _ACROSS_FROM and outputs < _FULL:
        thread = _reduce_across(sch, spatial, reduced, _reads_along(sch, reduction))
        sch.reverse_compute_at(out, thread, preserve_unit_loops=True)
        return
    thread = _spread(sch, spatial, 1)
    sch.reverse_compute_at(out, thread, preserve_unit_loops=True)
    _reduce_alone(sch, reduction, reduced)


def _schedule_block(sch: s_tir.Schedule, block: Any) -> bool:
    kinds = [v.iter_type for v in sch.get(block).iter_vars]
    loops = sch.get_loops(block)
    if len(loops) != len(kinds) or not all(is_static(sch, loop) for loop in loops):
        return _bind_outer(sch, block, loops)
    spatial = [loop for loop, k in zip(loops, kinds, strict=True) if k == tirx.IterVar.DataPar]
    reduced = [loop for loop, k in zip(loops, kinds, strict=True) if k == tirx.IterVar.CommReduce]
    if len(spatial) + len(reduced) != len(loops):
        return _bind_outer(sch, block, loops)
    if not spatial:
        # One result: an axis of extent one stands for the outputs.
        spatial = [sch.add_unit_loop(loops[0])]
    if not reduced:
        _spread(sch, spatial, _lanes(sch, block, spatial[-1]))
        return True
    outputs = math.prod(int(sch.get(loop).extent) for loop in spatial)
    depth = math.prod(int(sch.get(loop).extent) for loop in reduced)
    sch.reorder(*spatial, *reduced)
    if depth >= _ACROSS_FROM and outputs < _FULL:
        _reduce_across(sch, spatial, reduced, _reads_along(sch, block))
        return True
    _spread(sch, spatial, 1)
    _reduce_alone(sch, block, reduced)
    return True


def _reduce_alone(sch: s_tir.Schedule, block: Any, reduced: list[Any]) -> None:
    """One thread adds up all of an output's terms."""
    if math.prod(int(sch.get(loop).extent) for loop in reduced[1:]) <= 16:
        for loop in reduced[1:]:
            sch.unroll(loop)
    sch.decompose_reduction(block, reduced[0])


def _spread(sch: s_tir.Schedule, spatial: list[Any], lanes: int) -> Any:
    """One thread an output, or a vector of `lanes` outputs; returns the loop over threads."""
    vector = None
    if lanes > 1:
        outer, vector = sch.split(spatial[-1], [None, lanes])
        spatial = [*spatial[:-1], outer]
    fused = sch.fuse(*spatial) if len(spatial) > 1 else spatial[0]
    threads = min(_THREADS, -(-int(sch.get(fused).extent) // 32) * 32)
    block, thread = sch.split(fused, [None, threads])
    sch.bind(block, "blockIdx.x")
    sch.bind(thread, "threadIdx.x")
    if vector is not None:
        sch.vectorize(vector)
    return thread


def _reduce_across(sch: s_tir.Schedule, spatial: list[Any], reduced: list[Any], along: bool) -> Any:
    """Several threads an output; they stand side by side in memory, or the outputs do.

    Returns the loop that the outputs of one thread stand in.
    """
    outputs = sch.fuse(*spatial) if len(spatial) > 1 else spatial[0]
    depth = sch.fuse(*reduced) if len(reduced) > 1 else reduced[0]
    extent = int(sch.get(depth).extent)
    if along:
        share = min(256, 1 << (extent - 1).bit_length())
        step, lane = sch.split(depth, [None, share])
        sch.reorder(outputs, step, lane)
        sch.bind(outputs, "blockIdx.x")
        sch.bind(lane, "threadIdx.x")
        return outputs
    step, lane = sch.split(depth, [None, 8])
    block, thread = sch.split(outputs, [None, 32])
    sch.reorder(block, thread, step, lane)
    sch.bind(block, "blockIdx.x")
    sch.bind(thread, "threadIdx.x")
    sch.bind(lane, "threadIdx.y")
    return thread


def _reads_along(sch: s_tir.Schedule, block: Any) -> bool:
    """Return whether the innermost axis of what is read is one that is reduced."""
    stmt = sch.get(block)
    iterators = {v.var for v in stmt.iter_vars if v.iter_type == tirx.IterVar.CommReduce}
    for region in stmt.reads:
        last = region.region[-1].min
        if any(var in iterators for var in tirx.analysis.undefined_vars(last)):
            return True
    return False


def _lanes(sch: s_tir.Schedule, block: Any, inner: Any) -> int:
    """Return the width of vectors: 16 bytes, where the innermost extent is a multiple of it."""
    extent = int(sch.get(inner).extent)
    stmt = sch.get(block)
    if len(stmt.writes) != 1:
        return 1
    bits = int(tvm.DataType(str(stmt.writes[0].source.dtype)).bits)
    wide = max(1, min(4, 128 // max(bits, 1)))
    while wide > 1 and extent % wide:
        wide //= 2
    return wide


def _bind_outer(sch: s_tir.Schedule, block: Any, loops: list[Any]) -> bool:
    """Bind what can be bound of a block of unknown form."""
    if not loops:
        loop = sch.add_unit_loop(block)
        block_loop, thread = sch.split(loop, [None, 1])
    else:
        block_loop, thread = sch.split(loops[0], [None, min(32, _THREADS)])
    sch.bind(block_loop, "blockIdx.x")
    sch.bind(thread, "threadIdx.x")
    return True
