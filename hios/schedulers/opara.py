"""Opara: streams along first predecessors, launches alternating between kinds of load.

A. Chen et al., "Opara: Exploiting operator parallelism for expediting DNN inference on GPUs",
2025. Streams: in topological order an operator joins the stream of its first predecessor whose
stream nobody has continued yet, else it opens a new one. Launch order: of the operators whose
predecessors are launched, memory-bound and compute-bound ones take turns, the least
resource-hungry first, so that a big kernel does not keep small ones from starting.

An operator is compute-bound when its arithmetic intensity (flop per byte) is at or above the
device's ridge point; where the device's peaks are unknown, the median over the graph takes the
place of the ridge. What it asks for is its number of threads and its shared memory where the
launch is known, else its work, else its time.

More streams than the device has are taken in turn: stream i becomes i mod streams.
"""

import heapq
from statistics import median_low

from hios.costs.protocol import Costs
from hios.ir.graph import Operator, OpGraph
from hios.ir.ids import OpId
from hios.ir.machine import Device, Machine
from hios.ir.schedule import Schedule
from hios.schedulers.dag import OpDag, op_dag
from hios.schedulers.registry import register
from hios.schedulers.single_device import chosen_device, streamed_schedule

__all__ = ["opara"]


@register("opara", source="Opara, 2025")
def opara(graph: OpGraph, machine: Machine, costs: Costs, *, device: int = 0) -> Schedule:
    """Continue first predecessors' streams, and launch by resource in turns.

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
    O(V log V + E). Notes of the schedule: ``chains``, the streams of the published algorithm,
    and ``streams``, those used here.
    """
    where = chosen_device(machine, device)
    dag = op_dag(graph)
    chain_of = _chains(dag)
    n_chains = max(chain_of, default=-1) + 1
    n_streams = machine.devices[where].streams
    is_compute_bound = _compute_bound(graph, dag, machine.devices[where])
    times = dag.times_us(costs, where)
    demand = [_demand(graph.operators[op]) for op in dag.ops]

    # Operators that may be launched, memory-bound in the first queue, compute-bound in the second.
    ready: tuple[list[tuple[tuple[float, ...], int]], ...] = ([], [])
    waits = [len(before) for before in dag.preds]

    def enter(v: int) -> None:
        heapq.heappush(ready[is_compute_bound[v]], ((*demand[v], times[v]), v))

    for v, count in enumerate(waits):
        if count == 0:
            enter(v)
    order: list[tuple[OpId, int]] = []
    turn = 0
    while ready[0] or ready[1]:
        queue = ready[turn] or ready[1 - turn]
        turn = 1 - turn
        _, v = heapq.heappop(queue)
        order.append((dag.ops[v], chain_of[v] % n_streams))
        for w in dag.succs[v]:
            waits[w] -= 1
            if waits[w] == 0:
                enter(w)
    notes = {"chains": n_chains, "streams": min(n_chains, n_streams)}
    return streamed_schedule("opara", order, where, notes)


def _chains(dag: OpDag) -> list[int]:
    """Return the published stream of each position."""
    chain_of: list[int] = []
    is_continued = [False] * len(dag)
    n_chains = 0
    for before in dag.preds:
        first = next((u for u in before if not is_continued[u]), None)
        if first is None:
            chain_of.append(n_chains)
            n_chains += 1
        else:
            is_continued[first] = True
            chain_of.append(chain_of[first])
    return chain_of


def _compute_bound(graph: OpGraph, dag: OpDag, device: Device) -> list[bool]:
    intensity = []
    for op in dag.ops:
        operator = graph.operators[op]
        moved = operator.bytes_read + operator.bytes_written
        intensity.append(operator.flops / moved if moved else 0.0)
    if device.peak_gflops is not None and device.bandwidth_gb_s is not None:
        ridge = device.peak_gflops / device.bandwidth_gb_s
    else:
        ridge = median_low(intensity) if intensity else 0.0
    # Without any facts about the work (a graph file) all operators are of one kind.
    return [0.0 < ridge <= value for value in intensity]


def _demand(operator: Operator) -> tuple[float, float]:
    """Return what an operator asks of its device: threads or work, then shared memory."""
    launch = operator.launch
    blocks = launch.get("grid", 0)
    threads = blocks * launch.get("block", 1) or launch.get("parallel_extent", 0)
    if threads:
        return float(threads), float(blocks * launch.get("shared_bytes", 0))
    return operator.flops + operator.bytes_read + operator.bytes_written, 0.0
