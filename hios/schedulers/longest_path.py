"""HIOS-LP, step 1: map the longest path of what is left to one device, again and again.

"HIOS: hierarchical inter-operator scheduler for real-time inference of DAG-structured deep
learning models on multiple GPUs", IEEE CLUSTER 2023, section on inter-GPU scheduling by longest
path. While operators are unmapped:

* P = the longest *valid* path of unmapped operators. Its length is the sum of its times, the
  transfers on its edges, the largest transfer from a mapped predecessor of its head and the
  largest to a mapped successor of its tail. It is valid if no interior operator has a mapped
  neighbour, its head has no mapped successor and its tail no mapped predecessor; a single
  operator always is.
* Each device is tried for the whole of P: the makespan of the list schedule (descending upward
  rank) of what is mapped and P decides; ties go to the lowest device.

Times and transfers on a path are means over devices. The virtual source and sink, where inputs
start and outputs return, are mapped from the beginning. Ties between paths: the smallest tail,
then (backwards) a path that ends there, then the smallest predecessor, by topological index.

The search is a dynamic program over the topological order, of which each round recomputes only
what the last path changed. The trial of a device re-times only the list from the first operator
of P on, and stops as soon as it cannot win.
"""

import heapq
from bisect import bisect_left

from hios.costs.protocol import Costs
from hios.ir.graph import OpGraph
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.problem import Problem
from hios.schedulers.assembly import assemble
from hios.schedulers.list_schedule import CopyPlan
from hios.schedulers.registry import register

__all__ = ["PathFinder", "PathMapping", "hios_lp_inter", "map_paths"]

_NEVER = float("-inf")
# Bounds add the same times in another order than schedules do: leave room for rounding.
_ROUNDING = 1.0 + 1e-9


@register("hios-lp-inter", source="HIOS, IEEE CLUSTER 2023")
def hios_lp_inter(graph: OpGraph, machine: Machine, costs: Costs) -> Schedule:
    """Map longest paths to devices; the first step of hios-lp alone.

    Returns
    -------
    Schedule
        One stream a device, in list order; `notes` counts the paths.

    Notes
    -----
    At most V rounds of O(M·(V + E)), usually far less.
    """
    problem = Problem(graph, machine, costs)
    mapping = map_paths(problem)
    return mapping.schedule(problem, "hios-lp-inter")


class PathMapping:
    """The result of step 1.

    Attributes
    ----------
    paths
        In the order in which they were mapped, as nodes.
    device
        By node.
    order
        All nodes in list order.
    finish_us
        By node, in the list schedule.
    """

    def __init__(
        self,
        paths: list[tuple[int, ...]],
        device: list[int],
        order: list[int],
        finish_us: list[float],
    ) -> None:
        self.paths = paths
        self.device = device
        self.order = order
        self.finish_us = finish_us

    @property
    def makespan_us(self) -> float:
        """Makespan of the list schedule."""
        return max(self.finish_us, default=0.0)

    def schedule(self, problem: Problem, name: str) -> Schedule:
        """Return the mapping as a schedule of one stream a device."""
        return assemble(
            problem,
            name,
            self.order,
            self.device,
            {"paths": len(self.paths), "list_makespan_us": self.makespan_us},
        )


def map_paths(problem: Problem) -> PathMapping:
    """Map all operators, path by path."""
    finder = PathFinder(problem)
    trial = _Trial(problem)
    paths: list[tuple[int, ...]] = []
    while (path := finder.longest()) is not None:
        trial.place(path)
        finder.mark_mapped(path)
        paths.append(path)
    return PathMapping(paths, trial.device, trial.sequence, trial.finish)


