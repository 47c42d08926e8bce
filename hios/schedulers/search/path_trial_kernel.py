"""`hios.schedulers.path_trial`, compiled for large graphs.

The same trials with the same additions and comparisons of times, so that it decides the same.
"""

import numpy as np

from hios.problem import Problem
from hios.schedulers.search.arrays import Floats, Ints
from hios.schedulers.search.compiled import compiled

__all__ = ["CompiledPathTrial"]


class CompiledPathTrial:
    """As `hios.schedulers.path_trial.PathTrial`; copies must not occupy their destination."""

    def __init__(self, problem: Problem) -> None:
        order = np.array(problem.priority_order(), dtype=np.int64)
        self._priority = np.empty_like(order)
        self._priority[order] = np.arange(len(order))
        pinned = [op is None for op in problem.op_of]
        self._device = np.where(pinned, 0, -1).astype(np.int64)
        self._finish = np.zeros(problem.n_nodes)
        self._sequence = np.empty_like(order)
        self._n_mapped = sum(pinned)
        self._sequence[: self._n_mapped] = [v for v in order if pinned[v]]
        counts = [len(preds) for preds in problem.preds]
        self._starts = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
        pairs = [pair for preds in problem.preds for pair in preds]
        self._preds = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        n_pairs = problem.n_devices**2
        self._edge_us = np.array(problem.edge_us, dtype=np.float64).reshape(-1, n_pairs)
        self._time = problem.time_array()

    @property
    def device(self) -> list[int]:
        """Device by node."""
        return [int(d) for d in self._device]

    @property
    def sequence(self) -> list[int]:
        """Mapped nodes in list order."""
        return [int(v) for v in self._sequence[: self._n_mapped]]

    @property
    def finish(self) -> list[float]:
        """Finish in the list schedule by node, µs."""
        return [float(t) for t in self._finish]

    def place(self, path: tuple[int, ...]) -> None:
        """Put the whole of `path` on the device that gives the shortest list schedule."""
        self._finish = _place(
            np.array(path),
            self._priority,
            self._starts,
            self._preds,
            self._edge_us,
            self._time,
            self._device,
            self._sequence,
            self._n_mapped,
            self._finish,
        )
        self._n_mapped += len(path)


@compiled
def _place(
    path: Ints,
    priority: Ints,
    starts: Ints,
    preds: Ints,
    edge_us: Floats,
    time: Floats,
    device: Ints,
    sequence: Ints,
    n_mapped: int,
    finish: Floats,
) -> Floats:
    """Map `path` (in list order) and insert it into `sequence`; return the new finish times."""
    n_devices = time.shape[1]
    first = np.searchsorted(priority[sequence[:n_mapped]], priority[path[0]])
    free = np.zeros(n_devices)
    for index in range(first):
        v = sequence[index]
        free[device[v]] = finish[v]
    rest = np.zeros(n_devices)
    for index in range(first, n_mapped):
        v = sequence[index]
        rest[device[v]] += time[v, device[v]]

    # Merge from the back: both are in list order.
    here, mine = n_mapped - 1, len(path) - 1
    for index in range(n_mapped + len(path) - 1, first - 1, -1):
        if mine < 0:
            break
        if here >= first and priority[sequence[here]] > priority[path[mine]]:
            sequence[index] = sequence[here]
            here -= 1
        else:
            sequence[index] = path[mine]
            mine -= 1
    suffix = sequence[first : n_mapped + len(path)]

    load = free + rest
    for d in range(n_devices):
        own = 0.0
        for v in path:
            own += time[v, d]
        load[d] += own
    best_makespan, best_device = np.inf, n_devices
    best_finish = finish
    for d in np.argsort(load, kind="mergesort"):
        # Loads add the same times in another order than schedules do: leave room for rounding.
        cut = best_makespan * (1.0 + 1e-9)
        if load[d] > cut:
            continue
        for v in path:
            device[v] = d
        remaining = rest.copy()
        remaining[d] = load[d] - free[d]
        times = finish.copy()
        makespan = _time_suffix(
            suffix, device, starts, preds, edge_us, time, times, free.copy(), remaining, cut
        )
        if makespan < best_makespan or (makespan == best_makespan and d < best_device):
            best_makespan, best_device, best_finish = makespan, d, times
    for v in path:
        device[v] = best_device
    return best_finish


@compiled
def _time_suffix(
    suffix: Ints,
    device: Ints,
    starts: Ints,
    preds: Ints,
    edge_us: Floats,
    time: Floats,
    finish: Floats,
    free: Floats,
    remaining: Floats,
    cut: float,
) -> float:
    """Time `suffix`; return its makespan, or infinity once that must exceed `cut`."""
    n_devices = len(free)
    for v in suffix:
        d = device[v]
        now = free[d]
        for entry in range(starts[v], starts[v + 1]):
            u = preds[entry, 0]
            src = device[u]
            if src >= 0:  # mapped
                arrives = finish[u] + edge_us[preds[entry, 1], src * n_devices + d]
                now = max(now, arrives)
        alone = time[v, d]
        now += alone
        finish[v] = free[d] = now
        remaining[d] -= alone
        if now + remaining[d] > cut:
            return float(np.inf)
    return float(free.max())
