"""Local response normalisation across channels, recognised and written as one operator.

The ONNX importer spells it out as square, pad, 3-D average pooling over a one-channel volume,
power and division: six passes over the data, the pooling of which no layout pass can follow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import ir, te, tirx

from relay_passes.kernels.blocks import ROLE
from relay_passes.straight_line import constant_of, op_name

__all__ = ["match_lrn", "te_lrn"]


def match_lrn(
    divide: Any, definition: Callable[[Any], Any]
) -> tuple[Any, int, float, float, float] | None:
    """Recognise ``x / (bias + alpha * mean of x² over size channels) ** beta``.

    Parameters
    ----------
    divide : tvm.ir.Call
        The final division.
    definition : callable
        Maps a variable to the call that defines it, or None.

    Returns
    -------
    tuple or None
        ``(x, size, alpha, bias, beta)``, with `alpha` the factor of the mean.
    """
    x, denominator = divide.args
    power = _made(definition(denominator), "relax.power")
    beta = _scalar(power, 1)
    added = _made(definition(power.args[0]), "relax.add") if power is not None else None
    bias = _scalar(added, 1)
    scaled = _made(definition(added.args[0]), "relax.multiply") if added is not None else None
    alpha = _scalar(scaled, 1)
    if scaled is None or alpha is None or bias is None or beta is None:
        return None
    chain = scaled.args[0]
    attrs = None
    for name in ("relax.squeeze", "relax.nn.avg_pool3d", "relax.expand_dims"):
        call = _made(definition(chain), name)
        if call is None:
            return None
        if name == "relax.nn.avg_pool3d":
            attrs = call.attrs
        chain = call.args[0]
    square = _made(definition(chain), "relax.multiply")
    if square is None or attrs is None:
        return None
    if not (square.args[0].same_as(x) and square.args[1].same_as(x)):
        return None
    pool, pad = [int(s) for s in attrs.pool_size], [int(p) for p in attrs.padding]
    before, after = pad[0], pad[3]
    if (
        pool[1:] != [1, 1]
        or not bool(attrs.count_include_pad)
        or before + after + 1 != pool[0]
        or before != (pool[0] - 1) // 2
        or [int(s) for s in attrs.strides] != [1, 1, 1]
        or [int(d) for d in attrs.dilation] != [1, 1, 1]
    ):
        return None
    return x, pool[0], alpha, bias, beta


def te_lrn(
    data: te.Tensor, axis: int, size: int, alpha: float, bias: float, beta: float
) -> te.Tensor:
    """Return the tensor expression of LRN over `axis` of `data`."""
    channels = data.shape[axis]
    dtype = data.dtype
    before = (size - 1) // 2

    def window(*index: Any) -> Any:
        total = tirx.const(0.0, dtype)
        for step in range(size):
            channel = index[axis] + (step - before)
            at = (*index[:axis], channel, *index[axis + 1 :])
            value = data(*at)
            total = total + tirx.if_then_else(
                tirx.all(channel >= 0, channel < channels), value * value, tirx.const(0.0, dtype)
            )
        return total

    def normalised(*index: Any) -> Any:
        inner = window(*index) * tirx.const(alpha / size, dtype) + tirx.const(bias, dtype)
        if beta == 0.75:
            # x ** 0.75 = sqrt(x) * sqrt(sqrt(x)): exact to rounding, and a hardware instruction.
            root = tirx.sqrt(inner)
            return data(*index) / (root * tirx.sqrt(root))
        if beta == 0.5:
            return data(*index) / tirx.sqrt(inner)
        return data(*index) / tirx.power(inner, tirx.const(beta, dtype))

    return te.compute(data.shape, normalised, name="lrn", attrs={ROLE: "lrn", "hios.axis": axis})


def _made(call: Any, name: str) -> Any:
    return call if isinstance(call, ir.Call) and op_name(call) == name else None


def _scalar(call: Any, position: int) -> float | None:
    if call is None:
        return None
    array = constant_of(call.args[position])
    return float(array) if array is not None and array.size == 1 else None
