"""Merged operators: what they cost, and how a schedule that chose one is timed.

A merge replaces operators that read one input by a single larger one (IOS, MLSys 2021, section
4.1: convolutions stacked along their output channels, the smaller kernels padded with zeros).
`OpGraph.alternatives` offers merges; `Schedule.alternatives` names those chosen.

In a schedule the members of a chosen merge stand one after another on one stream, on a staged
device in one stage. The merged operator runs in the place of the first member; the others take
no time. `ChosenCosts` says just that to whatever times a schedule, so simulator and schedulers
need no case of their own for merges.

`merge_candidates` finds what may be merged from what the operators say of themselves:
``kind`` ``conv2d``, ``attrs["groups"]`` 1, and equal ``attrs["stride"]`` (any text or number).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Protocol, runtime_checkable

from hios.costs.protocol import Costs, Stage
from hios.errors import InvalidCosts, InvalidOption
from hios.ir.graph import Alternative, Operator, OpGraph
from hios.ir.ids import DeviceId, OpId, TensorId
from hios.ir.schedule import Schedule

__all__ = [
    "AlternativeCosts",
    "ChosenCosts",
    "alternative_us",
    "costs_of_schedule",
    "merge_candidates",
    "offer_merges",
]


@runtime_checkable
class AlternativeCosts(Protocol):
    """Costs that know merged operators as well."""

    def alternative_us(self, alternative: Alternative, device: DeviceId) -> float | None:
        """Return the solo time of a merged operator; None when it is not known."""
        ...


def alternative_us(costs: Costs, alternative: Alternative, device: DeviceId) -> float | None:
    """Return the solo time of a merged operator.

    Parameters
    ----------
    costs
        Asked first, when they are `AlternativeCosts`.
    alternative
        Its ``attrs["time_us"]`` is the next source.
    device
        Where it would run.

    Returns
    -------
    float or None
        µs; None when nobody knows, and then the merge must not be chosen.

    Raises
    ------
    InvalidCosts
        When the time is NaN, infinite or negative.
    """
    time: float | None = None
    if isinstance(costs, AlternativeCosts):
        time = costs.alternative_us(alternative, device)
    if time is None and "time_us" in alternative.attrs:
        time = float(alternative.attrs["time_us"])
    if time is not None and not 0.0 <= time < math.inf:
        raise InvalidCosts(
            f"alternative {alternative.name!r} takes {time} µs; a time must be finite and not "
            "negative"
        )
    return time


class ChosenCosts:
    """Costs under which some alternatives are chosen.

    Parameters
    ----------
    graph
        Offers the alternatives.
    costs
        Of the same graph.
    names
        The alternatives chosen; no operator may be a member of two of them.

    Raises
    ------
    InvalidOption
        When the graph offers no such alternative, or two chosen ones overlap.
    """

    def __init__(self, graph: OpGraph, costs: Costs, names: Sequence[str]) -> None:
        self._costs = costs
        offered = {alternative.name: alternative for alternative in graph.alternatives}
        self._chosen: dict[OpId, Alternative] = {}
        for name in names:
            if name not in offered:
                known = ", ".join(offered) or "none"
                raise InvalidOption(
                    f"graph {graph.name!r} offers no alternative {name!r}; it offers {known}"
                )
            for op in offered[name].members:
                if op in self._chosen:
                    raise InvalidOption(
                        f"alternatives {self._chosen[op].name!r} and {name!r} both replace "
                        f"operator {graph.operators[op].name!r}; choose one"
                    )
                self._chosen[op] = offered[name]

    def operator_us(self, op: OpId, device: DeviceId) -> float:
        """Return the merged time for the first member, 0 for the others."""
        alternative = self._chosen.get(op)
        if alternative is None:
            return self._costs.operator_us(op, device)
        if op != alternative.members[0]:
            return 0.0
        time = alternative_us(self._costs, alternative, device)
        if time is None:
            raise InvalidCosts(
                f"no time is known for the chosen alternative {alternative.name!r} on device "
                f"{device}; measure it, or schedule without alternatives"
            )
        return time

    def stage_us(self, groups: Stage, device: DeviceId) -> float:
        """Return the time of concurrent groups.

        How a merged operator shares a device with others is not known, so it takes its turn
        after the groups that have none.
        """
        return self.stage_us_many([groups], device)[0]

    def stage_us_many(self, stages: Sequence[Stage], device: DeviceId) -> list[float]:
        """Return `stage_us` of each stage."""
        chosen = self._chosen
        plain: list[list[Sequence[OpId]]] = []
        turns: list[float] = []
        for groups in stages:
            apart: list[Sequence[OpId]] = []
            turn = 0.0
            for group in groups:
                if any(op in chosen for op in group):
                    turn += sum(self.operator_us(op, device) for op in group)
                else:
                    apart.append(group)
            plain.append(apart)
            turns.append(turn)
        together = self._costs.stage_us_many(plain, device)
        return [turn + time for turn, time in zip(turns, together, strict=True)]

    def transfer_us(self, tensor: TensorId, src: DeviceId, dst: DeviceId) -> float:
        """Return the time to copy a tensor."""
        return self._costs.transfer_us(tensor, src, dst)


def costs_of_schedule(graph: OpGraph, costs: Costs, schedule: Schedule) -> Costs:
    """Return the costs that a schedule has to be timed with.

    `costs` themselves when the schedule chose no alternative or they are `ChosenCosts`
    already, else `ChosenCosts`. The simulator does this for every schedule it times.
    """
    if not schedule.alternatives or isinstance(costs, ChosenCosts):
        return costs
    return ChosenCosts(graph, costs, schedule.alternatives)


def merge_candidates(graph: OpGraph) -> tuple[tuple[OpId, ...], ...]:
    """Return the largest sets of convolutions that may be merged into one.

    They read one and the same value besides weights, have the same stride, no groups, and one
    output of the same size and dtype (all axes but the channels, ``attrs["channel_axis"]``, by
    default 1). Kernels may differ in size: the smaller ones are padded with zeros. An operator
    that does not tell its groups and stride is left out. Where a compiler has classified its
    convolutions (``attrs["merge_class"]``), only those of one class go together.

    Returns
    -------
    tuple of tuple of OpId
        Sets of at least two, ascending; they read one value, so none depends on another.

    Notes
    -----
    O(V).
    """
    found: dict[tuple[object, ...], list[OpId]] = {}
    for op in graph.operators:
        key = _merge_key(graph, op)
        if key is not None:
            found.setdefault(key, []).append(op.id)
    return tuple(sorted(tuple(ops) for ops in found.values() if len(ops) > 1))


def offer_merges(graph: OpGraph, most: int = 4) -> OpGraph:
    """Return the graph with an alternative for every choice of operators that may be merged.

    Parameters
    ----------
    graph
        Its own alternatives stay.
    most
        Most members of a merge; larger sets offer their subsets only.

    Raises
    ------
    InvalidOption
        When `most` is below 2.

    Notes
    -----
    2^k alternatives for k convolutions of one value, with `most` at least k.
    """
    if most < 2:
        raise InvalidOption(f"merges of at most {most} operators; need at least 2")
    offers = list(graph.alternatives)
    known = {offer.name for offer in offers}
    for candidates in merge_candidates(graph):
        for size in range(2, min(most, len(candidates)) + 1):
            for members in combinations(candidates, size):
                name = "merge:" + "+".join(graph.operators[op].name for op in members)
                if name not in known:
                    kernel = "merged_" + "_".join(str(op) for op in members)
                    offers.append(Alternative(name, members, "merge", kernel))
    return replace(graph, alternatives=tuple(offers))


def _merge_key(graph: OpGraph, op: Operator) -> tuple[object, ...] | None:
    """Return what convolutions must have in common to be merged; None for other operators."""
    if op.kind != "conv2d" or op.attrs.get("groups") != 1 or "stride" not in op.attrs:
        return None
    values = {graph.root(t) for t in op.inputs if not graph.is_weight(t)}
    if len(values) != 1 or len(op.outputs) - int(op.attrs.get("workspaces", 0)) != 1:
        return None
    written = graph.tensors[op.outputs[0]]
    axis = int(op.attrs.get("channel_axis", 1))
    if not 0 <= axis < len(written.shape):
        return None
    size = written.shape[:axis] + written.shape[axis + 1 :]
    return (*values, op.attrs["stride"], op.attrs.get("merge_class"), axis, size, written.dtype)
