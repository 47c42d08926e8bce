"""How parallel a graph is, and where it can be cut.

All functions take a directed acyclic graph of networkx, over any node type; operators are
nodes and an edge u → v means that v needs a result of u.

A *cut node* lies on every path from a source to a sink: everything else happens either before
or after it, so a schedule of the whole is a schedule of one *block* after the other, and IOS
(Ding et al., MLSys 2021) searches each block alone. The *width* d of a graph is the size of its
largest antichain: the most operators that can ever run at once. For a block of n operators IOS
bounds its number of transitions (S, S') by C(n/d + 2, 2)^d (table 1 there).
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import networkx as nx

from hios.errors import CyclicGraph

__all__ = [
    "BlockFacts",
    "block_facts",
    "blocks",
    "cut_nodes",
    "ios_transition_bound",
    "largest_block",
    "longest_path",
    "width",
]

N = TypeVar("N", bound=Hashable)


@dataclass(frozen=True, slots=True)
class BlockFacts:
    """Size and parallelism of one block.

    Attributes
    ----------
    operators
        n, the number of operators.
    width
        d, the size of the largest antichain.
    transition_bound
        IOS's upper bound on its pairs (S, S').
    """

    operators: int
    width: int
    transition_bound: float


def cut_nodes(graph: "nx.DiGraph[N]") -> list[N]:
    """Return the nodes that every source-to-sink path goes through, in topological order.

    Parameters
    ----------
    graph
        Directed acyclic graph; several sources and sinks are fine.

    Returns
    -------
    list
        A single source and a single sink are cut nodes too.

    Raises
    ------
    CyclicGraph
        When the graph has a cycle.

    Notes
    -----
    The chain of immediate dominators of a virtual sink, seen from a virtual source:
    O(V·E) at worst, close to linear on networks.

    Examples
    --------
    >>> import networkx as nx
    >>> cut_nodes(nx.DiGraph([("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("d", "e")]))
    ['a', 'd', 'e']
    """
    _require_acyclic(graph)
    if not graph:
        return []
    source, sink = object(), object()
    whole: nx.DiGraph[object] = nx.DiGraph(graph.edges)
    whole.add_nodes_from(graph)
    whole.add_edges_from((source, node) for node, degree in graph.in_degree if degree == 0)
    whole.add_edges_from((node, sink) for node, degree in graph.out_degree if degree == 0)
    dominator = nx.immediate_dominators(whole, source)
    found: list[N] = []
    node = dominator[sink]
    while node is not source:
        found.append(node)
        node = dominator[node]
    return found[::-1]


def blocks(graph: "nx.DiGraph[N]") -> list[list[N]]:
    """Split a graph at its cut nodes; a cut node ends its block.

    Parameters
    ----------
    graph
        Directed acyclic graph.

    Returns
    -------
    list of list
        Every node once, each block in topological order, the blocks in order of execution.
        The node that enters a block belongs to the block before it.

    Raises
    ------
    CyclicGraph
        When the graph has a cycle.

    Examples
    --------
    >>> import networkx as nx
    >>> blocks(nx.DiGraph([(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)]))
    [[0], [1, 2, 3], [4]]
    """
    cuts: set[N] = set(cut_nodes(graph))
    found: list[list[N]] = [[]]
    # Every other node is an ancestor or a descendant of each cut node, so any topological
    # order lists the blocks one after the other.
    for node in nx.topological_sort(graph):
        found[-1].append(node)
        if node in cuts:
            found.append([])
    return [block for block in found if block]


def width(graph: "nx.DiGraph[N]") -> int:
    """Return the size of the largest set of operators of which none needs another.

    Parameters
    ----------
    graph
        Directed acyclic graph.

    Returns
    -------
    int
        d; 0 for the empty graph.

    Raises
    ------
    CyclicGraph
        When the graph has a cycle.

    Notes
    -----
    Dilworth: the least number of chains that cover the order, which is n minus a maximum
    matching between each node and its descendants (Fulkerson 1956). Taken block by block,
    since a cut node is comparable with everything. O(closure edges · √n) a block.

    Examples
    --------
    >>> import networkx as nx
    >>> width(nx.DiGraph([(0, 1), (0, 2), (0, 3), (3, 4), (1, 5), (2, 5), (4, 5)]))
    3
    """
    parts: list[list[N]] = blocks(graph)
    return max((_block_width(graph.subgraph(part)) for part in parts), default=0)


def longest_path(
    graph: "nx.DiGraph[N]", weight: Callable[[N], float] = lambda _: 1.0
) -> tuple[float, list[N]]:
    """Return the heaviest path by node weights, and its weight.

    Parameters
    ----------
    graph
        Directed acyclic graph.
    weight
        Weight ≥ 0 of a node; every node counts one by default.

    Returns
    -------
    length : float
        Sum of the weights on the path; 0.0 for the empty graph.
    path : list
        Its nodes in order.

    Raises
    ------
    CyclicGraph
        When the graph has a cycle.

    Examples
    --------
    >>> import networkx as nx
    >>> longest_path(nx.DiGraph([(0, 1), (1, 3), (0, 2), (2, 3)]), lambda n: float(n))
    (5.0, [0, 2, 3])
    """
    _require_acyclic(graph)
    best: dict[N, float] = {}
    before: dict[N, N | None] = {}
    for node in nx.topological_sort(graph):
        previous = max(graph.predecessors(node), key=best.__getitem__, default=None)
        before[node] = previous
        best[node] = weight(node) + (0.0 if previous is None else best[previous])
    if not best:
        return 0.0, []
    end: N | None = max(best, key=best.__getitem__)
    length = best[end] if end is not None else 0.0
    path: list[N] = []
    while end is not None:
        path.append(end)
        end = before[end]
    return length, path[::-1]


def ios_transition_bound(operators: int, width: int) -> float:
    """Return IOS's upper bound C(n/d + 2, 2)^d on the transitions of its dynamic programme.

    Parameters
    ----------
    operators
        n, at least 1.
    width
        d, between 1 and n.

    Examples
    --------
    >>> ios_transition_bound(6, 3)
    216.0
    """
    chain = operators / width
    return float(((chain + 2) * (chain + 1) / 2) ** width)


def block_facts(graph: "nx.DiGraph[N]", nodes: Iterable[N]) -> BlockFacts:
    """Return the facts of the sub-graph that some nodes span.

    Parameters
    ----------
    graph
        The whole graph.
    nodes
        The nodes of the block, at least one.
    """
    part = graph.subgraph(nodes)
    antichain = width(part)
    count = part.number_of_nodes()
    return BlockFacts(count, antichain, ios_transition_bound(count, antichain))


def largest_block(
    graph: "nx.DiGraph[N]", partition: Iterable[Iterable[N]] | None = None
) -> BlockFacts:
    """Return the facts of the widest block, of equals the one with the highest bound.

    Parameters
    ----------
    graph
        Directed acyclic graph with at least one node.
    partition
        The blocks; by default `blocks(graph)`. A network whose cells see the last two cells
        has no cut nodes between them and brings its own partition.
    """
    parts = blocks(graph) if partition is None else partition
    return max(
        (block_facts(graph, part) for part in parts), key=lambda f: (f.width, f.transition_bound)
    )


def _require_acyclic(graph: "nx.DiGraph[N]") -> None:
    if not nx.is_directed_acyclic_graph(graph):
        circle = " -> ".join(str(edge[0]) for edge in nx.find_cycle(graph))
        raise CyclicGraph(f"the graph has a cycle: {circle}; remove one of these edges")


def _block_width(block: "nx.DiGraph[N]") -> int:
    order = list(nx.topological_sort(block))
    if len(order) <= 1:
        return len(order)
    below: dict[N, set[N]] = {}
    for node in reversed(order):
        reach: set[N] = set()
        for successor in block.successors(node):
            reach.add(successor)
            reach |= below[successor]
        below[node] = reach
    pairs: nx.Graph[tuple[int, N]] = nx.Graph()
    left = [(0, node) for node in order]
    pairs.add_nodes_from(left)
    pairs.add_edges_from(((0, u), (1, v)) for u, reached in below.items() for v in reached)
    matching = nx.bipartite.hopcroft_karp_matching(pairs, top_nodes=left)
    return len(order) - len(matching) // 2
