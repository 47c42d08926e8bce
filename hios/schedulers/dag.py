"""The dependencies of a graph by position in its topological order.

Algorithms for one device need neither transfers nor virtual inputs and outputs; they work on
positions 0 … n − 1, where ``u < v`` for every edge u → v, so that 'ties by topological index'
is 'ties by position'.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hios.costs.protocol import Costs
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId, OpId

__all__ = ["OpDag", "op_dag"]


@dataclass(frozen=True, slots=True)
class OpDag:
    """Operators in topological order, and their neighbours.

    Attributes
    ----------
    ops
        Operator at each position.
    preds, succs
        Positions of the neighbours of each position, ascending, each once.
    """

    ops: tuple[OpId, ...]
    preds: tuple[tuple[int, ...], ...]
    succs: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        """Return the number of operators."""
        return len(self.ops)

    def times_us(self, costs: Costs, device: DeviceId) -> list[float]:
        """Return the solo time of each position on a device."""
        return [costs.operator_us(op, device) for op in self.ops]

    def longest_to_exit(self, times_us: Sequence[float]) -> list[float]:
        """Return, for each position, the heaviest path that starts with it, itself included.

        Parameters
        ----------
        times_us
            Weight of each position.

        Returns
        -------
        list of float
            Non-increasing along every edge.
        """
        rank = [0.0] * len(self.ops)
        for v in range(len(self.ops) - 1, -1, -1):
            rank[v] = times_us[v] + max([rank[s] for s in self.succs[v]], default=0.0)
        return rank

    def descendants(self) -> list[int]:
        """Return the set of descendants of each position as a bitmask over positions.

        Notes
        -----
        O(V·E/64) time and V²/8 bytes.
        """
        masks = [0] * len(self.ops)
        for v in range(len(self.ops) - 1, -1, -1):
            mask = 0
            for w in self.succs[v]:
                mask |= masks[w] | (1 << w)
            masks[v] = mask
        return masks


def op_dag(graph: OpGraph) -> OpDag:
    """Number the operators of a graph topologically.

    Raises
    ------
    CyclicGraph
        When the graph is no DAG.

    Notes
    -----
    O(V log V + E).
    """
    ops = graph.topological_order()
    position = {op: index for index, op in enumerate(ops)}
    preds: list[list[int]] = [[] for _ in ops]
    succs: list[list[int]] = [[] for _ in ops]
    for u, v in sorted((position[u], position[v]) for u, v in graph.edges()):
        succs[u].append(v)
        preds[v].append(u)
    return OpDag(ops, tuple(map(tuple, preds)), tuple(map(tuple, succs)))
