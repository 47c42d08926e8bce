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
    """Which reader pays for which copy, where copies occupy their destination.

    Built once per (problem, order); `paid_us` answers for any choice of devices.
    """

    def __init__(self, problem: Problem, order: Sequence[int]) -> None:
        self.problem = problem
        self.occupies = [
            problem.machine.copies_occupy(DeviceId(d)) and problem.n_devices > 1
            for d in range(problem.n_devices)
        ]
        self.is_needed = any(self.occupies)
        place = [0] * problem.n_nodes
        for index, node in enumerate(order):
            place[node] = index
        readers: dict[TensorId, list[int]] = {}
        if self.is_needed:
            for (_, v), tensors in zip(problem.edges, problem.edge_tensors, strict=True):
                for tensor in tensors:
                    readers.setdefault(tensor, []).append(v)
        # Readers of the same tensor that come before v in the list, by (tensor, v).
        self.earlier: dict[tuple[TensorId, int], list[int]] = {}
        for tensor, nodes in readers.items():
            nodes.sort(key=place.__getitem__)
            for index in range(1, len(nodes)):
                self.earlier[tensor, nodes[index]] = nodes[:index]

    def paid_us(self, edge: int, node: int, src: int, dst: int, device: Sequence[int]) -> float:
        """Return the time of the copies of `edge` that `node` on `dst` is the first to need.

        Parameters
        ----------
        edge, node, src, dst
            An edge into `node`, from a producer on `src`.
        device
            By node; negative for nodes that take no part.
        """
        problem = self.problem
        pair = src * problem.n_devices + dst
        total = 0.0
        for tensor in problem.edge_tensors[edge]:
            others = self.earlier.get((tensor, node))
            if others is None or not any(device[other] == dst for other in others):
                total += problem.tensor_us[tensor][pair]
        return total


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
            local = 0.0
            for u, edge in problem.preds[v]:
                if device[u] == d:
                    local = max(local, finish[u])
                    continue
                cost = plan.paid_us(edge, v, device[u], d, device)
                if cost > 0.0:
                    now = max(now, finish[u]) + cost
            now = max(now, local)
        else:
            for u, edge in problem.preds[v]:
                now = max(now, finish[u] + problem.edge_us[edge][device[u] * n_devices + d])
        start[v] = now
        finish[v] = free[d] = now + problem.time[v][d]
    return ListTimes(start, finish, max(finish, default=0.0))
