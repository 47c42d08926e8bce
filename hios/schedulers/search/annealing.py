"""Simulated annealing over one-stream schedules, in chunks, so that it can report and be stopped.

Within a round the temperature falls geometrically to a tenth. It starts at a twentieth of the mean
operator time, higher on graphs below 100 operators, where each operator counts for more. A large
effort is several rounds, each from the best state so far. A time limit is only looked at between
chunks and only ever cuts the search short.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hios.ir.ids import DeviceId, TensorId
from hios.ir.schedule import LinkOrder, Schedule
from hios.problem import Problem
from hios.schedulers.assembly import assemble
from hios.schedulers.search.arrays import (
    BEST,
    EVALUATIONS,
    MAKESPAN,
    N_CRITICAL,
    TEMPERATURE,
    Instance,
    make_instance,
    make_state,
)
from hios.schedulers.search.kernel import COOLING_STEP, anneal, evaluate

__all__ = [
    "Annealed",
    "Effort",
    "anneal_instance",
    "anneal_order",
    "links_by_reader",
    "order_of_schedule",
]

# Start of the temperature, as a part of the mean operator time, and how far it falls.
_HOT, _HOTTEST, _FALL = 0.05, 0.2, 0.1
_HOT_OPERATORS = 100
# Moves of a round, for each operator.
_ROUND = 4_000
# Smaller graphs count as this many operators.
_SMALL = 20
_CHUNK = 64 * COOLING_STEP


@dataclass(frozen=True, slots=True)
class Effort:
    """How much work a search may do.

    Attributes
    ----------
    evaluations
        Moves to try.
    deadline_s
        Moment of `time.monotonic` at which to give up; None for never.
    seed
        Of the random numbers.
    progress
        Told the fraction that is done, in [0, 1].
    """

    evaluations: int
    deadline_s: float | None = None
    seed: int = 0
    progress: Callable[[float], None] | None = None

    def is_over(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline_s is not None and time.monotonic() >= self.deadline_s


@dataclass(frozen=True, slots=True)
class Annealed:
    """The best state found.

    Attributes
    ----------
    order, device
        All nodes in topological order; the device of each node.
    makespan_us
        As a list schedule, with link orders as in `links`.
    evaluations
        Moves tried.
    is_truncated
        Whether the deadline cut the search short.
    """

    order: tuple[int, ...]
    device: tuple[int, ...]
    makespan_us: float
    evaluations: int
    is_truncated: bool

    def schedule(self, problem: Problem, name: str) -> Schedule:
        """Return the schedule, links undecided."""
        return assemble(problem, name, self.order, self.device)

    def links(self, problem: Problem) -> tuple[LinkOrder, ...]:
        """Return the orders of the links that the search reckoned with: by first reader."""
        return links_by_reader(problem, self.order, self.device)


def links_by_reader(
    problem: Problem, order: Sequence[int], device: Sequence[int]
) -> tuple[LinkOrder, ...]:
    """Return link orders in which copies stand in the order of their first readers."""
    links: dict[tuple[int, int], dict[TensorId, None]] = {}
    for v in order:
        for u, edge in problem.preds[v]:
            if device[u] != device[v]:
                carried = links.setdefault((device[u], device[v]), {})
                carried.update(dict.fromkeys(problem.edge_tensors[edge]))
    return tuple(
        LinkOrder(DeviceId(src), DeviceId(dst), tuple(tensors))
        for (src, dst), tensors in sorted(links.items())
    )


def order_of_schedule(problem: Problem, schedule: Schedule) -> tuple[list[int], list[int]]:
    """Return the issue order of a schedule and the device of each node, streams left out."""
    order = [problem.node_of[placement.op] for placement in schedule.placements]
    device = [0] * problem.n_nodes
    for placement in schedule.placements:
        device[problem.node_of[placement.op]] = int(placement.device)
    if problem.source is not None:
        order.insert(0, problem.source)
    if problem.sink is not None:
        order.append(problem.sink)
    return order, device


def anneal_order(
    problem: Problem, starts: Sequence[Schedule], target_us: float, effort: Effort
) -> Annealed:
    """Improve the best of some schedules as one-stream schedules.

    Parameters
    ----------
    problem
        What is scheduled; at least one operator.
    starts
        At least one; their streams and stages are ignored.
    target_us
        Stop at this makespan.
    effort
        How long to try.

    Returns
    -------
    Annealed
        Never worse than the starts as one-stream schedules.
    """
    orders = [order_of_schedule(problem, schedule) for schedule in starts]
    return anneal_instance(make_instance(problem), orders, target_us, effort)


def anneal_instance(
    inst: Instance,
    starts: Sequence[tuple[Sequence[int], Sequence[int]]],
    target_us: float,
    effort: Effort,
) -> Annealed:
    """Improve the best of some orders and devices.

    Parameters
    ----------
    inst
        At least one operator.
    starts
        At least one topological order of all nodes, each with the device of every node.
    target_us, effort
        As for `anneal_order`.
    """
    best: tuple[float, Sequence[int], Sequence[int]] | None = None
    for order, device in starts:
        makespan = float(evaluate(inst, make_state(inst, order, device, effort.seed)))
        if best is None or makespan < best[0]:
            best = (makespan, order, device)
    assert best is not None, "at least one start"
    state = make_state(inst, best[1], best[2], effort.seed)
    state.scalars[MAKESPAN] = state.scalars[BEST] = evaluate(inst, state)

    mean = float(inst.time.sum()) / (inst.n_movable * inst.time.shape[1])
    hot = mean * min(_HOTTEST, _HOT * max(1.0, _HOT_OPERATORS / inst.n_movable))
    n_rounds = max(1, round(effort.evaluations / (_ROUND * max(_SMALL, inst.n_movable))))
    is_truncated = False
    for turn in range(n_rounds):
        end = effort.evaluations * (turn + 1) // n_rounds
        begin = int(state.counters[EVALUATIONS])
        if turn:
            state.order[:] = state.best_order
            state.device[:] = state.best_device
            state.position[state.order] = range(inst.time.shape[0])
            state.scalars[MAKESPAN] = evaluate(inst, state)
            state.counters[N_CRITICAL] = -1
        state.scalars[TEMPERATURE] = hot
        # Rounded, so that the last bit of a power decides nothing.
        cooling = round(_FALL ** (COOLING_STEP / max(1, end - begin)), 12)
        while state.counters[EVALUATIONS] < end and state.scalars[BEST] > target_us:
            if effort.is_over():
                is_truncated = True
                break
            left = end - int(state.counters[EVALUATIONS])
            anneal(inst, state, min(_CHUNK, left), cooling, target_us)
            if effort.progress is not None:
                effort.progress(int(state.counters[EVALUATIONS]) / effort.evaluations)
        if is_truncated:
            break
    return Annealed(
        order=tuple(int(v) for v in state.best_order),
        device=tuple(int(d) for d in state.best_device),
        makespan_us=float(state.scalars[BEST]),
        evaluations=int(state.counters[EVALUATIONS]),
        is_truncated=is_truncated,
    )
