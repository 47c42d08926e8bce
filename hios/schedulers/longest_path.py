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
what the last path changed. The trial of a device is in `hios.schedulers.path_trial`.
"""

import heapq

from hios.costs.protocol import Costs
from hios.ir.graph import OpGraph
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.problem import Problem
from hios.schedulers.assembly import assemble
from hios.schedulers.path_trial import make_trial
from hios.schedulers.registry import register

__all__ = ["PathFinder", "PathMapping", "hios_lp_inter", "map_paths"]

_NEVER = float("-inf")


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
    trial = make_trial(problem)
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
