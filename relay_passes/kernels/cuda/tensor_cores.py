"""Matrix products of float16, or of float32 in TF32, on tensor cores, added up in float32.

The same implicit product as in `relay_passes.kernels.cuda.product`, with another inside: slices
of both factors go through registers into shared memory, each warp takes fragments of 16 × 16
from there and multiplies them (``wmma``, CUDA C++ Programming Guide, "Warp Matrix Functions").
Nobody knows which element of a fragment a thread holds, so the accumulators of a warp go back
through shared memory, one fragment at a time, and the epilogue is applied on the way out.

Rows in shared memory are padded by 16 bytes: a fragment must begin at a multiple of 32 bytes and
its rows lie a multiple of 16 bytes apart, while rows that begin in different banks are read at
once. Of the right factor in TF32 a warp reads four rows of eight neighbours at once, which lie in
different banks when rows are padded by 32 bytes.

Fragments of float16 are operations of TVM; for TF32 one intrinsic loads and multiplies all that a
warp has of a step of the depth (`relay_passes.kernels.cuda.tf32`).
"""

from __future__ import annotations

from typing import Any

from tvm import s_tir, tirx

from relay_passes.kernels.cuda.fragments import FACTORS, FRAGMENT, RESULTS, fragment_intrinsics
from relay_passes.kernels.cuda.product import THROUGH_REGISTERS, fitting, parts_of
from relay_passes.kernels.cuda.tf32 import TF32_DEPTH, tf32_intrinsics
from relay_passes.kernels.cuda.tiles import TensorTile

__all__ = ["schedule_tensor_cores"]

_WARP = 32
_PAD_BYTES = 16
_RIGHT_PAD = 8
"""Elements: 16 bytes of float16, 32 of float32."""


def schedule_tensor_cores(func: tirx.PrimFunc) -> s_tir.Schedule | None:
    """Schedule a fused kernel that holds a `te_product` for tensor cores; None for any other."""
    parts = parts_of(func)
    if parts is None or not isinstance(parts.tile, TensorTile):
        return None
    sch, tile, main, out = parts.sch, parts.tile, parts.main, parts.out
    rows, columns = tile.warp_rows, tile.warp_columns
    is_tf32 = tile.element_bytes == 4
    # What one intrinsic multiplies.
    if is_tf32:
        step = rows, columns, TF32_DEPTH
        intrinsics = tf32_intrinsics(rows, columns)
    else:
        step = FRAGMENT, FRAGMENT, FRAGMENT
        intrinsics = fragment_intrinsics()

    g, m, n, k = sch.get_loops(main)
    mo, wy, mi, mf = sch.split(m, [None, tile.rows // rows, rows // step[0], step[0]])
    no, wx, ni, nf = sch.split(n, [None, tile.columns // columns, columns // step[1], step[1]])
    ko, ki, kf = sch.split(k, [None, tile.depth // step[2], step[2]])
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
    _unroll_fragments(sch, store)

    # In: registers, shared memory, fragments.
    left = sch.cache_read(whole, 0, FACTORS)
    sch.compute_at(left, ko, preserve_unit_loops=True)
    _fill(sch, left, tile, parts.left_vector, parts.row_order, _PAD_BYTES // tile.element_bytes)
    sch.compute_inline(parts.left)
    right = parts.right
    sch.set_scope(right, 0, FACTORS)
    sch.compute_at(right, ko, preserve_unit_loops=True)
    _fill(sch, right, tile, parts.right_vector, False, _RIGHT_PAD)
    if not is_tf32:
        _load(sch, whole, ki, intrinsics)
    for loop in (ki, mi, ni):
        sch.unroll(loop)
    zero = sch.decompose_reduction(whole, ko)
    for loop in sch.get_loops(zero)[-2:]:
        sch.unroll(loop)
    (zero,) = sch.get_child_blocks(zero)
    if is_tf32:
        _by_fragments(sch, zero)
        _unroll_fragments(sch, zero)
    sch.tensorize(sch.get_loops(zero)[-2], intrinsics["fill"])
    sch.tensorize(mf, intrinsics["multiply"])

    # Each warp has a place of its own for one fragment.
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


def _by_fragments(sch: s_tir.Schedule, block: Any) -> tuple[Any, Any]:
    """Tile the last two loops of a copy; return the loop around a fragment and its first."""
    m, n = sch.get_loops(block)[-2:]
    mi, mf = sch.split(m, [None, FRAGMENT])
    ni, nf = sch.split(n, [None, FRAGMENT])
    sch.reorder(mi, ni, mf, nf)
    return ni, mf


def _unroll_fragments(sch: s_tir.Schedule, block: Any) -> None:
    for loop in sch.get_loops(block)[-4:-2]:
        sch.unroll(loop)


def _load(sch: s_tir.Schedule, whole: Any, loop: Any, intrinsics: dict[str, str]) -> None:
    """Read both factors of `whole` through fragments, below `loop`."""
    for index, name in ((0, "load_a"), (1, "load_b")):
        loaded = sch.cache_read(whole, index, f"wmma.matrix_{name[-1]}")
        sch.compute_at(loaded, loop, preserve_unit_loops=True)
        _, first = _by_fragments(sch, loaded)
        _unroll_fragments(sch, loaded)
        sch.tensorize(first, intrinsics[name])


def _fill(
    sch: s_tir.Schedule, block: Any, tile: TensorTile, vector: int, row_order: bool, pad: int
) -> None:
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
    sch.storage_align(block, 0, axis=-2, factor=2 * pad, offset=pad)
    sch.annotate(block, THROUGH_REGISTERS, 1)


def _store(sch: s_tir.Schedule, out: Any, vector: int) -> None:
    """Share one fragment of the result among the threads of its warp."""
    rows, columns = sch.get_loops(out)[-2:]
    columns, lane = sch.split(columns, [None, vector])
    _, thread = sch.split(sch.fuse(rows, columns), [None, _WARP])
    sch.bind(thread, "threadIdx.x")
    sch.vectorize(lane)
