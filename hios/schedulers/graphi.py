"""Graphi: whenever a stream is free, it takes the ready operator on the longest path.

L. Tang et al., "Scheduling computation graphs of deep learning models on manycore CPUs",
arXiv:1807.09667, 2018 (Graphi), section on critical-path-first scheduling. Ready operators wait
in one queue, keyed by the longest path from them to the exit.

The queue is played through with solo times to fix the order of each stream; the lowest free
stream takes first.
"""

import heapq

from hios.costs.protocol import Costs
from hios.ir.graph import OpGraph
from hios.ir.ids import OpId
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.schedulers.dag import op_dag
from hios.schedulers.registry import register
from hios.schedulers.single_device import chosen_device, streamed_schedule

__all__ = ["graphi"]


@register("graphi", source="Graphi, arXiv:1807.09667, 2018")
def graphi(graph: OpGraph, machine: Machine, costs: Costs, *, device: int = 0) -> Schedule:
    """Let free streams take the ready operator with the longest path to the exit.

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
    O((V + E) log V).
    """
    where = chosen_device(machine, device)
    dag = op_dag(graph)
    times = dag.times_us(costs, where)
    rank = dag.longest_to_exit(times)
    waits = [len(before) for before in dag.preds]
    ready = [(-rank[v], v) for v, count in enumerate(waits) if count == 0]
    heapq.heapify(ready)
    free = list(range(machine.devices[where].streams))
    running: list[tuple[float, int, int]] = []  # (end, operator, stream)
    now = 0.0
    order: list[tuple[OpId, int]] = []
    while ready or running:
        while ready and free:
            _, v = heapq.heappop(ready)
            stream = heapq.heappop(free)
            order.append((dag.ops[v], stream))
            heapq.heappush(running, (now + times[v], v, stream))
        # All that ends at this moment, before anything new starts.
        now = running[0][0]
        while running and running[0][0] == now:
            _, v, stream = heapq.heappop(running)
            heapq.heappush(free, stream)
            for w in dag.succs[v]:
                waits[w] -= 1
                if waits[w] == 0:
                    heapq.heappush(ready, (-rank[w], w))
    notes = {"streams": len({stream for _, stream in order}), "list_makespan_us": now}
    return streamed_schedule("graphi", order, where, notes)
