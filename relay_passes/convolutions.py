"""What the convolutions of a network are, known by their weights from import to kernel.

`RecordConvolutions` reads them while they still are ``nn.conv2d`` of NCHW data and OIHW weights,
before layouts are chosen, and notes their static facts in the attributes of ``main``.
`relay_passes.extract` finds the notes of an operator again through the weights that its kernel
takes. Packing permutes weights and adds zeros, whatever the target, so a convolution is
identified by a sum over its non-zero weights, which neither changes. Two convolutions of one
identity (the same weights on inputs of one size) cannot be told apart; both stay without facts.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import ir, relax

from relay_passes.straight_line import constant_of, dtype_of, op_name, static_shape

__all__ = [
    "Convolution",
    "ConvolutionFacts",
    "RecordConvolutions",
    "convolution_identity",
    "find_convolutions",
    "recorded_convolutions",
]

CONVOLUTIONS = "hios.convolutions"
"""Attribute of ``main``: facts by identity, as JSON."""

_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
_PIECE = 1 << 18  # weights hashed at a time: the temporaries stay in the cache

Facts = dict[str, str | int | float]


@dataclass(frozen=True, slots=True)
class ConvolutionFacts:
    """Static facts of one convolution, for `hios.ir.Operator.attrs`.

    Attributes
    ----------
    shape
        Of its output, ``(n, c, h, w)``.
    attrs
        ``convolution`` (its identity), ``groups``, ``stride``, ``dilation``, ``padding`` (top,
        left, bottom, right), ``kernel_size``; ``merge_class`` where it may be merged with
        others of that class.
    """

    shape: tuple[int, ...]
    attrs: Mapping[str, str | int | float]


@dataclass(frozen=True, slots=True)
class Convolution:
    """One ``nn.conv2d`` with constant weights.

    Attributes
    ----------
    var
        The variable that it is bound to.
    data
        What it reads.
    weight
        OIHW.
    shape
        Of its output, ``(n, c, h, w)``.
    stride, dilation
        Vertical, horizontal.
    padding
        Top, left, bottom, right.
    groups, dtype
        As in the call.
    identity
        See `convolution_identity`.
    """

    var: Any
    data: Any
    weight: np.ndarray[Any, Any]
    shape: tuple[int, ...]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, ...]
    groups: int
    dtype: str
    identity: str

    @property
    def merge_key(self) -> tuple[Any, ...] | None:
        """What convolutions that can be merged have in common; None for one that cannot be.

        Centres of kernels must meet on the grid of a dilated kernel, so the paddings must
        agree modulo the dilation.
        """
        if self.groups != 1:
            return None
        n, _, h, w = self.shape
        phase = tuple(self.padding[i] % self.dilation[i] for i in range(2))
        return (self.data, self.stride, self.dilation, phase, n, h, w, self.dtype)


def convolution_identity(weight: np.ndarray[Any, Any], elements: int) -> str:
    """Return what identifies a convolution through all layouts.

    Parameters
    ----------
    weight
        In any order, with any number of zeros added.
    elements
        Of the output; tells apart convolutions that share weights.

    Notes
    -----
    A 64-bit sum over the mixed bits of all weights that are not zero; O(weights).
    """
    flat = np.ascontiguousarray(weight).reshape(-1)
    bits = flat.view(f"u{flat.dtype.itemsize}")
    total = 0
    for start in range(0, len(bits), _PIECE):
        word = bits[start : start + _PIECE].astype(np.uint64)
        for factor in _MIX:  # zero stays zero
            word *= factor
            word ^= word >> np.uint64(29)
        total += int(word.sum(dtype=np.uint64))
    return f"{total & 0xFFFFFFFFFFFFFFFF:016x}.{elements}"


def find_convolutions(func: Any) -> list[Convolution]:
    """Return the convolutions of ``main`` in order of execution.

    Those with weights computed at run time, dynamic shapes or other layouts are left out.
    """
    found = []
    if not isinstance(func.body, relax.SeqExpr):
        return []
    for block in func.body.blocks:
        for binding in block.bindings:
            conv = _convolution(binding.var, getattr(binding, "value", None))
            if conv is not None:
                found.append(conv)
    return found


def _convolution(var: Any, call: Any) -> Convolution | None:
    if not isinstance(call, ir.Call) or op_name(call) != "relax.nn.conv2d":
        return None
    attrs, weight = call.attrs, constant_of(call.args[1])
    shape = static_shape(call)
    layouts = (attrs.data_layout, attrs.kernel_layout, attrs.out_layout or "NCHW")
    if weight is None or shape is None or layouts != ("NCHW", "OIHW", "NCHW"):
        return None
    if dtype_of(call) != dtype_of(call.args[0]) or weight.dtype.kind != "f":
        return None
    return Convolution(
        var=var,
        data=call.args[0],
        weight=weight,
        shape=shape,
        stride=(int(attrs.strides[0]), int(attrs.strides[1])),
        dilation=(int(attrs.dilation[0]), int(attrs.dilation[1])),
        padding=tuple(int(p) for p in attrs.padding),
        groups=int(attrs.groups),
        dtype=dtype_of(call),
        identity=convolution_identity(weight, math.prod(shape)),
    )


@tvm.transform.module_pass(opt_level=0, name="HiosRecordConvolutions")
class RecordConvolutions:
    """Module pass: note the facts of the convolutions of ``main`` in its attributes."""

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Annotate ``main``."""
        func = mod["main"]
        found = find_convolutions(func)
        known = Counter(conv.identity for conv in found)
        classes: dict[tuple[Any, ...], int] = {}
        notes = {}
        for conv in found:
            if known[conv.identity] > 1:
                continue
            attrs: Facts = {
                "convolution": conv.identity,
                "groups": conv.groups,
                "stride": _by(conv.stride),
                "dilation": _by(conv.dilation),
                "padding": _by(conv.padding),
                "kernel_size": _by(conv.weight.shape[2:]),
            }
            if conv.merge_key is not None:
                attrs["merge_class"] = classes.setdefault(conv.merge_key, len(classes))
            notes[conv.identity] = [conv.shape, attrs]
        mod = tvm.IRModule(dict(mod.functions_items()), attrs=mod.attrs)
        mod.update_func(mod.get_global_var("main"), func.with_attr(CONVOLUTIONS, json.dumps(notes)))
        return mod


def recorded_convolutions(func: Any) -> dict[str, ConvolutionFacts]:
    """Return what `RecordConvolutions` noted in ``main``, by identity."""
    if func.attrs is None or CONVOLUTIONS not in func.attrs:
        return {}
    notes = json.loads(str(func.attrs[CONVOLUTIONS]))
    return {name: ConvolutionFacts(tuple(shape), attrs) for name, (shape, attrs) in notes.items()}


def _by(extents: tuple[int, ...]) -> str:
    return "x".join(map(str, extents))
