"""2-D convolution on a GPU as an implicit matrix product.

Channels-last data make a row of the left factor of one output position: all inputs under its
kernel, in the order ``(ky, kx, channel)``. The weight ``(kh, kw, ic, oc)`` is the right factor as
it stands. Nothing of the left factor is stored: `relay_passes.kernels.cuda.product` computes its
elements, border included, on their way into shared memory. Groups are a batch of products.
"""

from __future__ import annotations

from typing import Any

from tvm import te, tirx
from tvm.relax.transform.legalize_ops import nn as default_legalize

from relay_passes.kernels.conv2d_call import read_conv2d
from relay_passes.kernels.cuda.depthwise import te_depthwise
from relay_passes.kernels.cuda.product import Product, te_product, vector_of
from relay_passes.kernels.cuda.tiles import choose_tile

__all__ = ["legalize_conv2d", "te_conv2d"]

Pair = tuple[int, int]


def legalize_conv2d(arch: str, allow_tf32: bool = False) -> Any:
    """Return the legalisation of ``relax.nn.conv2d`` with channels-last result for `arch`."""

    def legalize(bb: Any, call: Any) -> Any:
        asked = read_conv2d(call, ("float16", "float32", "float64"))
        if asked is None:
            return default_legalize._nn_conv2d(bb, call)
        data, weight = call.args
        out, groups, planar = asked.out, asked.groups, asked.is_planar
        stride, padding, dilation = asked.stride, asked.padding, asked.dilation
        if asked.is_depthwise:
            return bb.call_te(
                lambda x, w: te_depthwise(x, w, out, stride, padding, dilation),
                data,
                weight,
                primfunc_name_hint="depthwise",
            )
        return bb.call_te(
            lambda x, w: te_conv2d(
                x, w, out, groups, stride, padding, dilation, arch, planar, allow_tf32
            ),
            data,
            weight,
            primfunc_name_hint="conv2d",
        )

    return legalize


def te_conv2d(
    data: te.Tensor,
    weight: te.Tensor,
    out: tuple[int, ...],
    groups: int,
    stride: Pair,
    padding: tuple[int, ...],
    dilation: Pair,
    arch: str,
    planar: bool = False,
    allow_tf32: bool = False,
) -> te.Tensor:
    """Return the convolution of NHWC `data` with an HWIO `weight`.

    Parameters
    ----------
    data : te.Tensor
        Shape ``(n, h, w, groups * ic)``, or ``(n, c, h, w)`` when `planar`.
    weight : te.Tensor
        Shape ``(kh, kw, ic, oc)``.
    out : tuple of int
        Shape of the result, ``(n, oh, ow, oc)``.
    groups, stride, padding, dilation
        As in ONNX; padding is top, left, bottom, right.
    arch : str
        Decides on the tile.
    planar : bool
        `data` is NCHW.
    allow_tf32 : bool
        float32 may be rounded to TF32.
    """
    order = (0, 2, 3, 1) if planar else (0, 1, 2, 3)
    _, in_h, in_w, _ = (int(data.shape[i]) for i in order)
    kh, kw, ic, _ = (int(s) for s in weight.shape)
    n, out_h, out_w, out_c = out
    top, left, _, _ = padding
    per_group = out_c // groups
    product = Product(
        batch=groups,
        rows=n * out_h * out_w,
        columns=per_group,
        depth=kh * kw * ic,
        dtype=str(data.dtype),
        left_vector=1 if planar else vector_of(ic, str(data.dtype)),
        right_vector=vector_of(per_group, str(data.dtype)),
        row_order=planar,
        store_vector=vector_of(per_group, str(data.dtype)),
    )
    tile = choose_tile(
        groups,
        product.rows,
        per_group,
        product.depth,
        arch,
        1 if planar else ic,
        product.dtype,
        allow_tf32,
    )

    def gather(g: Any, m: Any, k: Any) -> Any:
        b, y, x = _split(m, (n, out_h, out_w))
        ry, rx, c = _split(k, (kh, kw, ic))
        row = y * stride[0] + ry * dilation[0] - top
        column = x * stride[1] + rx * dilation[1] - left
        channel = c if groups == 1 else g * ic + c
        at = (b, channel, row, column) if planar else (b, row, column, channel)
        inside = []
        if top or (out_h - 1) * stride[0] - top < 0:
            inside.append(row >= 0)
        if (out_h - 1) * stride[0] + (kh - 1) * dilation[0] - top >= in_h:
            inside.append(row < in_h)
        if left:
            inside.append(column >= 0)
        if (out_w - 1) * stride[1] + (kw - 1) * dilation[1] - left >= in_w:
            inside.append(column < in_w)
        if not inside:
            return data(*at)
        return tirx.if_then_else(tirx.all(*inside), data(*at), tirx.const(0, data.dtype))

    def filters(g: Any, k: Any, c: Any) -> Any:
        return weight(*_split(k, (kh, kw, ic)), c if groups == 1 else g * per_group + c)

    whole = te_product(product, tile, gather, filters, "conv2d")

    def place(b: Any, y: Any, x: Any, c: Any) -> Any:
        row = (b * out_h + y) * out_w + x
        if groups == 1:
            return whole[0, row, c].astype(data.dtype)
        return whole[tirx.floordiv(c, per_group), row, tirx.floormod(c, per_group)].astype(
            data.dtype
        )

    return te.compute(out, place, name="conv_out")


def _split(index: Any, extents: tuple[int, ...]) -> list[Any]:
    """Return the position in an array of `extents` of a row-major index."""
    found: list[Any] = []
    for extent in reversed(extents[1:]):
        found.append(tirx.floormod(index, extent) if extent > 1 else tirx.const(0, "int32"))
        index = tirx.floordiv(index, extent) if extent > 1 else index
    found.append(index if extents[0] > 1 else tirx.const(0, "int32"))
    return found[::-1]
