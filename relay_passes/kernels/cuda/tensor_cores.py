"""Matrix products of float16 on the tensor cores of a GPU, added up in float32.

The same implicit product as in `relay_passes.kernels.cuda.product`, with another inside: slices
of both factors go through registers into shared memory, each warp takes fragments of 16 × 16
from there and multiplies them (``wmma``, CUDA C++ Programming Guide, "Warp Matrix Functions").
Nobody knows which element of a fragment a thread holds, so the accumulators of a warp go back
through shared memory, one fragment at a time, and the epilogue is applied on the way out.

Rows in shared memory are padded by eight halves: a fragment must begin at a multiple of 32
bytes and its rows lie a multiple of 16 bytes apart, while rows that begin in different banks
are read at once.
"""

from __future__ import annotations

from typing import Any

from tvm import s_tir, tirx

from relay_passes.kernels.cuda.fragments import FACTORS, FRAGMENT, RESULTS, fragment_intrinsics
from relay_passes.kernels.cuda.product import THROUGH_REGISTERS, fitting, parts_of
from relay_passes.kernels.cuda.tiles import TensorTile

__all__ = ["schedule_tensor_cores"]

_WARP = 32
_PAD = 8


def schedule_tensor_cores(func: tirx.PrimFunc) -> s_tir.Schedule | None:
    """Schedule a fused kernel that holds a `te_product` for tensor cores; None for any other."""
    parts = parts_of(func)
    if parts is None or not isinstance(parts.tile, TensorTile):
        return None
    sch, tile, main, out = parts.sch, parts.tile, parts.main, parts.out
    intrinsics = fragment_intrinsics()

    g, m, n, k = sch.get_loops(main)
    mo, wy, mi, mf = sch.split(m, [None, tile.rows // tile.warp_rows, *_fragments(tile.warp_rows)])
    no, wx, ni, nf = sch.split(
        n, [None, tile.columns // tile.warp_columns, *_fragments(tile.warp_columns)]
    )
    ko, ki, kf = sch.split(k, [None, *_fragments(tile.depth)])
    sch.reorder(g, mo, no, wy, wx, ko, ki, mi, ni, mf, nf, kf)
    whole = sch.blockize(mf)
    warp = sch.fuse(wy, wx)
    sch.bind(g, "blockIdx.z")
    sch.bind(mo, "blockIdx.x")
    sch.bind(no, "blockIdx.y")
    sch.bind(warp, "threadIdx.y")

    # Out: accumulators, a fragment in shared memory, the epilogue.
    store = sch.cache_write(whole, 0, "wmma.accumulator")
    sch.set_scope(store, 0, RESULTS)
    sch.reverse_compute_at(store, warp, preserve_unit_loops=True)
    store_fragment = _by_fragments(sch, store)
    sch.reverse_compute_at(out, store_fragment[0], preserve_unit_loops=True)
    _store(sch, out, min(parts.store_vector, 4))  # 16 bytes of the float32 results
    sch.unroll(sch.get_loops(store)[-4])
    sch.unroll(sch.get_loops(store)[-3])

    # In: registers, shared memory, fragments.
    left = sch.cache_read(whole, 0, FACTORS)
    sch.compute_at(left, ko, preserve_unit_loops=True)
    _fill(sch, left, tile, parts.left_vector, parts.row_order)
    sch.compute_inline(parts.left)
    right = parts.right
    sch.set_scope(right, 0, FACTORS)
    sch.compute_at(right, ko, preserve_unit_loops=True)
    _fill(sch, right, tile, parts.right_vector, False)
    for index, name in ((0, "load_a"), (1, "load_b")):
        loaded = sch.cache_read(whole, index, f"wmma.matrix_{name[-1]}")
        sch.compute_at(loaded, ki, preserve_unit_loops=True)
        fragment = _by_fragments(sch, loaded)
        for loop in sch.get_loops(loaded)[-4:-2]:
            sch.unroll(loop)
        sch.tensorize(fragment[1], intrinsics[name])
    for loop in (ki, mi, ni):
        sch.unroll(loop)
    zero = sch.decompose_reduction(whole, ko)
    for loop in sch.get_loops(zero)[-2:]:
        sch.unroll(loop)
    sch.tensorize(sch.get_loops(sch.get_child_blocks(zero)[0])[-2], intrinsics["fill"])
    sch.tensorize(mf, intrinsics["multiply"])

    # Each warp has a place of its own for one fragment.
    rows, columns = tile.warp_rows, tile.warp_columns
    sch.transform_layout(
        store,
        ("write", 0),
        lambda g, m, n: (g, m // rows, n // columns, m % rows, n % columns),
    )
    sch.tensorize(store_fragment[1], intrinsics["store"])
    # As in the ordinary product: the next slice is on its way while this one is worked on.
    sch.annotate(ko, "software_pipeline_stage", [0, 0, 0, 0, 1])
    sch.annotate(ko, "software_pipeline_order", [0, 3, 1, 4, 2])
    return sch


def _fragments(extent: int) -> tuple[int, int]:
    return extent // FRAGMENT, FRAGMENT


def _by_fragments(sch: s_tir.Schedule, block: Any) -> tuple[Any, Any]:
    """Tile the last two loops of a copy; return the loop around a fragment and its first."""
    m, n = sch.get_loops(block)[-2:]
    mi, mf = sch.split(m, [None, FRAGMENT])
    ni, nf = sch.split(n, [None, FRAGMENT])
    sch.reorder(mi, ni, mf, nf)
    return ni, mf


def _fill(sch: s_tir.Schedule, block: Any, tile: TensorTile, vector: int, row_order: bool) -> None:
    """Share the copy of one slice of a factor among the threads of a block."""
    first, second = sch.get_loops(block)[-2:]
    elements = int(sch.get(first).extent) * int(sch.get(second).extent)
    vector = fitting(vector, elements, tile.threads)
    second, lane = sch.split(second, [None, vector])
    pieces = (second, first) if row_order else (first, second)
    sch.reorder(*pieces, lane)
    _, warp, thread = sch.split(sch.fuse(*pieces), [None, tile.warps, _WARP])
    sch.bind(warp, "threadIdx.y")
    sch.bind(thread, "threadIdx.x")
    sch.vectorize(lane)
    sch.storage_align(block, 0, axis=-2, factor=2 * _PAD, offset=_PAD)
    sch.annotate(block, THROUGH_REGISTERS, 1)


def _store(sch: s_tir.Schedule, out: Any, vector: int) -> None:
    """Share one fragment of the result among the threads of its warp."""
    rows, columns = sch.get_loops(out)[-2:]
    columns, lane = sch.split(columns, [None, vector])
    _, thread = sch.split(sch.fuse(rows, columns), [None, _WARP])
    sch.bind(thread, "threadIdx.x")
    sch.vectorize(lane)
