"""The zeros around an image, as a stage of its own that a schedule inlines or computes."""

from __future__ import annotations

from tvm import te, tirx

from relay_passes.kernels.blocks import ROLE

__all__ = ["with_border"]


def with_border(data: te.Tensor, padding: tuple[int, ...]) -> te.Tensor:
    """Return NHWC `data` between zeros; `padding` is top, left, bottom, right.

    The stage has the role ``pad``. Without padding there is none: the data are returned.
    """
    if not any(padding):
        return data
    n, in_h, in_w, channels = (int(s) for s in data.shape)
    top, left, bottom, right = padding
    return te.compute(
        (n, in_h + top + bottom, in_w + left + right, channels),
        lambda b, y, x, c: tirx.if_then_else(
            tirx.all(y >= top, y < in_h + top, x >= left, x < in_w + left),
            data[b, y - top, x - left, c],
            tirx.const(0, data.dtype),
        ),
        name="pad",
        attrs={ROLE: "pad"},
    )
