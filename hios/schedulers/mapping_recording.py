"""HIOS-MR, step 1: record the best partial schedule for every (operator, device).

"HIOS: hierarchical inter-operator scheduler for real-time inference of DAG-structured deep
learning models on multiple GPUs", IEEE CLUSTER 2023, section on inter-GPU scheduling by mapping
recording. Operators v₁ … vₙ come in order of descending upward rank. f(i, j) is the earliest
finish of vᵢ on device j over all records (i − 1, k) that it may extend; that extended schedule
is record (i, j). The record of the last operator with the shortest makespan is the mapping.

Ties go to the record with the shorter makespan, then to the lower k. As in the other list
schedules here, a copy that occupies its destination is paid there by its first reader.

A record holds only the operators whose results are still to be read; the whole mapping hangs
behind it as a chain of decisions, shared between records.
"""

from dataclasses import dataclass, field

from hios.costs.protocol import Costs
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId, TensorId
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.problem import Problem
from hios.schedulers.assembly import assemble
from hios.schedulers.registry import register

__all__ = ["RecordedMapping", "hios_mr_inter", "record_mapping"]

# A decision and those before it: (node, device, earlier decisions).
_Decisions = tuple[int, int, "_Decisions | None"]


@dataclass(frozen=True, slots=True)
class RecordedMapping:
    """The mapping that the recording found.

    Attributes
    ----------
    device
        By node.
    order
        All nodes by descending upward rank; the order on every device.
    makespan_us
        Of the list schedule, links without contention.
    """

    device: list[int]
    order: list[int]
    makespan_us: float


@dataclass(slots=True)
class _Record:
    """One partial schedule.

    Attributes
    ----------
    live
        Device and finish of each operator whose result is still to be read.
    arrived
        When a copy reached a device that copies occupy.
    free
        When each device has done its last operator.
    """

    live: dict[int, tuple[int, float]]
    arrived: dict[tuple[TensorId, int], float]
    free: list[float]
    makespan: float = 0.0
    decisions: _Decisions | None = field(default=None, repr=False)


@register("hios-mr-inter", source="HIOS, IEEE CLUSTER 2023")
def hios_mr_inter(graph: OpGraph, machine: Machine, costs: Costs) -> Schedule:
    """Map operators to devices by recording; the first step of hios-mr alone.

    Returns
    -------
    Schedule
        One stream a device, in order of descending upward rank.

    Notes
    -----
    O(M²·E + M·V·w) for M devices and at most w results alive at once.
    """
    problem = Problem(graph, machine, costs)
    return recorded_schedule(problem, record_mapping(problem), "hios-mr-inter")


def recorded_schedule(problem: Problem, mapping: RecordedMapping, name: str) -> Schedule:
    """Return a recorded mapping as a schedule of one stream a device."""
    notes = {"list_makespan_us": mapping.makespan_us}
    return assemble(problem, name, mapping.order, mapping.device, notes)


def record_mapping(problem: Problem) -> RecordedMapping:
    """Map all nodes of a problem to devices."""
    order = problem.priority_order()
    place = [0] * problem.n_nodes
    for index, v in enumerate(order):
        place[v] = index
    # Whose result is read for the last time at each step.
    expires: list[list[int]] = [[] for _ in order]
    for v in problem.nodes():
        if problem.succs[v]:
            expires[max(place[s] for s, _ in problem.succs[v])].append(v)

    n_devices = problem.n_devices
    occupies = [
        n_devices > 1 and problem.machine.copies_occupy(DeviceId(d)) for d in range(n_devices)
    ]
    records = [_Record({}, {}, [0.0] * n_devices)]
    for step, v in enumerate(order):
        pin = problem.pinned[v]
        extended = []
        for d in range(n_devices) if pin is None else (int(pin),):
            begin = _begin_occupied if occupies[d] else _begin
            best = min(
                (begin(problem, record, v, d), record.makespan, k)
                for k, record in enumerate(records)
            )
            extended.append(_extend(problem, records[best[2]], v, d, best[0], occupies[d]))
        records = extended
        for u in expires[step]:
            for record in records:
                del record.live[u]

    last = min(records, key=lambda record: record.makespan)
    device = [0] * problem.n_nodes
    decisions = last.decisions
    while decisions is not None:
        v, d, decisions = decisions
        device[v] = d
    return RecordedMapping(device, order, last.makespan)


def _begin(problem: Problem, record: _Record, v: int, d: int) -> float:
    """Return when `v` may begin on `d` behind a record."""
    now = record.free[d]
    live, edge_us, n_devices = record.live, problem.edge_us, problem.n_devices
    for u, edge in problem.preds[v]:
        src, finish = live[u]
        arrives = finish + edge_us[edge][src * n_devices + d]
        if arrives > now:
            now = arrives
    return now


def _begin_occupied(problem: Problem, record: _Record, v: int, d: int) -> float:
    """As `_begin`, where the copies that `v` is the first to need occupy `d` before it."""
    now, local = record.free[d], 0.0
    for u, edge in problem.preds[v]:
        src, finish = record.live[u]
        if src == d:
            local = max(local, finish)
            continue
        for tensor in problem.edge_tensors[edge]:
            arrived = record.arrived.get((tensor, d))
            if arrived is None:
                now = max(now, finish) + problem.tensor_us[tensor][src * problem.n_devices + d]
            else:
                local = max(local, arrived)
    return max(now, local)


def _extend(
    problem: Problem, record: _Record, v: int, d: int, begin: float, occupies: bool
) -> _Record:
    end = begin + problem.time[v][d]
    live, free, arrived = record.live.copy(), record.free.copy(), record.arrived
    if problem.succs[v]:
        live[v] = (d, end)
    free[d] = end
    if occupies:
        arrived = arrived.copy()
        for u, edge in problem.preds[v]:
            if record.live[u][0] != d:
                for tensor in problem.edge_tensors[edge]:
                    arrived.setdefault((tensor, d), begin)
    decisions: _Decisions = (v, d, record.decisions)
    return _Record(live, arrived, free, max(record.makespan, end), decisions)
