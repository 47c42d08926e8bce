"""List schedules: operators in a fixed order, each as early as its device and its inputs allow.

One stream a device. Links are not contended here, as in the papers; where a copy occupies its
destination it is paid there, once per tensor, by its first reader in list order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hios.ir.ids import DeviceId, TensorId
from hios.problem import Problem

__all__ = ["CopyPlan", "ListTimes", "list_schedule"]


@dataclass(frozen=True, slots=True)
class ListTimes:
    """A timed list schedule.

    Attributes
    ----------
    start_us, finish_us
        By node.
    makespan_us
        Latest finish.
    """

    start_us: list[float]
    finish_us: list[float]
    makespan_us: float


class CopyPlan:
    """When inputs are present, where copies occupy their destination.

    Built once per (problem, order); answers for any choice of devices. The copies that one
    operator is the first to need run before it, by tensor id.
    """

    def __init__(self, problem: Problem, order: Sequence[int]) -> None:
        self.problem = problem
        self.occupies = [
            problem.machine.copies_occupy(DeviceId(d)) and problem.n_devices > 1
            for d in range(problem.n_devices)
        ]
        self.is_needed = any(self.occupies)
        # Inputs of each node, by tensor: (tensor, producer, readers before it in the list).
        self._inputs: list[list[tuple[TensorId, int, list[int]]]] = [[] for _ in problem.nodes()]
        if not self.is_needed:
            return
        producer: dict[TensorId, int] = {}
        readers: dict[TensorId, list[int]] = {}
        for (u, v), tensors in zip(problem.edges, problem.edge_tensors, strict=True):
            for tensor in tensors:
                producer[tensor] = u
                readers.setdefault(tensor, []).append(v)
        place = {node: index for index, node in enumerate(order)}
        for tensor in sorted(readers):
            nodes = sorted(readers[tensor], key=place.__getitem__)
            for index, v in enumerate(nodes):
                self._inputs[v].append((tensor, producer[tensor], nodes[:index]))

    def ready_us(
        self, v: int, d: int, free_us: float, device: Sequence[int], finish_us: Sequence[float]
    ) -> float:
        """Return when `v` may start on `d`, which is free (for copies first) at `free_us`.

        Parameters
        ----------
        v, d
            Node and device; copies into `d` occupy it.
        free_us
            When `d` has done what stands before.
        device, finish_us
            By node; the device of nodes that take no part is negative.
        """
        problem = self.problem
        n_devices = problem.n_devices
        now, local = free_us, 0.0
        for tensor, u, earlier in self._inputs[v]:
            src = device[u]
            if src == d:
                local = max(local, finish_us[u])
            elif src >= 0 and not any(device[other] == d for other in earlier):
                now = max(now, finish_us[u]) + problem.tensor_us[tensor][src * n_devices + d]
        return max(now, local)


def list_schedule(problem: Problem, order: Sequence[int], device: Sequence[int]) -> ListTimes:
    """Time all nodes in `order`, each on its device.

    Parameters
    ----------
    problem
        Whose nodes are meant.
    order
        All nodes, topological.
    device
        By node.

    Returns
    -------
    ListTimes
        ``start = max(device free, finish of each predecessor + transfer)``.

    Notes
    -----
    O(V + E).
    """
    n_devices = problem.n_devices
    plan = CopyPlan(problem, order)
    free = [0.0] * n_devices
    start = [0.0] * problem.n_nodes
    finish = [0.0] * problem.n_nodes
    for v in order:
        d = device[v]
        now = free[d]
        if plan.occupies[d]:
            now = plan.ready_us(v, d, now, device, finish)
        else:
            for u, edge in problem.preds[v]:
                now = max(now, finish[u] + problem.edge_us[edge][device[u] * n_devices + d])
        start[v] = now
        finish[v] = free[d] = now + problem.time[v][d]
    return ListTimes(start, finish, max(finish, default=0.0))