class PathFinder:
    """Finds the longest valid path of unmapped operators, incrementally.

    For each unmapped node v, `_reach` is the length of the longest path that ends at v and may
    go on (v is its head, or has no mapped neighbour), and `_total` that of the longest valid
    path whose tail is v.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        n_nodes = problem.n_nodes
        self._is_mapped = [op is None for op in problem.op_of]
        self._mapped_preds = [0] * n_nodes
        self._mapped_succs = [0] * n_nodes
        self._arriving = [0.0] * n_nodes
        self._leaving = [0.0] * n_nodes
        self._reach = [_NEVER] * n_nodes
        self._reach_from = [-1] * n_nodes
        self._total = [_NEVER] * n_nodes
        self._total_from = [-1] * n_nodes
        for v in problem.nodes():
            if self._is_mapped[v]:
                self._tell_neighbours(v)
        for v in problem.nodes():
            if not self._is_mapped[v]:
                self._recompute(v)

    def longest(self) -> tuple[int, ...] | None:
        """Return the longest valid path, head first; None when everything is mapped."""
        best = max(self._total, default=_NEVER)
        if best == _NEVER:
            return None
        tail = self._total.index(best)
        path = [tail]
        node = self._total_from[tail]
        while node >= 0:
            path.append(node)
            node = self._reach_from[node]
        return tuple(reversed(path))

    def mark_mapped(self, path: tuple[int, ...]) -> None:
        """Take the operators of `path` out, and recompute what that changes."""
        for v in path:
            self._is_mapped[v] = True
            self._reach[v] = self._total[v] = _NEVER
        changed: set[int] = set()
        for v in path:
            changed.update(self._tell_neighbours(v))
        queue = sorted(changed)
        while queue:
            v = heapq.heappop(queue)
            if self._recompute(v):
                for s, _ in self._problem.succs[v]:
                    if not self._is_mapped[s] and s not in changed:
                        changed.add(s)
                        heapq.heappush(queue, s)

    def _tell_neighbours(self, v: int) -> list[int]:
        """Count `v` as mapped at its neighbours; return the unmapped ones."""
        problem = self._problem
        touched = []
        for s, edge in problem.succs[v]:
            self._mapped_preds[s] += 1
            self._arriving[s] = max(self._arriving[s], problem.edge_mean_us[edge])
            if not self._is_mapped[s]:
                touched.append(s)
        for u, edge in problem.preds[v]:
            self._mapped_succs[u] += 1
            self._leaving[u] = max(self._leaving[u], problem.edge_mean_us[edge])
            if not self._is_mapped[u]:
                touched.append(u)
        return touched

    def _recompute(self, v: int) -> bool:
        """Recompute the values of `v`; return whether its successors have to follow."""
        problem = self._problem
        time = problem.mean_time[v]
        alone = time + self._arriving[v]
        longest, source = _NEVER, -1
        if self._mapped_preds[v] == 0:
            cost, reach = problem.edge_mean_us, self._reach
            for u, edge in problem.preds[v]:
                length = reach[u] + cost[edge] + time
                if length > longest:
                    longest, source = length, u
        total, total_from = alone + self._leaving[v], -1
        if longest + self._leaving[v] > total:
            total, total_from = longest + self._leaving[v], source
        self._total[v], self._total_from[v] = total, total_from
        reach_now, reach_from = _NEVER, -1
        if self._mapped_succs[v] == 0:
            reach_now = alone
            if longest > reach_now:
                reach_now, reach_from = longest, source
        has_changed = reach_now != self._reach[v]
        self._reach[v], self._reach_from[v] = reach_now, reach_from
        return has_changed


class _Trial:
    """The list schedule of what is mapped, and the trial of a path on each device."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        order = problem.priority_order()
        self.priority = [0] * problem.n_nodes
        for index, v in enumerate(order):
            self.priority[v] = index
        self.device = [0 if op is None else -1 for op in problem.op_of]
        self.finish = [0.0] * problem.n_nodes
        self.copy_plan = CopyPlan(problem, order)
        # Mapped nodes in list order, and their places in the list.
        self.sequence = [v for v in order if problem.op_of[v] is None]
        self.places = [self.priority[v] for v in self.sequence]
        # Predecessors that are mapped, with the transfer times of the edge.
        self.mapped_preds: list[list[tuple[int, tuple[float, ...]]]] = [[] for _ in problem.nodes()]
        for v in self.sequence:
            self._announce(v)

    def _announce(self, v: int) -> None:
        problem = self.problem
        for s, edge in problem.succs[v]:
            self.mapped_preds[s].append((v, problem.edge_us[edge]))

    def place(self, path: tuple[int, ...]) -> None:
        """Put the whole of `path` on the device that gives the shortest list schedule."""
        problem, device, priority = self.problem, self.device, self.priority
        for v in path:
            self._announce(v)
        n_devices = problem.n_devices
        first = bisect_left(self.places, min([priority[v] for v in path]))
        suffix = sorted([*self.sequence[first:], *path], key=priority.__getitem__)
        free = self._free_before(first)
        rest = [0.0] * n_devices
        for v in self.sequence[first:]:
            rest[device[v]] += problem.time[v][device[v]]

        # Promising devices first, so that the others are cut short; ties go to the lowest
        # device whatever the order of the trials.
        load = [
            free[d] + rest[d] + sum([problem.time[v][d] for v in path]) for d in range(n_devices)
        ]
        best_makespan, best_device = float("inf"), n_devices
        best_finish = self.finish
        evaluate = self._evaluate_occupying if self.copy_plan.is_needed else self._evaluate
        for d in sorted(range(n_devices), key=lambda d: (load[d], d)):
            if load[d] > best_makespan * _ROUNDING:
                continue
            for v in path:
                device[v] = d
            remaining = rest.copy()
            remaining[d] = load[d] - free[d]
            finish = self.finish.copy()
            makespan = evaluate(suffix, finish, free.copy(), remaining, best_makespan)
            if makespan < best_makespan or (makespan == best_makespan and d < best_device):
                best_makespan, best_device, best_finish = makespan, d, finish
        for v in path:
            device[v] = best_device
        self.finish = best_finish
        self.sequence[first:] = suffix
        self.places[first:] = [priority[v] for v in suffix]

    def _free_before(self, first: int) -> list[float]:
        """Return when each device has done what stands before position `first`."""
        free = [0.0] * self.problem.n_devices
        missing = self.problem.n_devices
        seen = [False] * missing
        for index in range(first - 1, -1, -1):
            v = self.sequence[index]
            d = self.device[v]
            if not seen[d]:
                seen[d] = True
                free[d] = self.finish[v]
                missing -= 1
                if missing == 0:
                    break
        return free

    def _evaluate(
        self,
        suffix: list[int],
        finish: list[float],
        free: list[float],
        remaining: list[float],
        limit: float,
    ) -> float:
        """Time `suffix`; return its makespan, or infinity once that must exceed `limit`."""
        device, mapped_preds, time = self.device, self.mapped_preds, self.problem.time
        n_devices = self.problem.n_devices
        cut = limit * _ROUNDING
        for v in suffix:
            d = device[v]
            now = free[d]
            for u, cost in mapped_preds[v]:
                arrives = finish[u] + cost[device[u] * n_devices + d]
                if arrives > now:
                    now = arrives
            alone = time[v][d]
            now += alone
            finish[v] = free[d] = now
            remaining[d] -= alone
            if now + remaining[d] > cut:
                return float("inf")
        return max(free)

    def _evaluate_occupying(
        self,
        suffix: list[int],
        finish: list[float],
        free: list[float],
        remaining: list[float],
        limit: float,
    ) -> float:
        """As `_evaluate`, where copies occupy their destination."""
        device, mapped_preds, time = self.device, self.mapped_preds, self.problem.time
        n_devices, plan = self.problem.n_devices, self.copy_plan
        cut = limit * _ROUNDING
        for v in suffix:
            d = device[v]
            now = free[d]
            if plan.occupies[d]:
                now = plan.ready_us(v, d, now, device, finish)
            else:
                for u, cost in mapped_preds[v]:
                    now = max(now, finish[u] + cost[device[u] * n_devices + d])
            now += time[v][d]
            finish[v] = free[d] = now
            remaining[d] -= time[v][d]
            if now + remaining[d] > cut:
                return float("inf")
        return max(free)
