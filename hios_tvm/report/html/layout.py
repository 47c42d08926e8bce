"""Where the operators of a graph stand on paper: layers from left to right.

The classic steps of layered drawing (K. Sugiyama, S. Tagawa and M. Toda, "Methods for visual
understanding of hierarchical system structures", IEEE Trans. SMC 11, 1981): operators get
layers, an edge over several layers passes through bends, layers are ordered by barycentres, and
coordinates are the least-squares positions that keep the order. Two choices suit networks:

* all long edges of one operator share their bends, as a wire does, so that a tensor with many
  readers is one line that forks;
* bends weigh more than operators when positions are sought, which keeps wires straight.

Everything is deterministic.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hios.errors import CyclicGraph
from hios.ir.ids import OpId
from hios.ir.order import topological_prefix

__all__ = ["Drawing", "draw_layers"]

_SWEEPS = 12
_STRAIGHTEN = 16
# Least distance of two neighbours of a layer, in rows.
_NEXT_OPERATORS, _NEXT_MIXED, _NEXT_BENDS = 1.0, 0.75, 0.4
_BEND_WEIGHT = 4.0

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Drawing:
    """Positions of operators and routes of edges.

    Attributes
    ----------
    places
        ``(layer, row)`` of each operator; layers are whole numbers from 0, rows start at 0.
    bends
        Places that an edge passes between its ends, by ``(source, target)``; empty for an edge
        between neighbouring layers.
    layers, rows
        Extent of the drawing: number of layers, and the largest row.
    """

    places: tuple[Point, ...]
    bends: dict[tuple[int, int], tuple[Point, ...]]
    layers: int
    rows: float


def draw_layers(count: int, edges: Iterable[tuple[int, int]]) -> Drawing:
    """Lay out a directed acyclic graph.

    Parameters
    ----------
    count
        Nodes are 0 … count − 1.
    edges
        Pairs ``(source, target)``; repeated pairs count once.

    Returns
    -------
    Drawing
        One place for each node.

    Raises
    ------
    CyclicGraph
        When the edges run in a circle.

    Notes
    -----
    O(s·(V + E)·log V) for s sweeps, V counting nodes and bends.

    Examples
    --------
    >>> draw_layers(4, [(0, 1), (0, 2), (1, 3), (2, 3)]).places
    ((0, 0.5), (1, 0.0), (1, 1.0), (2, 0.5))
    """
    pairs = sorted(set(edges))
    layer = _layers(count, pairs)
    net = _Net(count, pairs, layer)
    columns = _order(net)
    row = _rows(net, columns)
    least = min(row, default=0.0)
    places = [(net.layer[node], round(row[node] - least, 3)) for node in range(len(net.layer))]
    return Drawing(
        places=tuple(places[:count]),
        bends={edge: tuple(places[bend] for bend in net.route[edge]) for edge in pairs},
        layers=max(net.layer, default=-1) + 1,
        rows=max((place[1] for place in places), default=0.0),
    )


class _Net:
    """Nodes and bends, with edges between neighbouring layers only."""

    def __init__(self, count: int, pairs: Sequence[tuple[int, int]], layer: list[int]) -> None:
        self.count = count
        self.layer = list(layer)
        self.route: dict[tuple[int, int], list[int]] = {}
        wires: dict[int, list[int]] = {}
        steps: set[tuple[int, int]] = set()
        for source, target in pairs:
            wire = wires.setdefault(source, [])
            length = layer[target] - layer[source] - 1
            while len(wire) < length:
                self.layer.append(layer[source] + len(wire) + 1)
                wire.append(len(self.layer) - 1)
            bends = wire[:length]
            self.route[source, target] = bends
            stops = [source, *bends, target]
            steps.update(itertools.pairwise(stops))
        self.before: list[list[int]] = [[] for _ in self.layer]
        self.after: list[list[int]] = [[] for _ in self.layer]
        for source, target in sorted(steps):
            self.after[source].append(target)
            self.before[target].append(source)

    def gap(self, upper: int, lower: int) -> float:
        """Return the least distance of two neighbours of a layer."""
        bends = (upper >= self.count) + (lower >= self.count)
        return (_NEXT_OPERATORS, _NEXT_MIXED, _NEXT_BENDS)[bends]


def _layers(count: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """Return the earliest layer of each node, later where that shortens more edges."""
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    for source, target in pairs:
        after[source].append(target)
        before[target].append(source)
    order = topological_prefix(count, [(OpId(source), OpId(target)) for source, target in pairs])
    if len(order) < count:
        raise CyclicGraph("a graph with a circle cannot be drawn in layers")
    layer = [0] * count
    for node in order:
        layer[node] = max((layer[source] + 1 for source in before[node]), default=0)
    for node in reversed(order):
        if after[node] and len(after[node]) > len(before[node]):
            layer[node] = min(layer[target] for target in after[node]) - 1
    return layer


def _order(net: _Net) -> list[list[int]]:
    """Return the nodes of each layer from top to bottom, with few crossings."""
    columns: list[list[int]] = [[] for _ in range(max(net.layer, default=-1) + 1)]
    seen: set[int] = set()
    # Depth first from the inputs: what belongs together starts together.
    for root in range(len(net.layer)):
        stack = [root] if not net.before[root] else []
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            columns[net.layer[node]].append(node)
            stack.extend(reversed(net.after[node]))
    best, fewest = [list(column) for column in columns], _crossings(net, columns)
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        is_forward = sweep % 2 == 0
        neighbours = net.before if is_forward else net.after
        indices = range(1, len(columns)) if is_forward else range(len(columns) - 2, -1, -1)
        place = {node: i for column in columns for i, node in enumerate(column)}
        for index in indices:
            column = columns[index]
            column.sort(key=lambda node: _barycentre(node, neighbours, place))
            for i, node in enumerate(column):
                place[node] = i
        crossings = _crossings(net, columns)
        if crossings < fewest:
            best, fewest = [list(column) for column in columns], crossings
    return best


def _barycentre(node: int, neighbours: list[list[int]], place: dict[int, int]) -> float:
    around = neighbours[node]
    if not around:
        return float(place[node])
    return sum(place[other] for other in around) / len(around)


def _crossings(net: _Net, columns: list[list[int]]) -> int:
    """Count crossings between neighbouring layers with a Fenwick tree."""
    total = 0
    for column, following in itertools.pairwise(columns):
        place = {node: i for i, node in enumerate(following)}
        tree = [0] * (len(following) + 1)
        entered = 0
        for node in column:
            ends = sorted(place[target] for target in net.after[node])
            for end in ends:
                index, below = end + 1, 0
                while index:
                    below += tree[index]
                    index &= index - 1
                total += entered - below
            for end in ends:
                index = end + 1
                while index < len(tree):
                    tree[index] += 1
                    index += index & -index
                entered += 1
    return total


def _rows(net: _Net, columns: list[list[int]]) -> list[float]:
    """Return a row for every node: near its neighbours, in the order of its layer."""
    row = [0.0] * len(net.layer)
    for column in columns:
        at = 0.0
        for upper, node in zip([None, *column], column, strict=False):
            at += 0.0 if upper is None else net.gap(upper, node)
            row[node] = at
        for node in column:
            row[node] -= at / 2
    for turn in range(_STRAIGHTEN):
        is_forward = turn % 2 == 0
        for column in columns if is_forward else reversed(columns):
            # The last turns look both ways, or the first layers would lean on the last sweep.
            wanted, weights = [], []
            for node in column:
                around = net.before[node] if is_forward else net.after[node]
                if turn >= _STRAIGHTEN - 4:
                    around = net.before[node] + net.after[node]
                wanted.append(sum(row[n] for n in around) / len(around) if around else row[node])
                weights.append(_BEND_WEIGHT if node >= net.count else 1.0)
            _place_column(net, column, wanted, weights, row)
    return row


def _place_column(
    net: _Net, column: list[int], wanted: list[float], weights: list[float], row: list[float]
) -> None:
    """Move nodes to the least-squares positions that keep order and distances.

    Without the distances this is isotonic regression, which pooling adjacent violators solves
    exactly; the distances are subtracted first and added again.
    """
    offsets = [0.0]
    for upper, lower in itertools.pairwise(column):
        offsets.append(offsets[-1] + net.gap(upper, lower))
    pools: list[tuple[float, float, int]] = []  # mean, weight, members
    for want, weight, offset in zip(wanted, weights, offsets, strict=False):
        mean, size = want - offset, 1
        while pools and pools[-1][0] > mean:
            other, heavy, members = pools.pop()
            mean = (mean * weight + other * heavy) / (weight + heavy)
            weight, size = weight + heavy, size + members
        pools.append((mean, weight, size))
    means = [mean for mean, _, members in pools for _ in range(members)]
    for node, mean, offset in zip(column, means, offsets, strict=True):
        row[node] = mean + offset
