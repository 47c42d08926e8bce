"""The dense view that scheduling algorithms work on.

Operators become *nodes*, numbered in topological order (so ``u < v`` for every edge u → v, and
'ties by topological index' is 'ties by node'). When the graph has inputs or outputs, a virtual
source (node 0) or sink (the last node) of no time is added and pinned to the first device,
where inputs start and outputs return. Times and transfers are looked up once.
"""

import numpy as np
import numpy.typing as npt

from hios.costs.protocol import Costs
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId, OpId, TensorId
from hios.ir.machine import Machine
from hios.ir.order import topological_prefix
from hios.ir.schedule import FIRST_DEVICE

__all__ = ["Problem"]


class Problem:
    """A graph on a machine under given costs, as arrays.

    Parameters
    ----------
    graph, machine, costs
        Costs must be those of this graph and machine.

    Attributes
    ----------
    n_nodes, n_devices
        Sizes.
    op_of
        Operator of each node; None for the virtual source and sink.
    node_of
        Node of each operator.
    source, sink
        The virtual nodes, or None.
    pinned
        Device that a node must run on, or None; only virtual nodes are pinned.
    time
        ``time[v][d]``: solo time in µs of node v on device d.
    mean_time
        Mean over the devices.
    preds, succs
        ``(neighbour, edge)`` pairs of each node, ascending.
    edges
        ``(u, v)`` of each edge.
    edge_tensors
        Root tensors that each edge carries.
    edge_us
        ``edge_us[e][src * n_devices + dst]``: Σ of the transfers of the edge's tensors; 0
        where src = dst.
    edge_mean_us
        Mean over the ordered pairs of different devices; 0 on one device.
    tensor_us
        As `edge_us`, for each tensor that some edge carries.

    Raises
    ------
    CyclicGraph
        When the graph is no DAG.
    InvalidMachine
        When a pair of devices has no link.

    Notes
    -----
    O(V·M + T·M²) questions to the costs for V operators, T tensors and M devices.
    """

    def __init__(self, graph: OpGraph, machine: Machine, costs: Costs) -> None:
        self.graph = graph
        self.machine = machine
        self.costs = costs
        self.n_devices = len(machine.devices)
        edges = graph.edges()
        order = topological_prefix(len(graph.operators), edges)
        if len(order) < len(graph.operators):
            order = list(graph.topological_order())  # raises, and names the circle

        self.op_of: list[OpId | None] = list(order)
        self.source: int | None = None
        self.sink: int | None = None
        if graph.inputs:
            self.source = 0
            self.op_of.insert(0, None)
        if graph.outputs:
            self.sink = len(self.op_of)
            self.op_of.append(None)
        self.n_nodes = len(self.op_of)
        self.node_of = [0] * len(order)
        for node, op in enumerate(self.op_of):
            if op is not None:
                self.node_of[op] = node

        devices = [DeviceId(d) for d in range(self.n_devices)]
        no_time = [0.0] * self.n_devices
        self.time: list[list[float]] = [
            no_time if op is None else [costs.operator_us(op, d) for d in devices]
            for op in self.op_of
        ]
        self.mean_time = [sum(row) / self.n_devices for row in self.time]
        self.pinned: list[DeviceId | None] = [
            FIRST_DEVICE if op is None else None for op in self.op_of
        ]
        self._add_edges(edges)

    def _add_edges(self, edges: dict[tuple[OpId, OpId], tuple[TensorId, ...]]) -> None:
        graph, node_of = self.graph, self.node_of
        carried = {(node_of[u], node_of[v]): tensors for (u, v), tensors in edges.items()}
        if self.source is not None:
            inputs = set(graph.inputs)
            for op in graph.operators:
                roots = {graph.root(t) for t in op.inputs}
                if used := tuple(sorted(roots & inputs)):
                    carried[self.source, node_of[op.id]] = used
        if self.sink is not None:
            returned: dict[int, list[TensorId]] = {}
            for tensor in sorted({graph.root(t) for t in graph.outputs}):
                producer = graph.tensors[tensor].producer
                if producer is not None:
                    returned.setdefault(node_of[producer], []).append(tensor)
            for node, values in returned.items():
                carried[node, self.sink] = tuple(values)

        n_devices = self.n_devices
        pairs = [(DeviceId(s), DeviceId(d)) for s in range(n_devices) for d in range(n_devices)]
        transfer = self.costs.transfer_us
        self.tensor_us: dict[TensorId, tuple[float, ...]] = {}
        self.preds: list[list[tuple[int, int]]] = [[] for _ in range(self.n_nodes)]
        self.succs: list[list[tuple[int, int]]] = [[] for _ in range(self.n_nodes)]
        self.edges: list[tuple[int, int]] = sorted(carried)
        self.edge_tensors: list[tuple[TensorId, ...]] = []
        self.edge_us: list[tuple[float, ...]] = []
        self.edge_mean_us: list[float] = []
        n_pairs = max(1, n_devices * (n_devices - 1))
        for edge, (u, v) in enumerate(self.edges):
            tensors = carried[u, v]
            for tensor in tensors:
                if tensor not in self.tensor_us:
                    self.tensor_us[tensor] = tuple(
                        [0.0 if src == dst else transfer(tensor, src, dst) for src, dst in pairs]
                    )
            if len(tensors) == 1:
                total = self.tensor_us[tensors[0]]
            else:
                columns = zip(*(self.tensor_us[t] for t in tensors), strict=True)
                total = tuple([sum(column) for column in columns])
            self.edge_tensors.append(tensors)
            self.edge_us.append(total)
            self.edge_mean_us.append(sum(total) / n_pairs)
            self.succs[u].append((v, edge))
            self.preds[v].append((u, edge))

    def transfer_us(self, edge: int, src: int, dst: int) -> float:
        """Return the time of the copies of one edge between two devices."""
        return self.edge_us[edge][src * self.n_devices + dst]

    def nodes(self) -> range:
        """Return all nodes in topological order."""
        return range(self.n_nodes)

    def operators(self) -> list[int]:
        """Return the nodes that are operators, in topological order."""
        return [node for node, op in enumerate(self.op_of) if op is not None]

    def op(self, node: int) -> OpId:
        """Return the operator of a node that is not virtual."""
        op = self.op_of[node]
        assert op is not None, f"node {node} is virtual"
        return op

    def upward_rank(self, with_transfers: bool = True) -> list[float]:
        """Return p(v) = t(v) + max over successors s of (c(v,s) + p(s)), of mean times.

        Parameters
        ----------
        with_transfers
            False leaves the c out.

        Returns
        -------
        list of float
            By node, µs; non-increasing along every edge.
        """
        rank = [0.0] * self.n_nodes
        cost = self.edge_mean_us if with_transfers else [0.0] * len(self.edges)
        for v in range(self.n_nodes - 1, -1, -1):
            rank[v] = self.mean_time[v] + max(
                [cost[edge] + rank[s] for s, edge in self.succs[v]], default=0.0
            )
        return rank

    def priority_order(self) -> list[int]:
        """Return the nodes by descending upward rank, ties by topological index.

        This is a topological order, since ranks never grow along an edge.
        """
        rank = self.upward_rank()
        return sorted(range(self.n_nodes), key=lambda v: (-rank[v], v))

    def ancestors(self) -> list[int]:
        """Return, for each node, the set of its ancestors as a bitmask over nodes.

        Notes
        -----
        O(V·E/64) time and V²/8 bytes: 12 MB for 10,000 operators.
        """
        masks = [0] * self.n_nodes
        for v in range(self.n_nodes):
            mask = 0
            for u, _ in self.preds[v]:
                mask |= masks[u] | (1 << u)
            masks[v] = mask
        return masks

    def time_array(self) -> npt.NDArray[np.float64]:
        """Return `time` as an array of shape (n_nodes, n_devices)."""
        return np.asarray(self.time, dtype=np.float64).reshape(self.n_nodes, self.n_devices)
