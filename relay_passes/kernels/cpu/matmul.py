"""Products of two activations on a CPU, as in attention: both sides come at run time.

The right-hand side is first put in the order of the register tiles, ``[batch, block, k, lane]``,
within the same kernel: a copy of ``k·n`` elements before ``m·k·n`` multiply-adds. From there on
it is the product with a constant matrix, once a batch.
"""

from __future__ import annotations

import math
from typing import Any

from tvm import s_tir, te, tirx
from tvm.tirx import IndexMap

from relay_passes.kernels.blocks import (
    ROLE,
    all_blocks,
    annotation,
    inline_epilogue,
    role_block,
    store_tile,
    vectorize_innermost,
)
from relay_passes.kernels.cpu.tiling import RegisterTile, VectorUnit, choose_tile, store_width
from relay_passes.straight_line import dtype_of, static_shape

__all__ = ["emit_batch_matmul", "schedule_batch_matmul", "te_batch_matmul"]

_LEAST_ROWS = 4
"""Rows below which the copy of the right-hand side does not pay."""


def emit_batch_matmul(bb: Any, call: Any, unit: VectorUnit) -> Any:
    """Return the call of a tiled kernel for ``relax.matmul`` of two activations.

    Returns
    -------
    relax.Expr or None
        None where the shapes are not of this kind: not static, broadcast, of few rows.
    """
    lhs, rhs = (static_shape(a) for a in call.args)
    if (
        lhs is None
        or rhs is None
        or len(lhs) != len(rhs)
        or len(lhs) < 2
        or lhs[:-2] != rhs[:-2]
        or lhs[-2] < _LEAST_ROWS
        or math.prod((*lhs, *rhs)) == 0
        or any(dtype_of(x) != "float32" for x in (*call.args, call))
    ):
        return None
    rows, columns = lhs[-2], rhs[-1]
    tile, cost = choose_tile(rows, columns, unit, exact_rows=True)
    loose, loose_cost = choose_tile(rows, columns, unit)
    if loose_cost < cost:
        tile = loose
    return bb.call_te(
        lambda a, b: te_batch_matmul(a, b, tile), *call.args, primfunc_name_hint="matmul"
    )


def te_batch_matmul(lhs: te.Tensor, rhs: te.Tensor, tile: RegisterTile) -> te.Tensor:
    """Return ``lhs @ rhs`` for ``(..., m, k)`` and ``(..., k, n)`` of the same leading axes."""
    *leading, rows, depth = (int(s) for s in lhs.shape)
    columns = int(rhs.shape[-1])
    batch, lanes = math.prod(leading), tile.channels
    blocks = -(-columns // lanes)
    wide = -(-rows // tile.rows) * tile.rows

    def at(index: Any) -> list[Any]:
        found: list[Any] = []
        for extent in reversed(leading):
            found.append(tirx.floormod(index, extent) if len(leading) > 1 else index)
            index = tirx.floordiv(index, extent)
        return found[::-1]

    def packed_at(z: Any, j: Any, k: Any, lane: Any) -> Any:
        column = j * lanes + lane
        value = rhs(*at(z), k, column)
        if columns % lanes == 0:
            return value
        return tirx.if_then_else(column < columns, value, tirx.const(0, rhs.dtype))

    packed = te.compute((batch, blocks, depth, lanes), packed_at, name="pack", attrs={ROLE: "pad"})
    source = None
    if wide != rows:
        source = te.compute(
            (batch, wide, depth),
            lambda z, m, k: tirx.if_then_else(
                m < rows, lhs(*at(z), tirx.min(m, rows - 1), k), tirx.const(0, lhs.dtype)
            ),
            name="pad",
            attrs={ROLE: "pad"},
        )
    rk = te.reduce_axis((0, depth), name="rk")
    product = te.compute(
        (batch, wide, blocks, lanes),
        lambda z, m, j, lane: te.sum(
            (lhs(*at(z), m, rk) if source is None else source[z, m, rk]) * packed[z, j, rk, lane],
            axis=rk,
        ),
        name="matmul",
        attrs={
            ROLE: "dense",
            "hios.batched": 1,
            "hios.rows": tile.rows,
            "hios.lanes": tile.lanes,
            "hios.store": store_width(columns, tile.lanes),
            "hios.flops": str(2 * batch * rows * columns * depth),
        },
    )

    def crop(*index: Any) -> Any:
        z: Any = 0
        for extent, i in zip(leading, index[:-2], strict=True):
            z = z * extent + i
        row, column = index[-2:]
        return product[z, row, tirx.floordiv(column, lanes), tirx.floormod(column, lanes)]

    return te.compute((*leading, rows, columns), crop, name="matmul_out")


def schedule_batch_matmul(func: tirx.PrimFunc) -> s_tir.Schedule | None:
    """Schedule a fused kernel that holds a `te_batch_matmul`; None for any other."""
    sch = s_tir.Schedule(func)
    main = role_block(sch, "dense")
    if main is None or annotation(sch, main, "hios.batched") is None:
        return None
    rows = int(annotation(sch, main, "hios.rows"))
    lanes = int(annotation(sch, main, "hios.lanes"))
    store = int(annotation(sch, main, "hios.store"))
    out = inline_epilogue(sch, main)
    if out is None:
        return None
    z, m, j, lane, rk = sch.get_loops(main)
    outer, inner = sch.split(m, [None, rows])
    extents = [int(v.dom.extent) for v in sch.get(out).iter_vars]

    def flattened(*index: Any) -> tuple[Any, Any, Any]:
        batch: Any = index[0]
        for extent, i in zip(extents[1:-2], index[1:-2], strict=True):
            batch = batch * extent + i
        return batch, index[-2], index[-1]

    if len(extents) > 3:
        sch.transform_block_layout(out, IndexMap.from_func(flattened, ndim=len(extents)))
    vector, lane = sch.split(lane, [None, lanes])
    sch.reorder(z, j, outer, rk, inner, vector, lane)
    sch.set_scope(main, 0, "local")
    sch.reverse_compute_at(out, outer, preserve_unit_loops=True)
    store_tile(sch, out, 3, store)
    sch.vectorize(lane)
    sch.unroll(inner)
    sch.unroll(vector)
    sch.parallel(sch.fuse(z, j, outer))
    sch.decompose_reduction(main, rk)
    for block in all_blocks(sch):
        if annotation(sch, block, ROLE) == "pad":
            loops = sch.get_loops(block)
            vectorize_innermost(sch, loops[-1], store)
            sch.parallel(sch.fuse(*loops[:2]))
    return sch
