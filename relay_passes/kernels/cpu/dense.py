"""Products with a constant matrix on a CPU: packed weights, register tiles.

The weight is stored as ``[block, k, lane]``. All leading axes of the data count as rows; one tile
computes a few rows times a few vectors of columns with its accumulators in registers. With one
row (the classifier of a network at batch 1) the kernel streams its weights once, which is all
that such an operator can hope for.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tvm import s_tir, te, tirx
from tvm.relax.transform.legalize_ops import linear_algebra as default_legalize
from tvm.tirx import IndexMap

from relay_passes.kernels.blocks import ROLE, annotation, inline_epilogue, role_block, store_tile
from relay_passes.kernels.cpu.matmul import emit_batch_matmul
from relay_passes.kernels.cpu.tiling import RegisterTile, VectorUnit, choose_tile, store_width
from relay_passes.straight_line import constant_of, dtype_of, static_shape, tensor_constant

__all__ = ["legalize_matmul", "schedule_dense", "te_dense"]


def legalize_matmul(unit: VectorUnit) -> Any:
    """Return the legalisation of ``relax.matmul`` for `unit`."""

    def legalize(bb: Any, call: Any) -> Any:
        data, weight = call.args
        if constant_of(weight) is None:
            product = emit_batch_matmul(bb, call, unit)
            return default_legalize._matmul(bb, call) if product is None else product
        shape, out = static_shape(data), static_shape(call)
        array = constant_of(weight)
        if (
            array is None
            or array.ndim != 2
            or shape is None
            or out is None
            or len(shape) < 2
            or math.prod(out) == 0
            or array.shape[0] == 0
            or dtype_of(data) not in ("float32", "float64")
            or dtype_of(call) != dtype_of(data)
        ):
            return default_legalize._matmul(bb, call)
        rows = math.prod(shape[:-1])
        tile, cost = choose_tile(rows, array.shape[1], unit, exact_rows=True)
        loose, loose_cost = choose_tile(rows, array.shape[1], unit)
        if loose_cost < cost:
            tile = loose
        depth, columns = array.shape
        blocks = -(-columns // tile.channels)
        wide = np.zeros((depth, blocks * tile.channels), dtype=array.dtype)
        wide[:, :columns] = array
        packed = wide.reshape(depth, blocks, tile.channels).transpose(1, 0, 2)
        constant = tensor_constant(packed)
        return bb.call_te(
            lambda x, w: te_dense(x, w, columns, tile), data, constant, primfunc_name_hint="dense"
        )

    return legalize


def te_dense(data: te.Tensor, weight: te.Tensor, columns: int, tile: RegisterTile) -> te.Tensor:
    """Return ``data @ weight`` for data ``(..., k)`` and a weight ``(blocks, k, lane)``."""
    shape = tuple(int(s) for s in data.shape)
    leading, depth = shape[:-1], shape[-1]
    rows = math.prod(leading)
    blocks, _, lanes = (int(s) for s in weight.shape)
    wide = -(-rows // tile.rows) * tile.rows

    def row_of(index: Any) -> list[Any]:
        at: list[Any] = []
        for extent in reversed(leading):
            at.append(tirx.floormod(index, extent) if len(leading) > 1 else index)
            index = tirx.floordiv(index, extent)
        return at[::-1]

    source = None
    if wide != rows:
        source = te.compute(
            (wide, depth),
            lambda m, k: tirx.if_then_else(
                m < rows, data(*row_of(tirx.min(m, rows - 1)), k), tirx.const(0, data.dtype)
            ),
            name="pad",
            attrs={ROLE: "pad"},
        )
    rk = te.reduce_axis((0, depth), name="rk")
    product = te.compute(
        (wide, blocks, lanes),
        lambda m, j, lane: te.sum(
            (data(*row_of(m), rk) if source is None else source[m, rk]) * weight[j, rk, lane],
            axis=rk,
        ),
        name="dense",
        attrs={
            ROLE: "dense",
            "hios.rows": tile.rows,
            "hios.lanes": tile.lanes,
            "hios.store": store_width(columns, tile.lanes),
            "hios.flops": str(2 * rows * columns * depth),
        },
    )

    def crop(*index: Any) -> Any:
        row = index[0]
        for extent, i in zip(leading[1:], index[1:-1], strict=True):
            row = row * extent + i
        column = index[-1]
        return product[row, tirx.floordiv(column, lanes), tirx.floormod(column, lanes)]

    return te.compute((*leading, columns), crop, name="dense_out")


def schedule_dense(func: tirx.PrimFunc) -> s_tir.Schedule | None:
    """Schedule a fused kernel that holds a `te_dense`; None for any other."""
    sch = s_tir.Schedule(func)
    main = role_block(sch, "dense")
    if main is None or annotation(sch, main, "hios.batched") is not None:
        return None
    rows = int(annotation(sch, main, "hios.rows"))
    lanes = int(annotation(sch, main, "hios.lanes"))
    store = int(annotation(sch, main, "hios.store"))
    out = inline_epilogue(sch, main)
    if out is None:
        return None
    m, j, lane, rk = sch.get_loops(main)
    outer, inner = sch.split(m, [None, rows])
    extents = [int(v.dom.extent) for v in sch.get(out).iter_vars]

    def flattened(*index: Any) -> tuple[Any, Any]:
        row = index[0]
        for extent, i in zip(extents[1:-1], index[1:-1], strict=True):
            row = row * extent + i
        return row, index[-1]

    if len(extents) > 2:
        # A tile may end within an inner axis: only one row axis tells exactly what it covers.
        sch.transform_block_layout(out, IndexMap.from_func(flattened, ndim=len(extents)))
    vector, lane = sch.split(lane, [None, lanes])
    sch.reorder(j, outer, rk, inner, vector, lane)
    sch.set_scope(main, 0, "local")
    sch.reverse_compute_at(out, outer, preserve_unit_loops=True)
    store_tile(sch, out, 2, store)
    sch.vectorize(lane)
    sch.unroll(inner)
    sch.unroll(vector)
    sch.parallel(sch.fuse(j, outer))
    sch.decompose_reduction(main, rk)
    pad = role_block(sch, "pad")
    if pad is not None:
        sch.parallel(sch.get_loops(pad)[0])
    return sch
