"""The proven optimum of small graphs, by constraint programming (CP-SAT of OR-Tools).

The model: an interval for every operator, optional on each device, no two at once on a device; a
copy of each tensor to each device that reads it elsewhere than where it was made, after its
producer and before its readers. Copies queue on contended links, and stand in the queue of a
destination that they occupy. One stream a device: stages are left out.

Times become integers by rounding down, so the bound holds for the real times too; the schedule
found is timed anew with them. Equal devices are numbered in the order in which they are first
used, since their names make no difference. The search starts from the best schedule of `auto`.
"""

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hios.bounds import problem_bounds
from hios.costs.protocol import Costs
from hios.errors import InfeasibleSchedule, InvalidOption, MissingDependency
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId, TensorId
from hios.ir.machine import Machine
from hios.ir.schedule import LinkOrder, Schedule
from hios.problem import Problem
from hios.schedulers.assembly import assemble
from hios.schedulers.auto import auto
from hios.schedulers.registry import register
from hios.schedulers.search.portfolio import judge

__all__ = ["MAX_OPERATORS", "exact"]

MAX_OPERATORS = 200
"""Larger graphs are refused: nothing would be proven, and the model alone takes long."""

# Integer horizon: enough digits for any time, few enough for the solver's arithmetic.
_HORIZON = 10**8
_FINEST = 1000


