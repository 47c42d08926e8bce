"""Wavefront: waves of ready chains with a barrier behind each.

The plan that Rammer (L. Ma et al., OSDI 2020, section 4.3, wavefront scheduling) and RAF (the
compiler of that name, its wavefront stream pass) make: take the operators that are ready,
extend each into a chain as long as it has one successor that needs nothing else outside the
chain, run the chains of this wave at once, and wait for all of them.

A wave of more chains than the device has streams puts several on one stream, the longest first
on the stream with the least work.
"""

from hios.costs.protocol import Costs
from hios.ir.graph import OpGraph
from hios.ir.ids import OpId
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.schedulers.dag import OpDag, op_dag
from hios.schedulers.registry import register
from hios.schedulers.single_device import chosen_device, staged_schedule

__all__ = ["wavefront"]


@register("wavefront", source="Rammer, OSDI 2020; RAF")
def wavefront(graph: OpGraph, machine: Machine, costs: Costs, *, device: int = 0) -> Schedule:
    """Run waves of ready chains, one stage each.

    Parameters
    ----------
    graph, machine, costs
        What to run, where, and how long it takes.
    device
        Where everything runs.

    Raises
    ------
    UnknownDevice
        When the machine has no such device.

    Notes
    -----
    O(V log V + E + V·streams).
    """
    where = chosen_device(machine, device)
    dag = op_dag(graph)
    times = dag.times_us(costs, where)
    n_streams = machine.devices[where].streams
    stages = []
    for chains in waves(dag):
        lanes: list[list[OpId]] = [[] for _ in range(min(n_streams, len(chains)))]
        load = [0.0] * len(lanes)
        length = [sum(times[v] for v in chain) for chain in chains]
        for index in sorted(range(len(chains)), key=lambda i: (-length[i], i)):
            lane = min(range(len(lanes)), key=lambda k: (load[k], len(lanes[k]), k))
            lanes[lane].extend(dag.ops[v] for v in chains[index])
            load[lane] += length[index]
        stages.append(lanes)
    widest = max((len(lanes) for lanes in stages), default=0)
    return staged_schedule("wavefront", stages, where, {"waves": len(stages), "streams": widest})


def waves(dag: OpDag) -> list[list[list[int]]]:
    """Return the chains of each wave, as positions.

    Examples
    --------
    A fork of two chains that join again:

    >>> waves(OpDag((0, 1, 2, 3, 4), ((), (0,), (0,), (1,), (2, 3)),
    ...             ((1, 2), (3,), (4,), (4,), ())))
    [[[0]], [[1, 3], [2]], [[4]]]
    """
    waits = [len(before) for before in dag.preds]
    ready = [v for v, count in enumerate(waits) if count == 0]
    found = []
    while ready:
        chains = []
        for head in ready:
            chain = [head]
            while True:
                after = dag.succs[chain[-1]]
                if len(after) != 1 or waits[after[0]] != 1:
                    break
                chain.append(after[0])
            chains.append(chain)
        ready = []
        for chain in chains:
            inside = set(chain)
            for v in chain:
                for w in dag.succs[v]:
                    if w not in inside:
                        waits[w] -= 1
                        if waits[w] == 0:
                            ready.append(w)
        ready.sort()
        found.append(chains)
    return found
