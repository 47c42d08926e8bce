"""Depthwise 2-D convolution on a CPU: every channel by itself, vectorised over channels.

Each output row is computed in tiles of a few positions times a vector of channels, with the
``kh·kw`` weights of those channels read as vectors. The work is bound by loads, so positions
share the weights and neighbouring positions share their inputs in the first-level cache. The
border is a branch at each load: a padded copy of the input would cost as much as the rest.
"""

from __future__ import annotations

from typing import Any

from tvm import relax, s_tir, te, tirx

from relay_passes.kernels.blocks import ROLE, annotation, inline_epilogue, role_block
from relay_passes.kernels.border import with_border
from relay_passes.kernels.cpu.tiling import VectorUnit
from relay_passes.straight_line import constant_of, tensor_constant

__all__ = ["emit_depthwise", "schedule_depthwise", "te_depthwise"]


def emit_depthwise(
    bb: Any,
    data: Any,
    weight: Any,
    out: tuple[int, ...],
    stride: tuple[int, int],
    padding: tuple[int, ...],
    dilation: tuple[int, int],
    unit: VectorUnit,
) -> Any:
    """Return the call of a depthwise kernel; `weight` is ``(kh, kw, 1, channels)``."""
    channels = out[3]
    lanes = unit.lanes
    while lanes > 1 and channels % lanes:
        lanes //= 2
    budget = max(unit.registers // 4, 1)
    rows = max(r for r in range(1, budget + 1) if out[2] % r == 0)
    array = constant_of(weight)
    flat = (
        tensor_constant(array[:, :, 0, :])
        if array is not None
        else bb.emit(relax.op.squeeze(weight, [2]))
    )

    def depthwise(x: te.Tensor, w: te.Tensor) -> te.Tensor:
        return te_depthwise(x, w, out, stride, padding, dilation, rows, lanes)

    return bb.call_te(depthwise, data, flat, primfunc_name_hint="depthwise")


def te_depthwise(
    data: te.Tensor,
    weight: te.Tensor,
    out: tuple[int, ...],
    stride: tuple[int, int],
    padding: tuple[int, ...],
    dilation: tuple[int, int],
    rows: int,
    lanes: int,
) -> te.Tensor:
    """Return the depthwise convolution of NHWC `data` with ``(kh, kw, c)`` weights."""
    kh, kw, _ = (int(s) for s in weight.shape)
    source = with_border(data, padding)
    ry = te.reduce_axis((0, kh), name="ry")
    rx = te.reduce_axis((0, kw), name="rx")
    return te.compute(
        out,
        lambda b, y, x, c: te.sum(
            source[b, y * stride[0] + ry * dilation[0], x * stride[1] + rx * dilation[1], c]
            * weight[ry, rx, c],
            axis=[ry, rx],
        ),
        name="depthwise",
        attrs={ROLE: "depthwise", "hios.rows": rows, "hios.lanes": lanes},
    )


def schedule_depthwise(func: tirx.PrimFunc) -> s_tir.Schedule | None:
    """Schedule a fused kernel that holds a `te_depthwise`; None for any other."""
    sch = s_tir.Schedule(func)
    main = role_block(sch, "depthwise")
    if main is None:
        return None
    rows = int(annotation(sch, main, "hios.rows"))
    lanes = int(annotation(sch, main, "hios.lanes"))
    pad = role_block(sch, "pad")
    if pad is not None:
        sch.compute_inline(pad)
    out = inline_epilogue(sch, main)
    if out is None:
        out = sch.cache_write(main, 0, "local")
    else:
        sch.set_scope(main, 0, "local")
    n, y, x, c, ry, rx = sch.get_loops(main)
    xo, xi = sch.split(x, [None, rows])
    co, ci = sch.split(c, [None, lanes])
    sch.reorder(n, y, xo, co, ry, rx, xi, ci)
    sch.reverse_compute_at(out, co, preserve_unit_loops=True)
    sch.vectorize(sch.get_loops(out)[-1])
    sch.vectorize(ci)
    sch.unroll(xi)
    sch.unroll(ry)
    sch.unroll(rx)
    sch.parallel(sch.fuse(n, y))
    sch.decompose_reduction(main, ry)
    return sch