@register("exact", source="constraint programming (OR-Tools CP-SAT)")
def exact(
    graph: OpGraph,
    machine: Machine,
    costs: Costs,
    *,
    budget: float = 60.0,
    workers: int = 8,
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> Schedule:
    """Prove the best one-stream schedule, or return the best found with its bound.

    Parameters
    ----------
    graph, machine, costs
        What to run, where, and how long it takes; at most `MAX_OPERATORS` operators.
    budget
        Seconds for the solver.
    workers
        Search strategies that the solver runs side by side. What several of them find depends
        on their timing, unless `auto` has found an optimum already: then that is kept.
    seed
        Of the solver and of `auto`.
    progress
        Called with what is being done and the fraction done.

    Returns
    -------
    Schedule
        One stream a device, links decided. Notes: ``makespan_us``; ``bound_us``, which no
        schedule with one stream a device can beat; ``gap`` between the two; ``proven``, 1 when
        it is 0 (up to the rounding of times, ``resolution_us`` an operator); ``truncated``;
        ``status`` of the solver.

    Raises
    ------
    MissingDependency
        When OR-Tools is not installed.
    InvalidOption
        When an option is out of range, or the graph is too large.
    InfeasibleSchedule
        When no schedule fits on the machine.

    Notes
    -----
    Exponential at worst; 30 operators usually take seconds to minutes.
    """
    if not isinstance(budget, int | float) or isinstance(budget, bool) or not budget > 0:
        raise InvalidOption(f"exact: budget is {budget!r}; need a number of seconds above 0")
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise InvalidOption(f"exact: workers is {workers!r}; need an integer ≥ 1")
    if len(graph.operators) > MAX_OPERATORS:
        raise InvalidOption(
            f"exact: graph {graph.name!r} has {len(graph.operators)} operators; at most "
            f"{MAX_OPERATORS} can be hoped for, use auto"
        )
    cp_model = _solver()
    report = progress if progress is not None else _silent
    one_stream = machine.with_streams(1)
    problem = Problem(graph, one_stream, costs)
    report("start", 0.0)
    start = auto(graph, one_stream, costs, seed=seed)
    bound = problem_bounds(problem).lower_bound_us
    best = judge(problem, "auto", start)
    if best is None:
        raise InfeasibleSchedule(f"no schedule of graph {graph.name!r} fits on {machine.name!r}")
    status, resolution = "OPTIMAL", 0.0
    if best.makespan_us > bound * (1 + 1e-9):
        report("prove", 0.1)
        solved = _solve(cp_model, problem, best.schedule, bound, budget, workers, seed)
        status, resolution = solved.status, solved.resolution_us
        bound = max(bound, solved.bound_us)
        if solved.order is not None and solved.device is not None:
            decided = assemble(problem, "exact", solved.order, solved.device)
            found = judge(problem, "exact", decided, solved.links)
            if found is not None and found.makespan_us < best.makespan_us * (1 - 1e-12):
                best = found
    report("done", 1.0)
    # Every operator and copy on the critical path may have lost one unit to rounding.
    lost = 2 * resolution * (problem.n_nodes + len(problem.tensor_us))
    gap = max(0.0, best.makespan_us / bound - 1.0) if bound > 0.0 else 0.0
    is_proven = best.makespan_us <= bound * (1 + 1e-9) + lost
    return Schedule(
        "exact",
        best.schedule.placements,
        best.schedule.links,
        best.schedule.alternatives,
        {
            "makespan_us": best.makespan_us,
            "bound_us": min(bound, best.makespan_us),
            "gap": gap,
            "proven": int(is_proven),
            "resolution_us": resolution,
            "truncated": int(not is_proven),
            "status": status,
            "seed": seed,
        },
    )


def _silent(what: str, part: float) -> None:
    """Report to nobody."""


def _solver() -> Any:
    try:
        return importlib.import_module("ortools.sat.python.cp_model")
    except ImportError as problem:
        raise MissingDependency(
            "scheduler 'exact' needs OR-Tools; install it with: pip install 'hios-tvm[exact]'"
        ) from problem


@dataclass(frozen=True, slots=True)
class _Solved:
    """What the solver says; order and device by node, or None without a solution."""

    status: str
    bound_us: float
    resolution_us: float
    order: list[int] | None = None
    device: list[int] | None = None
    links: tuple[LinkOrder, ...] = ()


def _scale(problem: Problem, horizon_us: float) -> int:
    """Return how many units a microsecond has: the fewest that make all times whole, if any."""
    times = [t for row in problem.time for t in row]
    times.extend(t for row in problem.tensor_us.values() for t in row)
    scale = 1
    while scale < _FINEST and horizon_us * scale * 10 <= _HORIZON:
        if all(abs(t * scale - round(t * scale)) < 1e-6 for t in times):
            break
        scale *= 10
    return scale


def _solve(
    cp_model: Any,
    problem: Problem,
    start: Schedule,
    bound_us: float,
    budget: float,
    workers: int,
    seed: int,
) -> _Solved:
    """Build the model, start from a schedule, and solve."""
    from hios.simulator import simulate

    timeline = simulate(problem.graph, problem.machine, problem.costs, start)
    scale = _scale(problem, timeline.makespan_us)

    def units(time_us: float) -> int:
        # A hair above, so that 0.3 · 10 is 3 and not 2.
        return math.floor(time_us * scale + 1e-6)

    horizon = math.ceil(timeline.makespan_us * scale)
    model = cp_model.CpModel()
    devices = range(problem.n_devices)
    begin = [model.new_int_var(0, horizon, f"start {v}") for v in problem.nodes()]
    end = [model.new_int_var(0, horizon, f"end {v}") for v in problem.nodes()]
    on = [[model.new_bool_var(f"{v} on {d}") for d in devices] for v in problem.nodes()]
    queues: dict[tuple[int, int], list[Any]] = {}
    makespan = model.new_int_var(math.floor(bound_us * scale), horizon, "makespan")
    for v in problem.nodes():
        model.add_exactly_one(on[v])
        pin = problem.pinned[v]
        if pin is not None:
            model.add(on[v][pin] == 1)
        for d in devices:
            time = units(problem.time[v][d])
            interval = model.new_optional_interval_var(begin[v], time, end[v], on[v][d], "")
            if time:
                queues.setdefault((d, d), []).append(interval)
        if not problem.succs[v]:
            model.add(makespan >= end[v])
    for u, v in problem.edges:
        model.add(begin[v] >= end[u])
    copies = _add_copies(model, problem, begin, end, on, queues, units, horizon)
    for intervals in queues.values():
        if len(intervals) > 1:
            model.add_no_overlap(intervals)
    if _devices_are_alike(problem):
        _number_devices(model, problem, on)
    model.minimize(makespan)

    where = {problem.node_of[p.op]: int(p.device) for p in start.placements}
    starts = {
        problem.node_of[event.subject]: event.start_us
        for event in timeline.events
        if event.kind == "operator"
    }
    names = _renumbered(problem, where) if _devices_are_alike(problem) else list(devices)
    for v, used in where.items():
        for d in devices:
            model.add_hint(on[v][d], int(names[used] == d))
        model.add_hint(begin[v], units(starts[v]))

    solver = cp_model.CpSolver()
    solver.parameters.num_workers = workers
    solver.parameters.random_seed = seed % 2**31
    solver.parameters.max_time_in_seconds = budget
    status = solver.solve(model)
    name = str(solver.status_name(status))
    bound = float(solver.best_objective_bound) / scale
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        # The horizon is the start's makespan, so nothing better exists when there is nothing.
        proven = timeline.makespan_us if status == cp_model.INFEASIBLE else max(0.0, bound)
        return _Solved(name, proven, 1.0 / scale)
    order = sorted(problem.nodes(), key=lambda v: (solver.value(begin[v]), solver.value(end[v]), v))
    device = [next(d for d in devices if solver.value(on[v][d])) for v in problem.nodes()]
    orders: dict[tuple[int, int], list[tuple[int, TensorId]]] = {}
    for (tensor, src, dst), (present, started) in copies.items():
        if solver.value(present):
            orders.setdefault((src, dst), []).append((solver.value(started), tensor))
    links = tuple(
        LinkOrder(DeviceId(src), DeviceId(dst), tuple(tensor for _, tensor in sorted(taken)))
        for (src, dst), taken in sorted(orders.items())
    )
    return _Solved(name, bound, 1.0 / scale, _topological(problem, order), device, links)


def _add_copies(
    model: Any,
    problem: Problem,
    begin: list[Any],
    end: list[Any],
    on: list[list[Any]],
    queues: dict[tuple[int, int], list[Any]],
    units: Callable[[float], int],
    horizon: int,
) -> dict[tuple[TensorId, int, int], tuple[Any, Any]]:
    """Add a copy for each tensor and pair of devices; return whether and when it runs."""
    readers: dict[tuple[TensorId, int], list[int]] = {}
    for (u, v), tensors in zip(problem.edges, problem.edge_tensors, strict=True):
        for tensor in tensors:
            readers.setdefault((tensor, u), []).append(v)
    machine, n_devices = problem.machine, problem.n_devices
    copies: dict[tuple[TensorId, int, int], tuple[Any, Any]] = {}
    for (tensor, u), nodes in readers.items():
        for src in range(n_devices):
            for dst in range(n_devices):
                if src == dst:
                    continue
                time = units(problem.tensor_us[tensor][src * n_devices + dst])
                present = model.new_bool_var(f"copy {tensor} {src} {dst}")
                for v in nodes:
                    model.add_bool_or(on[u][src].negated(), on[v][dst].negated(), present)
                model.add_implication(present, on[u][src])
                model.add_bool_or([present.negated(), *(on[v][dst] for v in nodes)])
                occupies = machine.copies_occupy(DeviceId(dst))
                if occupies or machine.is_contended:
                    started = model.new_int_var(0, horizon, "")
                    model.add(started >= end[u]).only_enforce_if(present)
                    for v in nodes:
                        model.add(begin[v] >= started + time).only_enforce_if(present, on[v][dst])
                    queue = (dst, dst) if occupies else (src, dst)
                    if time:
                        queues.setdefault(queue, []).append(
                            model.new_optional_fixed_size_interval_var(started, time, present, "")
                        )
                else:
                    started = end[u]
                    for v in nodes:
                        model.add(begin[v] >= end[u] + time).only_enforce_if(present, on[v][dst])
                copies[tensor, src, dst] = (present, started)
    return copies


def _devices_are_alike(problem: Problem) -> bool:
    """Whether devices may be renamed: same times everywhere, nothing pinned."""
    if any(pin is not None for pin in problem.pinned):
        return False
    if len({problem.machine.copies_occupy(DeviceId(d)) for d in range(problem.n_devices)}) > 1:
        return False
    if len({device.memory_bytes for device in problem.machine.devices}) > 1:
        return False
    pairs = [
        src * problem.n_devices + dst
        for src in range(problem.n_devices)
        for dst in range(problem.n_devices)
        if src != dst
    ]
    return all(len(set(row)) <= 1 for row in problem.time) and all(
        len({row[pair] for pair in pairs}) <= 1 for row in problem.tensor_us.values()
    )


def _number_devices(model: Any, problem: Problem, on: list[list[Any]]) -> None:
    """Let device d be used only by nodes after some node that uses device d − 1."""
    used = [None] * problem.n_devices
    for v in problem.nodes():
        for d in range(1, problem.n_devices):
            before = used[d - 1]
            if before is None:
                model.add(on[v][d] == 0)
            else:
                model.add_implication(on[v][d], before)
        for d in range(problem.n_devices):
            now = model.new_bool_var("")
            earlier = [] if used[d] is None else [used[d]]
            model.add_max_equality(now, [on[v][d], *earlier])
            used[d] = now


def _renumbered(problem: Problem, where: dict[int, int]) -> list[int]:
    """Return new numbers of the devices: in the order of first use."""
    order: dict[int, int] = {}
    for v in sorted(where):
        order.setdefault(where[v], len(order))
    for d in range(problem.n_devices):
        order.setdefault(d, len(order))
    return [order[d] for d in range(problem.n_devices)]


def _topological(problem: Problem, order: list[int]) -> list[int]:
    """Repair an order by start time where operators without time come with their inputs."""
    place = {v: index for index, v in enumerate(order)}
    rank = [0] * problem.n_nodes
    for v in problem.nodes():
        rank[v] = max([place[v], *(rank[u] for u, _ in problem.preds[v])])
    return sorted(problem.nodes(), key=lambda v: (rank[v], v))
