"""HEFT: list scheduling by upward rank with insertion into idle gaps.

H. Topcuoglu, S. Hariri, M.-Y. Wu, "Performance-effective and low-complexity task scheduling for
heterogeneous computing", IEEE TPDS 13(3), 2002, section 4.1. Ranks use mean times and mean
transfers; each operator goes where it finishes first, in the earliest idle gap that holds it
(ties: the lowest device). Ties of rank go by topological index, so that the order is topological
also where times are zero. Where copies occupy their destination, the gap must hold the copies
that the operator is the first to need as well.
"""

import math
from bisect import bisect_right

from hios.costs.protocol import Costs
from hios.errors import InvalidOption
from hios.ir.graph import OpGraph
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.problem import Problem
from hios.schedulers.assembly import assemble
from hios.schedulers.registry import register

__all__ = ["heft"]


@register("heft", source="Topcuoglu, Hariri, Wu: HEFT, IEEE TPDS 2002")
def heft(graph: OpGraph, machine: Machine, costs: Costs, *, insertion: bool = True) -> Schedule:
    """Place operators by descending upward rank where they finish first.

    Parameters
    ----------
    graph, machine, costs
        What to run, where, and how long it takes.
    insertion
        Whether idle gaps between operators may be filled; False appends only.

    Returns
    -------
    Schedule
        One stream a device; `notes` has ``list_makespan_us``, the makespan that HEFT itself
        predicts (links without contention).

    Notes
    -----
    O(E·M) and the search for gaps, at worst O(V²) in all.
    """
    if not isinstance(insertion, bool):
        raise InvalidOption(f"heft: insertion is {insertion!r}; need true or false")
    problem = Problem(graph, machine, costs)
    placed = _place(problem, insertion)
    device, start, finish = placed
    # A zero-time operator inserted at the start of another one must come before it.
    order = sorted(problem.nodes(), key=lambda v: (start[v], finish[v], v))
    return assemble(problem, "heft", order, device, {"list_makespan_us": max(finish, default=0.0)})


def _place(problem: Problem, insertion: bool) -> tuple[list[int], list[float], list[float]]:
    n_devices, n_nodes = problem.n_devices, problem.n_nodes
    occupies = [n_devices > 1 and device.kind == "cpu" for device in problem.machine.devices]
    device = [0] * n_nodes
    start = [0.0] * n_nodes
    finish = [0.0] * n_nodes
    # Idle gaps of each device, ascending; the last one never ends. Gaps too short for any
    # operator are dropped. Then, where and when each tensor has arrived.
    begins: list[list[float]] = [[0.0] for _ in range(n_devices)]
    ends: list[list[float]] = [[math.inf] for _ in range(n_devices)]
    shortest = min((t for row in problem.time for t in row if t > 0.0), default=0.0)
    arrival: dict[tuple[int, int], float] = {}
    preds, edge_us, time = problem.preds, problem.edge_us, problem.time
    for v in problem.priority_order():
        pin = problem.pinned[v]
        best: tuple[float, int, float, float, int] | None = None
        for d in range(n_devices) if pin is None else (int(pin),):
            ready, copying = 0.0, 0.0
            if occupies[d]:
                ready, copying = _occupied_ready(problem, v, d, device, finish, arrival)
            else:
                for u, edge in preds[v]:
                    arrives = finish[u] + edge_us[edge][device[u] * n_devices + d]
                    if arrives > ready:
                        ready = arrives
            length = copying + time[v][d]
            first = bisect_right(ends[d], ready) if insertion else len(ends[d]) - 1
            index, begin = _find_gap(begins[d], ends[d], first, ready, length)
            end = begin + length
            if best is None or end < best[0]:
                best = (end, d, begin, copying, index)
        assert best is not None, "a machine has at least one device"
        end, d, begin, copying, index = best
        device[v], start[v], finish[v] = d, begin + copying, end
        # An operator without time parts its gap too: one that spans it would delay it.
        if problem.op_of[v] is not None:
            pieces = [
                (left, right)
                for left, right in ((begins[d][index], begin), (end, ends[d][index]))
                if right - left >= shortest
            ]
            begins[d][index : index + 1] = [left for left, _ in pieces]
            ends[d][index : index + 1] = [right for _, right in pieces]
        if occupies[d]:
            for u, edge in preds[v]:
                if device[u] != d:
                    for tensor in problem.edge_tensors[edge]:
                        arrival.setdefault((tensor, d), begin + copying)
    return device, start, finish


def _find_gap(
    begins: list[float], ends: list[float], first: int, ready: float, length: float
) -> tuple[int, float]:
    """Return the first gap from `first` on that holds `length` after `ready`, and the start."""
    index = first
    while True:
        begin = begins[index] if begins[index] > ready else ready
        # The last gap never ends, so the search does.
        if begin + length <= ends[index]:
            return index, begin
        index += 1


def _occupied_ready(
    problem: Problem,
    v: int,
    d: int,
    device: list[int],
    finish: list[float],
    arrival: dict[tuple[int, int], float],
) -> tuple[float, float]:
    """Return when `v` and its copies may begin on `d`, and how long the copies take."""
    ready, copying = 0.0, 0.0
    for u, edge in problem.preds[v]:
        ready = max(ready, finish[u])
        if device[u] != d:
            for tensor in problem.edge_tensors[edge]:
                arrived = arrival.get((tensor, d))
                if arrived is None:
                    copying += problem.tensor_us[tensor][device[u] * problem.n_devices + d]
                else:
                    ready = max(ready, arrived)
    return ready, copying
