"""Merged operators: what they cost, and how a schedule that chose one is timed.

A merge replaces operators that read one input by a single larger one (IOS, MLSys 2021, section
4.1: convolutions stacked along their output channels, the smaller kernels padded with zeros).
`OpGraph.alternatives` offers merges; `Schedule.alternatives` names those chosen.

In a schedule the members of a chosen merge stand one after another on one stream, on a staged
device in one stage. The merged operator runs in the place of the first member; the others take
no time. `ChosenCosts` says just that to whatever times a schedule, so simulator and schedulers
need no case of their own for merges.
"""

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from hios.costs.protocol import Costs, Stage
from hios.errors import InvalidCosts, InvalidOption
from hios.ir.graph import Alternative, OpGraph
from hios.ir.ids import DeviceId, OpId, TensorId
from hios.ir.schedule import Schedule

__all__ = ["AlternativeCosts", "ChosenCosts", "alternative_us", "costs_of_schedule"]


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

    `costs` themselves when the schedule chose no alternative, `ChosenCosts` otherwise.
    """
    if not schedule.alternatives:
        return costs
    return ChosenCosts(graph, costs, schedule.alternatives)
