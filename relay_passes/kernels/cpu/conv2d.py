"""2-D convolution on a CPU: channels-last data, packed weights, register tiles.

The weight is stored as ``[block, kh, kw, ic, lane]``: all that one tile of output channels needs
lies in reading order. One tile computes ``rows`` neighbouring output positions times
``vectors × lanes`` output channels; its accumulators live in registers through the whole
reduction, inputs are broadcast, weights are loaded as vectors. Where the kernel covers one pixel
without stride, the image is treated as one long row. An image is cut into strips; a strip is done
for one block of channels after another, so each core works on a part of the image that it, for the
most part, wrote itself in the convolution before. Bias, activation and residual additions
that operator fusion put behind the convolution are applied to the tile before it is stored.

Padding is a stage of its own inside the kernel: a copy of the input with its border. The copy is
a small part of the work (the convolution reads it ``kh·kw·oc/lanes`` times) and keeps every
branch out of the inner loops. It also evens out widths that no tile divides.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tvm import s_tir, te, tirx
from tvm.relax.transform.legalize_ops import nn as default_legalize

from relay_passes.kernels.blocks import (
    ROLE,
    annotation,
    inline_epilogue,
    role_block,
    schedule_pad,
    store_tile,
)
from relay_passes.kernels.conv2d_call import read_conv2d
from relay_passes.kernels.cpu.depthwise import emit_depthwise
from relay_passes.kernels.cpu.tiling import (
    RegisterTile,
    VectorUnit,
    choose_tile,
    store_width,
    strip_length,
)
from relay_passes.straight_line import constant_of, static_shape, tensor_constant

__all__ = ["legalize_conv2d", "schedule_conv2d", "te_conv2d"]

Pair = tuple[int, int]


def legalize_conv2d(unit: VectorUnit) -> Any:
    """Return the legalisation of channels-last ``relax.nn.conv2d`` for `unit`."""

    def legalize(bb: Any, call: Any) -> Any:
        asked = read_conv2d(call, ("float32", "float64"))
        if asked is None:
            return default_legalize._nn_conv2d(bb, call)
        data, weight = call.args
        out, groups, planar = asked.out, asked.groups, asked.is_planar
        stride, padding, dilation = asked.stride, asked.padding, asked.dilation
        if asked.is_depthwise:
            return emit_depthwise(bb, data, weight, out, stride, padding, dilation, unit)

        channels = out[3] // groups
        pointwise = asked.kernel[:2] == (1, 1) and stride == (1, 1) and not any(padding)
        tile, cost = choose_tile(
            out[2], channels, unit, free_tail=any(padding), whole_channels=groups > 1
        )
        pointwise = pointwise and groups == 1
        if pointwise:
            flat, flat_cost = choose_tile(out[1] * out[2], channels, unit, exact_rows=planar)
            if flat_cost <= cost:
                tile, pointwise = flat, True
            else:
                pointwise = False
        packed = _packed(bb, weight, groups, tile)

        def conv(x: te.Tensor, w: te.Tensor) -> te.Tensor:
            return te_conv2d(x, w, out, groups, stride, padding, dilation, tile, pointwise, planar)

        return bb.call_te(conv, data, packed, primfunc_name_hint="conv2d")

    return legalize


def _packed(bb: Any, weight: Any, groups: int, tile: RegisterTile) -> Any:
    """Return ``HWIO`` weights as ``[groups * blocks, kh, kw, ic, lane]``, zero-padded."""
    kh, kw, ic, oc = static_shape(weight) or (0, 0, 0, 0)
    per_group = oc // groups
    blocks = -(-per_group // tile.channels)
    array = constant_of(weight)
    if array is not None:
        grouped = array.reshape(kh, kw, ic, groups, per_group)
        wide = np.zeros((kh, kw, ic, groups, blocks * tile.channels), dtype=array.dtype)
        wide[..., :per_group] = grouped
        wide = wide.reshape(kh, kw, ic, groups * blocks, tile.channels)
        return tensor_constant(wide.transpose(3, 0, 1, 2, 4))

    def te_pack(w: te.Tensor) -> te.Tensor:
        def at(b: Any, y: Any, x: Any, i: Any, lane: Any) -> Any:
            channel = (b % blocks) * tile.channels + lane
            return tirx.if_then_else(
                channel < per_group,
                w[y, x, i, (b // blocks) * per_group + channel],
                tirx.const(0, w.dtype),
            )

        return te.compute((groups * blocks, kh, kw, ic, tile.channels), at, name="pack")

    return bb.emit(bb.call_te(te_pack, weight, primfunc_name_hint="pack_weight"))


def te_conv2d(
    data: te.Tensor,
    weight: te.Tensor,
    out: tuple[int, ...],
    groups: int,
    stride: Pair,
    padding: tuple[int, ...],
    dilation: Pair,
    tile: RegisterTile,
    flat: bool,
    planar: bool = False,
) -> te.Tensor:
    """Return the convolution of NHWC `data` with a packed `weight`.

    Parameters
    ----------
    data : te.Tensor
        Shape ``(n, h, w, groups * ic)``.
    weight : te.Tensor
        Shape ``(groups * blocks, kh, kw, ic, lane)``.
    out : tuple of int
        Shape of the result, ``(n, oh, ow, oc)``.
    groups, stride, padding, dilation
        As in ONNX; padding is top, left, bottom, right.
    tile : RegisterTile
        What one pass over the reduction computes.
    flat : bool
        Tile over all positions of the image as one row (1×1 kernels only). Where no tile divides
        it, the row is copied and ends in zeros; `planar` data must be divided.
    planar : bool
        `data` is NCHW, and so is its padded copy.
    """
    order = (0, 2, 3, 1) if planar else (0, 1, 2, 3)
    n, in_h, in_w, in_c = (int(data.shape[i]) for i in order)
    total_blocks, kh, kw, ic, lanes = (int(s) for s in weight.shape)
    _, out_h, out_w, out_c = out
    top, left, bottom, right = padding
    per_group = out_c // groups
    blocks = total_blocks // groups
    split = per_group % lanes != 0 and groups > 1  # groups end within a tile of channels
    wide_w = out_w if flat else -(-out_w // tile.rows) * tile.rows
    need_w = (wide_w - 1) * stride[1] + (kw - 1) * dilation[1] + 1
    source = data
    if any(padding) or need_w > in_w + left + right:
        pad_w = max(need_w, in_w + left)
        padded = (n, in_h + top + bottom, pad_w, in_c)

        def copy(*index: Any) -> Any:
            b, y, x, c = (index[i] for i in order)
            inside = tirx.all(y >= top, y < in_h + top, x >= left, x < in_w + left)
            at = (b, c, y - top, x - left) if planar else (b, y - top, x - left, c)
            return tirx.if_then_else(inside, data(*at), tirx.const(0, data.dtype))

        source = te.compute(
            (n, in_c, padded[1], pad_w) if planar else padded, copy, name="pad", attrs={ROLE: "pad"}
        )

    positions = out_h * out_w
    wide_row = -(-positions // tile.rows) * tile.rows
    if flat and wide_row != positions:
        source = te.compute(
            (n, 1, wide_row, in_c),
            lambda b, _, x, c: tirx.if_then_else(
                x < positions,
                data[b, tirx.floordiv(x, out_w), tirx.floormod(x, out_w), c],
                tirx.const(0, data.dtype),
            ),
            name="pad",
            attrs={ROLE: "pad"},
        )

    def read(b: Any, y: Any, x: Any, c: Any) -> Any:
        return source[b, c, y, x] if planar else source[b, y, x, c]

    ry = te.reduce_axis((0, kh), name="ry")
    rx = te.reduce_axis((0, kw), name="rx")
    rc = te.reduce_axis((0, ic), name="rc")

    def product(b: Any, y: Any, x: Any, g: Any, k: Any, lane: Any) -> Any:
        channel = (g if split else tirx.floordiv(k, blocks)) * ic + rc if groups > 1 else rc
        if flat and wide_row != positions:
            value = source[b, 0, x, channel]
        elif flat:  # y is zero; x runs over the whole image
            value = read(b, tirx.floordiv(x, out_w), tirx.floormod(x, out_w), channel)
        else:
            row = y * stride[0] + ry * dilation[0]
            value = read(b, row, x * stride[1] + rx * dilation[1], channel)
        return te.sum(
            value * weight[g * blocks + k if split else k, ry, rx, rc, lane], axis=[ry, rx, rc]
        )

    image = (1, wide_row) if flat else (out_h, wide_w)
    channels = (groups, blocks) if split else (1, total_blocks)
    conv = te.compute(
        (n, *image, *channels, lanes),
        product,
        name="conv",
        attrs={
            ROLE: "conv2d",
            "hios.rows": tile.rows,
            "hios.lanes": tile.lanes,
            "hios.flat": int(flat),
            "hios.width": out_w,
            "hios.store": store_width(per_group, tile.lanes),
            "hios.flops": str(2 * math.prod(out) * kh * kw * ic),
        },
    )

    if split:
        # One tile spans a group and a little more. The channels of the group alone are put side
        # by side first, so that no store reaches into the next group, which is another thread's.
        grouped = te.compute(
            (n, out_h, out_w, groups, per_group),
            lambda b, y, x, g, c: conv[
                b,
                y,
                x,
                g,
                tirx.floordiv(c, lanes),
                tirx.floormod(c, lanes),
            ],
            name="conv_group",
            attrs={ROLE: "group"},
        )
        return te.compute(
            out,
            lambda b, y, x, c: grouped[
                b, y, x, tirx.floordiv(c, per_group), tirx.floormod(c, per_group)
            ],
            name="conv_out",
        )

    def crop(b: Any, y: Any, x: Any, c: Any) -> Any:
        if flat:
            y, x = 0, y * out_w + x
        return conv[b, y, x, 0, tirx.floordiv(c, lanes), tirx.floormod(c, lanes)]

    return te.compute(out, crop, name="conv_out")


def schedule_conv2d(func: tirx.PrimFunc) -> s_tir.Schedule | None:
    """Schedule a fused kernel that holds a convolution of `te_conv2d`; None for any other."""
    sch = s_tir.Schedule(func)
    conv = role_block(sch, "conv2d")
    if conv is None:
        return None
    rows = int(annotation(sch, conv, "hios.rows"))
    lanes = int(annotation(sch, conv, "hios.lanes"))
    flat = bool(annotation(sch, conv, "hios.flat"))
    store = int(annotation(sch, conv, "hios.store"))
    vectors = int(sch.get(sch.get_loops(conv)[5]).extent) // lanes
    out = inline_epilogue(sch, conv)
    if out is None:
        return None
    n, y, x, g, k, lane, ry, rx, rc = sch.get_loops(conv)
    group = role_block(sch, "group")
    outer, inner = sch.split(x, [None, rows])
    if group is not None:
        spread, around = [n, g, y], [n, g, y, outer, k]
    else:
        height, across = (int(sch.get(loop).extent) for loop in (y, outer))
        if flat:
            strip, outer = sch.split(outer, [None, strip_length(across, 1)])
        else:
            strip, y = sch.split(y, [None, strip_length(height, across)])
        spread, around = [n, strip, g, k], [n, strip, g, k, y, outer]
        # One iterator over the image in the block that stores: a tile may end within a row, and
        # only one axis tells exactly which outputs belong to it. Stores count channels in whole
        # vectors: a condition that asks single lanes whether they are still inside would store
        # them one by one, and the changing index would keep the tile in memory.
        width = int(annotation(sch, conv, "hios.width"))
        per_tile = vectors * lanes // store
        sch.transform_layout(
            conv,
            ("write", 0),
            lambda b, yy, xx, gg, kk, c: (
                b,
                yy,
                xx,
                gg,
                kk * per_tile + tirx.floordiv(c, store),
                tirx.floormod(c, store),
            ),
        )
        sch.transform_block_layout(
            out,
            lambda b, yy, xx, c: (
                b,
                *((yy * width + xx,) if flat else (yy, xx)),
                tirx.floordiv(c, store),
                tirx.floormod(c, store),
            ),
        )
    vector, lane = sch.split(lane, [None, lanes])
    sch.reorder(*around, ry, rx, rc, inner, vector, lane)
    sch.set_scope(conv, 0, "local")
    if group is not None:
        # The output block must be placed while the loops of the group block are still exact.
        sch.set_scope(group, 0, "local")
        sch.reverse_compute_at(group, k, preserve_unit_loops=True)
    sch.reverse_compute_at(
        out, outer if group is not None else around[-1], preserve_unit_loops=True
    )
    if group is not None:
        _, last = sch.split(sch.get_loops(group)[-1], [None, lanes])
        sch.vectorize(last)
    store_tile(sch, out, len(around) if group is None else len(around) - 1, store)
    sch.vectorize(lane)
    sch.unroll(inner)
    sch.unroll(vector)
    sch.parallel(sch.fuse(*spread))
    sch.decompose_reduction(conv, ry)
    schedule_pad(sch, lanes)
    return sch
