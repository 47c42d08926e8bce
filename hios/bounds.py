"""Lower bounds: what no schedule of a graph on a machine can beat.

* Critical path: the longest path of least solo times; transfers are left out, since a path may
  stay on one device.
* Head–tail: for any ρ and κ, the operators that cannot start before ρ (their head, the longest
  path before them, is at least ρ) and must be followed by at least κ share M devices between ρ
  and the end minus κ. So ``ρ + Σ work / M + κ`` is a bound (after J. Carlier, "The one-machine
  sequencing problem", EJOR 11, 1982, for one machine).

On a device with one stream, work is solo time. With several streams it is the least share of the
device's time that the operator takes however well it runs beside others, as far as the costs
can promise one (`hios.costs.protocol.BoundedCosts`), else solo time divided by the streams.
Inputs and outputs are pinned to the first device by operators of no time, which heads and tails
pass through; their transfers may vanish (everything may run there), so they add nothing.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hios.costs.protocol import BoundedCosts, Costs
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId
from hios.ir.machine import Machine
from hios.problem import Problem

__all__ = ["Bounds", "lower_bound", "lower_bounds", "problem_bounds"]

MAX_HEADS = 2000
"""Heads tried as ρ; of more, evenly spread ones (any choice gives a valid bound)."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Lower bounds on the makespan.

    Attributes
    ----------
    critical_path_us
        Holds on any number of devices.
    head_tail_us
        Holds for any schedule.
    head_tail_staged_us
        Holds for schedules that have stages on every device where several streams are used;
        at least `head_tail_us`.
    """

    critical_path_us: float
    head_tail_us: float
    head_tail_staged_us: float

    @property
    def lower_bound_us(self) -> float:
        """The best bound for any schedule."""
        return max(self.critical_path_us, self.head_tail_us)

    @property
    def staged_lower_bound_us(self) -> float:
        """The best bound for schedules with stages."""
        return max(self.critical_path_us, self.head_tail_staged_us)


def lower_bound(graph: OpGraph, machine: Machine, costs: Costs) -> float:
    """Return the best known lower bound in µs for any schedule of `graph` on `machine`.

    Raises
    ------
    CyclicGraph
        When the graph is no DAG.
    """
    return lower_bounds(graph, machine, costs).lower_bound_us


def lower_bounds(graph: OpGraph, machine: Machine, costs: Costs) -> Bounds:
    """Return bounds that hold for every schedule of `graph` on `machine`.

    Raises
    ------
    CyclicGraph
        When the graph is no DAG.

    Notes
    -----
    O(V + E) and O(V·min(V, 2000)) in numpy for the head–tail bound.
    """
    return problem_bounds(Problem(graph, machine, costs))


def problem_bounds(problem: Problem) -> Bounds:
    """Return the bounds of a problem that is already built."""
    if not problem.operators():
        return Bounds(0.0, 0.0, 0.0)
    least = [min(row) for row in problem.time]
    heads = np.asarray(_heads(problem, least), dtype=np.float64)
    tails = np.asarray(_tails(problem, least), dtype=np.float64)
    critical = float(np.max(heads + np.asarray(least) + tails))
    any_schedule = _head_tail(heads, tails, _work(problem, False), problem.n_devices)
    staged = _head_tail(heads, tails, _work(problem, True), problem.n_devices)
    return Bounds(critical, any_schedule, max(any_schedule, staged))


def _heads(problem: Problem, time: list[float]) -> list[float]:
    heads = [0.0] * problem.n_nodes
    for v in problem.nodes():
        heads[v] = max([heads[u] + time[u] for u, _ in problem.preds[v]], default=0.0)
    return heads


def _tails(problem: Problem, time: list[float]) -> list[float]:
    tails = [0.0] * problem.n_nodes
    for v in reversed(problem.nodes()):
        tails[v] = max([tails[s] + time[s] for s, _ in problem.succs[v]], default=0.0)
    return tails


def _work(problem: Problem, is_staged: bool) -> npt.NDArray[np.float64]:
    """Return the least time of a device that each node takes away from others."""
    costs = problem.costs
    work = np.zeros(problem.n_nodes)
    for v in problem.operators():
        shares = []
        for d, device in enumerate(problem.machine.devices):
            solo = problem.time[v][d]
            if device.streams == 1:
                shares.append(solo)
                continue
            share = solo / device.streams
            if isinstance(costs, BoundedCosts):
                promised = costs.least_work_us(problem.op(v), DeviceId(d), is_staged)
                share = max(share, promised)
            shares.append(min(solo, share))
        work[v] = min(shares)
    return work


def _head_tail(
    heads: npt.NDArray[np.float64],
    tails: npt.NDArray[np.float64],
    work: npt.NDArray[np.float64],
    n_devices: int,
) -> float:
    by_tail = np.argsort(tails, kind="stable")
    heads, tails, work = heads[by_tail], tails[by_tail], work[by_tail]
    candidates = np.unique(heads)
    if len(candidates) > MAX_HEADS:
        chosen = np.linspace(0, len(candidates) - 1, MAX_HEADS).astype(int)
        candidates = candidates[chosen]
    best = 0.0
    for head in candidates:
        late = np.where(heads >= head, work, 0.0)
        # Σ of the work of all with at least this tail, for each tail as κ.
        total = np.cumsum(late[::-1])[::-1]
        bounds = np.where(total > 0.0, head + total / n_devices + tails, 0.0)
        best = max(best, float(bounds.max()))
    return best
