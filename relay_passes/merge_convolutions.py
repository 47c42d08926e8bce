"""Merge convolutions of one input into one, and split its result (IOS, MLSys 2021, section 4.1).

Weights are stacked along the output channels at compile time. A smaller kernel is padded with
zeros to the extent of the largest, at the place where both read the same pixels: with padding p
of its own and P of the merged one, a kernel starts (P − p) / dilation taps in. Constant biases
are stacked too; an activation moves in front of the split when all members have the same one,
else each follows its own slice.

The merged convolution adds products with zero to what the members compute, so finite inputs give
the same numbers up to the order of additions; an infinity or NaN within the larger window spreads
to the smaller kernels' outputs.

A slice is a copy, but not everywhere: a concatenation copies its arguments anyway and takes
slices as they are, and one of neighbouring slices is the merged result itself (the two expanding
convolutions of a SqueezeNet module).

The passes run after simplification and before layouts are chosen, on NCHW data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import ir, relax

from hios.errors import InvalidOption
from relay_passes.convolutions import Convolution, find_convolutions
from relay_passes.straight_line import (
    StraightLineRewriter,
    constant_of,
    op_name,
    static_shape,
    tensor_constant,
)

__all__ = ["MergeConvolutions", "OfferedConvolutions", "merged_convolution"]

Merges = Sequence[Sequence[str]]
"""Each merge: the identities of its members (`relay_passes.convolutions`)."""

_ACTIVATIONS = frozenset(
    f"relax.{name}"
    for names in (
        "nn.relu nn.relu6 nn.leakyrelu nn.gelu nn.gelu_tanh nn.selu nn.silu nn.softplus",
        "sigmoid tanh clip abs",
    )
    for name in names.split(" ")
)


@dataclass(frozen=True, slots=True)
class _Member:
    """A convolution with the epilogue that may move into the merge.

    `chain` holds its variables in order: convolution, bias, activation (as far as there are).
    `place` is the first concatenation that reads its end, with the position there; `is_joined`
    tells that only concatenations read it.
    """

    conv: Convolution
    bias: np.ndarray[Any, Any] | None
    activation: Any
    chain: tuple[Any, ...]
    place: tuple[int, int]
    is_joined: bool


@dataclass(frozen=True, slots=True)
class _Slice:
    """Channels of a merged value, from `start` up to `stop`; `part` holds a copy of them."""

    value: Any
    start: int
    stop: int
    part: Any


@tvm.transform.module_pass(opt_level=0, name="HiosMergeConvolutions")
class MergeConvolutions:
    """Module pass: merge the chosen convolutions of ``main``.

    Parameters
    ----------
    merges : sequence of sequence of str
        Identities of the members of each merge, from ``Operator.attrs["convolution"]``.

    Raises
    ------
    InvalidOption
        When the pass runs: a member is unknown, in two merges, or does not fit the others.
    """

    def __init__(self, merges: Merges) -> None:
        self.merges = merges

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Rewrite ``main``."""
        return _Merger(mod, self.merges).run() if self.merges else mod


