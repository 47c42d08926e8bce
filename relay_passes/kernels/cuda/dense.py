"""Products with a matrix and batched products on a GPU.

Where the left factor has many rows, the product goes through tiles in shared memory
(`relay_passes.kernels.cuda.product`). With few rows (the classifier of a network at batch 1)
the kernel streams its weight once, which is all that such an operator can hope for: the weight
is stored transposed, one warp reads a row of it as vectors and adds up in its registers.
"""

from __future__ import annotations

import math
from typing import Any

from tvm import s_tir, te, tirx
from tvm.relax.transform.legalize_ops import linear_algebra as default_legalize

from relay_passes.kernels.blocks import ROLE, annotation, inline_epilogue, role_block
from relay_passes.kernels.cuda.product import Product, te_product, vector_of
from relay_passes.kernels.cuda.tiles import choose_tile
from relay_passes.straight_line import constant_of, dtype_of, static_shape, tensor_constant

__all__ = ["legalize_matmul", "schedule_rows", "te_matmul", "te_rows"]

_FEW_ROWS = 4
_WARP = 32
_WARPS = 4


def legalize_matmul(arch: str, allow_tf32: bool = False) -> Any:
    """Return the legalisation of ``relax.matmul`` for `arch`."""

    def legalize(bb: Any, call: Any) -> Any:
        data, weight = call.args
        shape, right, out = static_shape(data), static_shape(weight), static_shape(call)
        if (
            shape is None
            or right is None
            or out is None
            or len(shape) < 2
            or len(right) < 2
            or math.prod(out) == 0
            or shape[-1] == 0
            or dtype_of(data) not in ("float16", "float32", "float64")
            or not dtype_of(call) == dtype_of(data) == dtype_of(weight)
        ):
            return default_legalize._matmul(bb, call)
        array = constant_of(weight)
        if array is not None and array.ndim == 2 and math.prod(shape[:-1]) <= _FEW_ROWS:
            return bb.call_te(te_rows, data, tensor_constant(array.T), primfunc_name_hint="dense")
        return bb.call_te(
            lambda x, w: te_matmul(x, w, out, arch, allow_tf32),
            data,
            weight,
            primfunc_name_hint="dense",
        )

    return legalize


def te_matmul(
    data: te.Tensor, weight: te.Tensor, out: tuple[int, ...], arch: str, allow_tf32: bool = False
) -> te.Tensor:
    """Return ``data @ weight`` with numpy's broadcasting of leading axes, shape `out`."""
    shape = tuple(int(s) for s in data.shape)
    right_shape = tuple(int(s) for s in weight.shape)
    depth, columns = right_shape[-2:]
    # All leading axes of the data are rows when there is but one matrix to multiply with.
    leading = 0 if math.prod(right_shape[:-2]) == 1 else len(out) - 2
    batch = math.prod(out[:leading])
    rows = math.prod(out[leading:-1])
    product = Product(
        batch=batch,
        rows=rows,
        columns=columns,
        depth=depth,
        dtype=str(data.dtype),
        left_vector=vector_of(depth, str(data.dtype)),
        right_vector=vector_of(columns, str(data.dtype)),
        store_vector=vector_of(columns, str(data.dtype)),
        leading=leading,
    )
    tile = choose_tile(batch, rows, columns, depth, arch, depth, product.dtype, allow_tf32)

    def left(g: Any, m: Any, k: Any) -> Any:
        position = _split(g, out[:leading]) + _split(m, out[leading:-1])
        return data(*_broadcast(position[:-1], shape[:-2]), position[-1], k)

    def right(g: Any, k: Any, n: Any) -> Any:
        position = _split(g, out[:leading])
        if not leading:
            position = [tirx.const(0, "int32")] * (len(right_shape) - 2)
        return weight(*_broadcast(position, right_shape[:-2]), k, n)

    whole = te_product(product, tile, left, right, "dense")

    def place(*index: Any) -> Any:
        g = _join(index[:leading], out[:leading])
        m = _join(index[leading:-1], out[leading:-1])
        return whole[g, m, index[-1]].astype(data.dtype)

    return te.compute(out, place, name="dense_out")


def te_rows(data: te.Tensor, weight: te.Tensor) -> te.Tensor:
    """Return ``data @ weight.T`` for data ``(..., k)`` of few rows and a weight ``(n, k)``."""
    *leading, depth = (int(s) for s in data.shape)
    columns = int(weight.shape[0])
    total = "float32" if str(data.dtype) == "float16" else str(data.dtype)
    rk = te.reduce_axis((0, depth), name="rk")
    sums = te.compute(
        (*leading, columns),
        lambda *i: te.sum(
            data(*i[:-1], rk).astype(total) * weight[i[-1], rk].astype(total), axis=rk
        ),
        name="rows",
        attrs={ROLE: "dense", "hios.gemv": 1},
    )
    return te.compute((*leading, columns), lambda *i: sums(*i).astype(data.dtype), name="dense_out")


def schedule_rows(func: tirx.PrimFunc) -> s_tir.Schedule | None:
    """Schedule a fused kernel that holds a `te_rows`; None for any other."""
    sch = s_tir.Schedule(func)
    main = role_block(sch, "dense")
    if main is None or annotation(sch, main, "hios.gemv") is None:
        return None
    out = inline_epilogue(sch, main)
    if out is None:
        return None
    *spatial, rk = sch.get_loops(main)
    depth = int(sch.get(rk).extent)
    lanes = next(v for v in (4, 2, 1) if depth % (v * _WARP) == 0 or v == 1)
    fused = sch.fuse(*spatial)
    block, warp = sch.split(fused, [None, _WARPS])
    step, lane, vector = sch.split(rk, [None, _WARP, lanes])
    sch.reorder(block, warp, step, lane, vector)
    sch.bind(block, "blockIdx.x")
    sch.bind(warp, "threadIdx.y")
    sch.bind(lane, "threadIdx.x")
    # The sums of the lanes meet through the warp's shuffles, after which every lane has the
    # total; all of them store it, to the same place.
    sch.set_scope(main, 0, "local")
    sch.reverse_compute_at(out, warp, preserve_unit_loops=True)
    return sch


def _split(index: Any, extents: tuple[int, ...]) -> list[Any]:
    found: list[Any] = []
    for extent in reversed(extents[1:]):
        found.append(tirx.floormod(index, extent))
        index = tirx.floordiv(index, extent)
    return [*([index] if extents else []), *found[::-1]]


def _join(index: Any, extents: tuple[int, ...]) -> Any:
    total: Any = tirx.const(0, "int32")
    for extent, i in zip(extents, index, strict=True):
        total = total * extent + i
    return total


def _broadcast(position: list[Any], extents: tuple[int, ...]) -> list[Any]:
    """Return the position in a factor whose leading axes may be fewer, or of extent one."""
    kept = position[len(position) - len(extents) :]
    return [
        tirx.const(0, "int32") if extent == 1 else i
        for i, extent in zip(kept, extents, strict=True)
    ]
