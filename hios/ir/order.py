"""Topological order without recursion and without a graph library (whose import takes longer)."""

import heapq
from collections.abc import Iterable

from hios.ir.ids import OpId

__all__ = ["topological_prefix"]


def topological_prefix(n_operators: int, edges: Iterable[tuple[OpId, OpId]]) -> list[OpId]:
    """Return the operators in the topological order that prefers small ids.

    Parameters
    ----------
    n_operators
        Ids are 0 to ``n_operators - 1``.
    edges
        ``(producer, consumer)``, each once.

    Returns
    -------
    list of OpId
        All operators, or fewer when some are on or behind a cycle.

    Notes
    -----
    Kahn's algorithm with a heap: O(V log V + E).
    """
    waits = [0] * n_operators
    followers: list[list[OpId]] = [[] for _ in range(n_operators)]
    for u, v in edges:
        waits[v] += 1
        followers[u].append(v)
    ready = [OpId(op) for op in range(n_operators) if waits[op] == 0]
    order: list[OpId] = []
    while ready:
        u = heapq.heappop(ready)
        order.append(u)
        for v in followers[u]:
            waits[v] -= 1
            if waits[v] == 0:
                heapq.heappush(ready, v)
    return order
