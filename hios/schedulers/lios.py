"""LIOS: the most urgent ready operator goes to the stream on which it finishes first.

"LIOS", IEEE Transactions on Services Computing, 2023. The urgency of an operator is its upward
rank on one device, rank(v) = t(v) + max over successors of rank. On a stream an operator starts
when the stream is free and its predecessors have ended, those on another stream later by the
cost of a synchronisation.

Streams are taken to run at full speed side by side, as in the paper; what they take from each
other is left to the costs that time the schedule. Of streams with the same finish, the one
whose last operator is a predecessor wins (one synchronisation less), then the lowest.
"""

import heapq

from hios.costs.protocol import Costs
from hios.ir.graph import OpGraph
from hios.ir.ids import OpId
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.schedulers.dag import op_dag
from hios.schedulers.registry import register
from hios.schedulers.single_device import chosen_device, require_at_least, streamed_schedule

__all__ = ["lios"]


@register("lios", source="LIOS, IEEE TSC 2023")
def lios(
    graph: OpGraph, machine: Machine, costs: Costs, *, sync_us: float = 0.0, device: int = 0
) -> Schedule:
    """Give ready operators, by upward rank, the stream with the earliest finish.

    Parameters
    ----------
    graph, machine, costs
        What to run, where, and how long it takes.
    sync_us
        Cost of waiting for an operator on another stream, in µs.
    device
        Where everything runs.

    Raises
    ------
    InvalidOption
        When `sync_us` is negative.
    UnknownDevice
        When the machine has no such device.

    Notes
    -----
    O(V·(log V + streams) + E).
    """
    require_at_least(0.0, sync_us=sync_us)
    where = chosen_device(machine, device)
    dag = op_dag(graph)
    times = dag.times_us(costs, where)
    rank = dag.longest_to_exit(times)
    n_streams = machine.devices[where].streams
    free = [0.0] * n_streams
    last = [-1] * n_streams
    stream_of = [0] * len(dag)
    finish = [0.0] * len(dag)
    waits = [len(before) for before in dag.preds]
    ready = [(-rank[v], v) for v, count in enumerate(waits) if count == 0]
    heapq.heapify(ready)
    order: list[tuple[OpId, int]] = []
    while ready:
        _, v = heapq.heappop(ready)
        before = dag.preds[v]
        # Inputs from any other stream, then those from the stream itself without the cost.
        latest = max([finish[u] for u in before], default=0.0)
        best: tuple[float, bool, int] | None = None
        for stream in range(n_streams):
            start = free[stream]
            if latest + sync_us > start and before:
                for u in before:
                    arrives = finish[u] + (0.0 if stream_of[u] == stream else sync_us)
                    if arrives > start:
                        start = arrives
            candidate = (start + times[v], last[stream] not in before, stream)
            if best is None or candidate < best:
                best = candidate
        assert best is not None, "a device has at least one stream"
        finish[v], _, stream = best
        free[stream] = finish[v]
        last[stream] = v
        stream_of[v] = stream
        order.append((dag.ops[v], stream))
        for w in dag.succs[v]:
            waits[w] -= 1
            if waits[w] == 0:
                heapq.heappush(ready, (-rank[w], w))
    notes = {"streams": len(set(stream_of)), "list_makespan_us": max(finish, default=0.0)}
    return streamed_schedule("lios", order, where, notes)