@tvm.transform.module_pass(opt_level=0, name="HiosOfferedConvolutions")
class OfferedConvolutions:
    """Module pass: replace ``main`` by the merges on offer alone, side by side.

    Each merge reads an input of its own and consists of the merged convolution and the slices
    of its result (without those that a concatenation takes), so that its time can be found out.
    A pooling over one pixel behind each value keeps the layout that it has within the network;
    it and transpositions of inputs and outputs are no part of the merge.

    Parameters
    ----------
    merges : sequence of sequence of str
        As in `MergeConvolutions`; a single convolution stands for itself, for comparison.
    """

    def __init__(self, merges: Merges) -> None:
        self.merges = merges

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Rewrite ``main``."""
        finder = _Merger(mod, ())
        finder.read()
        chosen = [finder.members(merge, least=1) for merge in self.merges]
        params = [
            relax.Var(f"data{i}", members[0].conv.data.ty) for i, members in enumerate(chosen)
        ]
        bb = relax.BlockBuilder()
        with bb.function("main", params):
            with bb.dataflow():
                values = []
                for param, members in zip(params, chosen, strict=True):
                    value, together = _emit_merged(bb, param, members)
                    parts = _emit_parts(bb, value, members, together)
                    apart = [
                        one.part
                        for one, member in zip(parts, members, strict=True)
                        if len(members) > 1 and not (together and member.is_joined)
                    ]
                    values += apart or [value]
                out = bb.emit_output(relax.Tuple([bb.emit(_framed(v)) for v in values]))
            bb.emit_func_output(out)
        return bb.get()


def _framed(value: Any) -> Any:
    return relax.op.nn.max_pool2d(value, pool_size=(1, 1))


def merged_convolution(
    members: Sequence[Convolution],
) -> tuple[np.ndarray[Any, Any], tuple[int, int, int, int]]:
    """Return the weights and the padding of one convolution for several.

    Parameters
    ----------
    members
        Of one `Convolution.merge_key`.

    Returns
    -------
    weight : OIHW, the members' output channels one after another
    padding : top, left, bottom, right
    """
    first = members[0]
    if len(members) == 1:
        top, left, bottom, right = first.padding
        return first.weight, (top, left, bottom, right)
    image = static_shape(first.data) or (0, 0, 0, 0)
    before, taps, after = [], [], []
    for axis in range(2):
        dilation, stride = first.dilation[axis], first.stride[axis]
        most = max(m.padding[axis] for m in members)
        reach = max(
            (most - m.padding[axis]) // dilation + m.weight.shape[2 + axis] for m in members
        )
        # The last tap of the last output: what the image does not hold is padded.
        last = (first.shape[2 + axis] - 1) * stride + (reach - 1) * dilation - most
        before.append(most)
        taps.append(reach)
        after.append(max(0, last - (image[2 + axis] - 1)))
    channels = sum(m.weight.shape[0] for m in members)
    weight = np.zeros((channels, first.weight.shape[1], *taps), dtype=first.weight.dtype)
    start = 0
    for m in members:
        own, _, high, wide = m.weight.shape
        y, x = ((before[i] - m.padding[i]) // first.dilation[i] for i in range(2))
        weight[start : start + own, :, y : y + high, x : x + wide] = m.weight
        start += own
    return weight, (before[0], before[1], after[0], after[1])


def _emit_merged(bb: Any, data: Any, members: Sequence[_Member]) -> tuple[Any, bool]:
    """Emit a merged convolution; return its value, and whether it is activated.

    That is so too when no member has an activation.
    """
    first = members[0].conv
    weight, padding = merged_convolution([m.conv for m in members])
    value = bb.emit(
        relax.op.nn.conv2d(
            data,
            tensor_constant(weight),
            strides=list(first.stride),
            padding=list(padding),
            dilation=list(first.dilation),
        ),
        "merged",
    )
    channels = [m.conv.weight.shape[0] for m in members]
    if any(m.bias is not None for m in members):
        bias = np.zeros(sum(channels), dtype=first.dtype)
        start = 0
        for m, own in zip(members, channels, strict=True):
            if m.bias is not None:
                bias[start : start + own] = m.bias
            start += own
        value = bb.emit(relax.op.add(value, tensor_constant(bias.reshape(1, -1, 1, 1))))
    together = all(_same_activation(members[0].activation, m.activation) for m in members)
    if together and members[0].activation is not None:
        value = bb.emit(_activated(members[0].activation, value))
    return value, together


def _emit_parts(bb: Any, value: Any, members: Sequence[_Member], together: bool) -> list[_Slice]:
    """Emit the slices of a merged value, activated; unused ones are dead code."""
    parts, start = [], 0
    for m in members:
        stop = start + m.conv.weight.shape[0]
        part = bb.emit(_slice(value, start, stop), "part")
        if m.activation is not None and not together:
            part = bb.emit(_activated(m.activation, part))
        parts.append(_Slice(value, start, stop, part))
        start = stop
    return parts


def _slice(value: Any, start: int, stop: int) -> Any:
    return relax.op.strided_slice(value, [1], [start], [stop], assume_inbound=True)


class _Merger(StraightLineRewriter):
    def __init__(self, mod: Any, merges: Merges) -> None:
        super().__init__(mod)
        self.merges = merges
        self.found: dict[str, list[Convolution]] = {}
        self.call: dict[Any, Any] = {}  # variable of the old function -> call it is bound to
        self.reader: dict[Any, Any] = {}  # variable -> the variable of its last reader
        self.first: dict[Any, list[_Member]] = {}  # variable of the first member -> members
        self.gone: set[Any] = set()  # variables that the merges replace
        self.joined: Counter[Any] = Counter()  # how often concatenations read a variable
        self.place: dict[Any, tuple[int, int]] = {}
        self.slices: dict[Any, _Slice] = {}  # by the new variable that holds it

    def read(self) -> None:
        """Learn the old function."""
        func = self.mod["main"]
        super()._count_uses(func.body)
        for conv in find_convolutions(func):
            self.found.setdefault(conv.identity, []).append(conv)
        for block in func.body.blocks:
            for binding in block.bindings:
                value = getattr(binding, "value", None)
                if isinstance(value, ir.Call):
                    self.call[binding.var] = value
                    if op_name(value) == "relax.concat" and isinstance(value.args[0], relax.Tuple):
                        for index, field in enumerate(value.args[0].fields):
                            self.joined[field] += 1
                            self.place.setdefault(field, (len(self.call), index))
                    for arg in value.args:
                        if isinstance(arg, relax.Var):
                            self.reader[arg] = binding.var

    def members(self, merge: Sequence[str], least: int = 2) -> list[_Member]:
        """Return the members of a merge in the order of the concatenation that reads them.

        Raises
        ------
        InvalidOption
            When they cannot be merged.
        """
        convs = []
        for identity in merge:
            twins = self.found.get(identity, [])
            if len(twins) != 1:
                raise InvalidOption(
                    f"convolution {identity!r} occurs {len(twins)} times in this network; name "
                    "convolutions by attrs['convolution'] of the operators compiled from it"
                )
            convs += twins
        keys = {conv.merge_key for conv in convs}
        if len(set(merge)) < max(least, len(merge)) or len(keys) != 1 or None in keys:
            raise InvalidOption(
                f"convolutions {', '.join(merge) or 'none'} cannot be merged; need at least "
                f"{least} of one input, stride, dilation and output size, without groups"
            )
        return sorted((self._member(conv) for conv in convs), key=lambda member: member.place)

    def _member(self, conv: Convolution) -> _Member:
        chain = [conv.var]
        bias = activation = None
        follower = self._only_reader(chain[-1])
        if follower is not None and op_name(self.call[follower]) == "relax.add":
            bias = self._bias(self.call[follower], conv)
            if bias is not None:
                chain.append(follower)
                follower = self._only_reader(chain[-1])
        if follower is not None and op_name(self.call[follower]) in _ACTIVATIONS:
            activation = self.call[follower]
            chain.append(follower)
        end = chain[-1]
        joined = self.joined[end]
        place = self.place.get(end, (len(self.call), 0))
        return _Member(conv, bias, activation, tuple(chain), place, 0 < joined == self.uses[end])

    def _only_reader(self, var: Any) -> Any:
        return self.reader.get(var) if self.uses[var] == 1 else None

    def _bias(self, add: Any, conv: Convolution) -> np.ndarray[Any, Any] | None:
        """Return the constant that `add` adds to each output channel, or None."""
        left, right = add.args
        array = constant_of(right if left.same_as(conv.var) else left)
        if array is None or array.ndim > 4 or static_shape(add) != conv.shape:
            return None
        wide = array.reshape((1,) * (4 - array.ndim) + array.shape)
        if any(extent != 1 for axis, extent in enumerate(wide.shape) if axis != 1):
            return None
        return np.broadcast_to(wide.reshape(-1), (conv.shape[1],))

    # -- the walk -----------------------------------------------------------------------------

    def _count_uses(self, body: Any) -> None:
        self.read()
        position = {var: index for index, var in enumerate(self.call)}
        taken = Counter(identity for merge in self.merges for identity in set(merge))
        for identity, count in taken.items():
            if count > 1:
                raise InvalidOption(f"convolution {identity!r} is in {count} merges; need one")
        for merge in self.merges:
            members = self.members(merge)
            self.first[min((m.conv.var for m in members), key=position.__getitem__)] = members
            self.gone.update(var for m in members for var in m.chain)

    def rewrite_call(self, call: Any, name: str) -> Any:
        if name != "relax.concat" or call.attrs.axis is None or int(call.attrs.axis) not in (1, -3):
            return call
        if not isinstance(call.args[0], relax.Tuple):
            return call
        runs: list[list[Any]] = []
        for field in call.args[0].fields:
            one, before = self.slices.get(field), self.slices.get(runs[-1][-1]) if runs else None
            if (
                one is not None
                and before is not None
                and one.value.same_as(before.value)
                and one.start == before.stop
            ):
                runs[-1].append(field)
            else:
                runs.append([field])
        fields = [self._joined(run) for run in runs]
        if len(fields) == 1:
            return fields[0]
        return relax.op.concat(fields, axis=1) if len(fields) < sum(map(len, runs)) else call

    def _joined(self, run: list[Any]) -> Any:
        """Return neighbouring slices of one value as one."""
        if len(run) == 1:
            return run[0]
        first, last = self.slices[run[0]], self.slices[run[-1]]
        shape = static_shape(first.value)
        if shape is not None and (first.start, last.stop) == (0, shape[1]):
            return first.value
        return self.emit(_slice(first.value, first.start, last.stop))

    def _bind(self, binding: Any) -> None:
        members = self.first.get(binding.var)
        if members is not None:
            data = self._resolve(members[0].conv.data)
            value, together = _emit_merged(self.bb, data, members)
            parts = _emit_parts(self.bb, value, members, together)
            for member, part in zip(members, parts, strict=True):
                # Only the end of a chain has readers left.
                self.value[member.chain[-1]] = part.part
                if together:
                    self.slices[part.part] = part
        if binding.var not in self.gone:
            super()._bind(binding)


def _activated(activation: Any, value: Any) -> Any:
    return ir.Call(
        activation.op, [value, *activation.args[1:]], activation.attrs, activation.ty_args
    )


def _same_activation(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    return bool(
        op_name(one) == op_name(other)
        and tvm_ffi.structural_equal(one.attrs, other.attrs)
        and len(one.args) == len(other.args)
        and all(
            tvm_ffi.structural_equal(a, b)
            for a, b in zip(one.args[1:], other.args[1:], strict=True)
        )
    )
