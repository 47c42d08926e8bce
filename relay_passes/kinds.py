"""Families of operators by name, for kernels of both Relax and Relay."""

from __future__ import annotations

import re

__all__ = ["kind_from_name"]

# First match in the name decides; heavier families stand before lighter ones.
_KINDS: tuple[tuple[str, str], ...] = (
    (r"conv2d_transpose|conv3d|conv1d|group_conv|conv", "conv2d"),
    (r"depthwise", "depthwise"),
    (r"dense|matmul", "dense"),
    (r"attention", "attention"),
    (r"adaptive_avg_pool|global", "global_pool"),
    (r"pool", "pool"),
    (r"softmax", "softmax"),
    (r"lrn", "lrn"),
    (r"layer_norm|rms_norm|group_norm|instance_norm|batch_norm", "norm"),
    (r"resize", "resize"),
    (r"concat", "concat"),
    (r"split", "split"),
    (r"take|gather", "gather"),
    (r"strided_slice|slice", "slice"),
    (r"transpose|permute|layout|pack_weight", "transpose"),
    (r"mean|sum|max_reduce|min_reduce|argmax|argmin|prod|variance", "reduce"),
    (r"pad", "pad"),
    (r"reshape|flatten|squeeze|expand_dims|broadcast", "copy"),
)


def kind_from_name(name: str) -> str:
    """Return the family that a kernel's or operator's name tells, else ``elementwise``.

    Examples
    --------
    >>> kind_from_name("fused_nn_conv2d_add"), kind_from_name("tanh")
    ('conv2d', 'elementwise')
    """
    for pattern, kind in _KINDS:
        if re.search(pattern, name):
            return kind
    return "elementwise"
