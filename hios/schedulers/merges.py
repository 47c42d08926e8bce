"""The merged operators that a graph offers, by the positions that they replace."""

from hios.costs.protocol import Costs
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId
from hios.merge import alternative_us
from hios.schedulers.dag import OpDag

__all__ = ["Offers", "known_merges"]

Offers = dict[tuple[int, ...], tuple[float, str]]
"""Positions replaced, ascending → (time in µs, name of the alternative)."""


def known_merges(graph: OpGraph, costs: Costs, device: DeviceId, dag: OpDag) -> Offers:
    """Return the alternatives whose time on a device is known.

    Of several for the same operators, the fastest, then the first.
    """
    position = {op: index for index, op in enumerate(dag.ops)}
    offers: Offers = {}
    for alternative in graph.alternatives:
        time = alternative_us(costs, alternative, device)
        if time is not None:
            members = tuple(sorted(position[op] for op in alternative.members))
            if members not in offers or time < offers[members][0]:
                offers[members] = (time, alternative.name)
    return offers
