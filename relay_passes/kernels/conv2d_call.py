"""What a ``relax.nn.conv2d`` asks for, in plain numbers, where it is one that kernels here compute.

They take channels-last results and ``HWIO`` weights; data may be channels-last or planar.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from relay_passes.straight_line import dtype_of, static_shape

__all__ = ["Conv2dCall", "read_conv2d"]


@dataclass(frozen=True, slots=True)
class Conv2dCall:
    """One convolution.

    Attributes
    ----------
    kernel
        Shape of the weight, ``(kh, kw, ic, oc)`` with the input channels of one group.
    out
        Shape of the result, ``(n, oh, ow, oc)``.
    groups, stride, padding, dilation
        As in ONNX; padding is top, left, bottom, right.
    is_planar
        Whether the data are ``NCHW``, not ``NHWC``.
    """

    kernel: tuple[int, ...]
    out: tuple[int, ...]
    groups: int
    stride: tuple[int, int]
    padding: tuple[int, ...]
    dilation: tuple[int, int]
    is_planar: bool

    @property
    def is_depthwise(self) -> bool:
        """Whether each channel is by itself; the kernels for that take channels-last data."""
        alone = self.kernel[2] == 1 and self.kernel[3] == self.groups
        return alone and self.groups > 1 and not self.is_planar


def read_conv2d(call: Any, dtypes: tuple[str, ...]) -> Conv2dCall | None:
    """Return what a call of ``relax.nn.conv2d`` asks for; None where TVM's default must do it.

    Parameters
    ----------
    call : tvm.relax.Call
        The call.
    dtypes : tuple of str
        Types that there are kernels for; the result has the type of the data.
    """
    attrs = call.attrs
    data, weight = call.args
    kernel, out = static_shape(weight), static_shape(call)
    if (
        attrs.data_layout not in ("NHWC", "NCHW")
        or attrs.out_layout != "NHWC"
        or attrs.kernel_layout != "HWIO"
        or static_shape(data) is None
        or kernel is None
        or out is None
        or math.prod(out) == 0
        or dtype_of(data) not in dtypes
        or dtype_of(call) != dtype_of(data)
    ):
        return None
    return Conv2dCall(
        kernel,
        out,
        int(attrs.groups),
        (int(attrs.strides[0]), int(attrs.strides[1])),
        tuple(int(p) for p in attrs.padding),
        (int(attrs.dilation[0]), int(attrs.dilation[1])),
        attrs.data_layout == "NCHW",
    )
