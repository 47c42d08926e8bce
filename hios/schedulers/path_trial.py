"""HIOS-LP, step 1: the trial of a path on each device.

The path goes where the list schedule (descending upward rank) of what is mapped and the path ends
first. A trial re-times only the list from the first operator of the path on, and stops as soon
as it cannot win.

Of V operators, V paths and M devices that is O(V²·M) at worst, and most of the time of HIOS-LP on
large graphs, for which `hios.schedulers.search.path_trial_kernel` does the same, compiled.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Protocol

from hios.problem import Problem
from hios.schedulers.list_schedule import CopyPlan

__all__ = ["PathTrial", "Trial", "make_trial"]

# Bounds add the same times in another order than schedules do: leave room for rounding.
_ROUNDING = 1.0 + 1e-9

# Importing the compiler takes as long as timing a graph of this size in Python.
_LEAST_COMPILED = 1500


class Trial(Protocol):
    """The list schedule of what is mapped, and the trial of a path on each device."""

    @property
    def device(self) -> list[int]:
        """Device by node; -1 while unmapped."""
        ...

    @property
    def sequence(self) -> list[int]:
        """Mapped nodes in list order."""
        ...

    @property
    def finish(self) -> list[float]:
        """Finish in the list schedule by node, µs."""
        ...

    def place(self, path: tuple[int, ...]) -> None:
        """Put the whole of `path` on the device that gives the shortest list schedule."""
        ...


def make_trial(problem: Problem) -> Trial:
    """Return the trial for a problem: compiled for large ones, where it can be."""
    trial = PathTrial(problem)
    if problem.n_nodes < _LEAST_COMPILED or trial.copy_plan.is_needed:
        return trial
    from hios.schedulers.search.path_trial_kernel import CompiledPathTrial

    return CompiledPathTrial(problem)


class PathTrial:
    """A `Trial` in plain Python."""

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
            cut = best_makespan * _ROUNDING
            if load[d] > cut:
                continue
            for v in path:
                device[v] = d
            remaining = rest.copy()
            remaining[d] = load[d] - free[d]
            finish = self.finish.copy()
            makespan = evaluate(suffix, finish, free.copy(), remaining, cut)
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
        cut: float,
    ) -> float:
        """Time `suffix`; return its makespan, or infinity once that must exceed `cut`."""
        device, mapped_preds, time = self.device, self.mapped_preds, self.problem.time
        n_devices = self.problem.n_devices
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
        cut: float,
    ) -> float:
        """As `_evaluate`, where copies occupy their destination."""
        device, mapped_preds, time = self.device, self.mapped_preds, self.problem.time
        n_devices, plan = self.problem.n_devices, self.copy_plan
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
