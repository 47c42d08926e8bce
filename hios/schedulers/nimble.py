"""Nimble: as many streams as operators can overlap, with the fewest synchronisations.

W. Kwon et al., "Nimble: Lightweight and parallel GPU task scheduling for deep learning",
NeurIPS 2020, section 4.2 and algorithm 1. The minimum equivalent graph (transitive reduction)
keeps an edge u → w only if no other successor of u reaches w. A maximum matching in the
bipartite graph with an edge (left u, right w) for each kept one gives chains, one stream each:
independent operators never share a stream, and every kept edge that was not matched needs one
synchronisation, the least possible.

A device has only so many streams. If there are more chains, a second maximum matching puts
chains that never overlap (the end of one reaches the head of the other) on one stream; if that
is not enough, streams are shared in turn, and the notes say so.
"""

from dataclasses import dataclass

from hios.costs.protocol import Costs
from hios.ir.graph import OpGraph
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.schedulers.dag import OpDag, op_dag
from hios.schedulers.endings import positions
from hios.schedulers.matching import chains_of_matching, maximum_matching
from hios.schedulers.registry import register
from hios.schedulers.single_device import chosen_device, streamed_schedule

__all__ = ["StreamAssignment", "assign_streams", "nimble"]

_MOST_MATCHED = 1000


@dataclass(frozen=True, slots=True)
class StreamAssignment:
    """Nimble's answer for a graph, by position in the topological order.

    Attributes
    ----------
    kept
        Edges of the minimum equivalent graph.
    chains
        One stream each.
    syncs
        Kept edges between different chains; kept edges minus matched ones.
    """

    kept: tuple[tuple[int, int], ...]
    chains: tuple[tuple[int, ...], ...]
    syncs: int


@register("nimble", source="Nimble, NeurIPS 2020")
def nimble(graph: OpGraph, machine: Machine, costs: Costs, *, device: int = 0) -> Schedule:
    """Give independent operators different streams, with the fewest synchronisations.

    Parameters
    ----------
    graph, machine, costs
        What to run and where; times are not looked at.
    device
        Where everything runs.

    Raises
    ------
    UnknownDevice
        When the machine has no such device.

    Notes
    -----
    O(V·E/64 + E·√V). Notes of the schedule: ``chains``, ``syncs`` and ``kept_edges`` of the
    published algorithm; ``streams``, how many it uses here; ``folded``: 0 when each chain has a
    stream of its own, 1 when chains that never overlap share one, 2 when others do as well.
    """
    where = chosen_device(machine, device)
    dag = op_dag(graph)
    below = dag.descendants()
    found = assign_streams(dag, below)
    n_streams = machine.devices[where].streams
    lanes = [list(chain) for chain in found.chains]
    folded = 0
    if len(lanes) > n_streams:
        folded = 1
        lanes = _join_chains(found.chains, below)
    if len(lanes) > n_streams:
        folded = 2
    stream_of = [0] * len(dag)
    for lane, members in enumerate(lanes):
        for v in members:
            stream_of[v] = lane % n_streams
    return streamed_schedule(
        "nimble",
        [(op, stream_of[v]) for v, op in enumerate(dag.ops)],
        where,
        {
            "chains": len(found.chains),
            "syncs": found.syncs,
            "kept_edges": len(found.kept),
            "streams": min(len(lanes), n_streams),
            "folded": folded,
        },
    )


def assign_streams(dag: OpDag, below: list[int] | None = None) -> StreamAssignment:
    """Return chains of a graph, one stream each, and the synchronisations they need.

    Parameters
    ----------
    dag
        The graph.
    below
        `OpDag.descendants`, when they are known already.
    """
    below = dag.descendants() if below is None else below
    kept: list[tuple[int, int]] = []
    neighbours: list[list[int]] = []
    for u, after in enumerate(dag.succs):
        reached = 0
        for w in after:
            reached |= below[w]
        direct = [w for w in after if not reached >> w & 1]
        kept.extend((u, w) for w in direct)
        neighbours.append(direct)
    partner = maximum_matching(neighbours, len(dag))
    n_matched = sum(right >= 0 for right in partner)
    chains = tuple(tuple(chain) for chain in chains_of_matching(partner))
    return StreamAssignment(tuple(kept), chains, len(kept) - n_matched)


def _join_chains(chains: tuple[tuple[int, ...], ...], below: list[int]) -> list[list[int]]:
    """Put chains that run one after the other in any case on one lane.

    The fewest lanes, by a maximum matching; above `_MOST_MATCHED` chains each joins the first
    lane that it may, since the matching has an edge for every two chains in order.
    """
    if len(chains) > _MOST_MATCHED:
        lanes: list[list[int]] = []
        for chain in sorted(chains):
            lane = next((lane for lane in lanes if below[lane[-1]] >> chain[0] & 1), None)
            if lane is None:
                lanes.append(list(chain))
            else:
                lane.extend(chain)
        return lanes
    heads = {chain[0]: index for index, chain in enumerate(chains)}
    head_mask = sum(1 << head for head in heads)
    neighbours = [[heads[v] for v in positions(below[chain[-1]] & head_mask)] for chain in chains]
    partner = maximum_matching(neighbours, len(chains))
    return [
        [v for index in joined for v in chains[index]] for joined in chains_of_matching(partner)
    ]
