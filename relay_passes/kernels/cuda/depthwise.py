"""Depthwise 2-D convolution on a GPU: one thread, a few positions, a vector of channels.

Each input is used ``kh·kw`` times at most, so the work is bound by memory and its caches. Threads
of a warp stand side by side along the channels, of which each takes a vector; neighbouring
positions of a thread share the weights that it holds.
"""

from __future__ import annotations

from tvm import s_tir, te, tirx

from relay_passes.kernels.blocks import ROLE, inline_epilogue, role_block
from relay_passes.kernels.border import with_border

__all__ = ["schedule_depthwise", "te_depthwise"]

_THREADS = 128
_POSITIONS = 4


def te_depthwise(
    data: te.Tensor,
    weight: te.Tensor,
    out: tuple[int, ...],
    stride: tuple[int, int],
    padding: tuple[int, ...],
    dilation: tuple[int, int],
) -> te.Tensor:
    """Return the depthwise convolution of NHWC `data` with ``(kh, kw, 1, c)`` weights."""
    kh, kw, _, _ = (int(s) for s in weight.shape)
    total = "float32" if str(data.dtype) == "float16" else str(data.dtype)
    source = with_border(data, padding)
    ry = te.reduce_axis((0, kh), name="ry")
    rx = te.reduce_axis((0, kw), name="rx")
    sums = te.compute(
        out,
        lambda b, y, x, c: te.sum(
            source[b, y * stride[0] + ry * dilation[0], x * stride[1] + rx * dilation[1], c].astype(
                total
            )
            * weight[ry, rx, 0, c].astype(total),
            axis=[ry, rx],
        ),
        name="depthwise",
        attrs={ROLE: "depthwise"},
    )
    return te.compute(out, lambda *i: sums(*i).astype(data.dtype), name="depthwise_out")


def schedule_depthwise(func: tirx.PrimFunc) -> s_tir.Schedule | None:
    """Schedule a fused kernel that holds a `te_depthwise`; None for any other."""
    sch = s_tir.Schedule(func)
    main = role_block(sch, "depthwise")
    if main is None:
        return None
    pad = role_block(sch, "pad")
    if pad is not None:
        sch.compute_inline(pad)
    out = inline_epilogue(sch, main)
    if out is None:
        return None
    sch.set_scope(main, 0, "local")
    loops = sch.get_loops(out)
    _, _, width, channels = (int(sch.get(loop).extent) for loop in loops)
    lanes = next(v for v in (4, 2, 1) if channels % v == 0)
    n, y, x, c = loops
    positions = next(p for p in range(_POSITIONS, 0, -1) if width % p == 0)
    xo, xi = sch.split(x, [None, positions])
    co, ci = sch.split(c, [None, lanes])
    sch.reorder(n, y, xo, co, xi, ci)
    # Side by side along channels first; the extents divide, so that no thread idles in a block.
    along_c = _divisor(int(sch.get(co).extent), _THREADS)
    along_x = _divisor(int(sch.get(xo).extent), _THREADS // along_c)
    cb, ct = sch.split(co, [None, along_c])
    xb, xt = sch.split(xo, [None, along_x])
    sch.reorder(n, y, xb, cb, xt, ct, xi, ci)
    sch.bind(sch.fuse(n, y), "blockIdx.x")
    sch.bind(xb, "blockIdx.y")
    sch.bind(cb, "blockIdx.z")
    sch.bind(xt, "threadIdx.y")
    sch.bind(ct, "threadIdx.x")
    thread = ct
    sch.vectorize(ci)
    sch.unroll(xi)
    sch.compute_at(main, thread, preserve_unit_loops=True)
    *_, x_in, c_in, ry, rx = sch.get_loops(main)
    sch.reorder(ry, rx, x_in, c_in)
    for loop in (ry, rx, x_in):
        sch.unroll(loop)
    if lanes > 1:
        sch.vectorize(c_in)
    sch.decompose_reduction(main, ry)
    return sch


def _divisor(extent: int, most: int) -> int:
    """Return the largest divisor of `extent` up to `most`."""
    return next(d for d in range(min(extent, most), 0, -1) if extent % d == 0)
