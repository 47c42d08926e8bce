"""Layered random graphs, the model networks of the HIOS paper's simulation study.

"HIOS", IEEE CLUSTER 2023, section on simulation: operators in layers, dependencies mostly between
neighbouring layers, times and utilisations uniform, a transfer in proportion to the time of the
operator that reads the value. One operator begins and one ends the graph.

Only `random.Random.random` is drawn from, whose sequence Python promises to keep: the same
parameters give the same graph everywhere.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from hios.errors import InvalidOption
from hios.graph_file import GraphFile
from hios.ir.graph import Operator, OpGraph, Tensor
from hios.ir.ids import OpId, TensorId

__all__ = ["LayeredGraphOptions", "layered_graph"]

# Draws one of the numbers 0 … count − 1.
_Pick = Callable[[int], int]


@dataclass(frozen=True, slots=True)
class LayeredGraphOptions:
    """What a layered random graph looks like.

    Attributes
    ----------
    operators, edges, layers
        Sizes; the defaults are the paper's.
    ratio
        Transfer time of an edge over the time of the operator that reads it.
    least_transfer_us
        Floor of a transfer time.
    least_time_us, most_time_us
        Operator times are uniform between the two.
    least_utilization
        Utilisations are uniform between this and 1.
    """

    operators: int = 200
    edges: int = 400
    layers: int = 14
    ratio: float = 0.8
    least_transfer_us: float = 100.0
    least_time_us: float = 100.0
    most_time_us: float = 4000.0
    least_utilization: float = 0.6

    def validate(self) -> None:
        """Check ranges.

        Raises
        ------
        InvalidOption
            On the first value out of range.
        """
        if self.layers < 2 or self.operators < self.layers:
            raise InvalidOption(
                f"{self.operators} operators in {self.layers} layers: need at least 2 layers and "
                "one operator in each"
            )
        if self.edges < 0:
            raise InvalidOption(f"edges is {self.edges}; need at least 0")
        for name in ("ratio", "least_transfer_us", "least_time_us"):
            value = getattr(self, name)
            if not 0.0 <= value < math.inf:
                raise InvalidOption(f"{name} is {value}; must be finite and not negative")
        if not self.least_time_us <= self.most_time_us < math.inf:
            raise InvalidOption(
                f"most_time_us is {self.most_time_us}; need a finite time of at least "
                f"{self.least_time_us}"
            )
        if not 0.0 <= self.least_utilization <= 1.0:
            raise InvalidOption(
                f"least_utilization is {self.least_utilization}; need a fraction from 0 to 1"
            )


def layered_graph(seed: int, options: LayeredGraphOptions | None = None) -> GraphFile:
    """Draw a layered random graph.

    Every operator but the first reads one of the layer before, and every one but the last is
    read by one of the layer behind. The remaining edges join random pairs of neighbouring
    layers, and of any two layers once all those pairs are joined.

    Parameters
    ----------
    seed
        Same seed and options, same graph.
    options
        Sizes and ranges; the paper's by default.

    Returns
    -------
    GraphFile
        With just the number of operators, edges and layers asked for.

    Raises
    ------
    InvalidOption
        When an option is out of range, or there are too few or too many edges for the shape
        drawn.

    Notes
    -----
    O(V·L + E), more when nearly all pairs are joined.

    Examples
    --------
    >>> drawn = layered_graph(7, LayeredGraphOptions(operators=20, edges=40, layers=5))
    >>> len(drawn.graph.operators), len(drawn.graph.edges())
    (20, 40)
    """
    options = LayeredGraphOptions() if options is None else options
    options.validate()
    uniform = random.Random(seed).random

    def pick(count: int) -> int:
        return int(uniform() * count)

    layers = _layers(options, pick)
    edges = _edges(options, layers, pick)
    spread = options.most_time_us - options.least_time_us
    times = [options.least_time_us + spread * uniform() for _ in range(options.operators)]
    least = options.least_utilization
    utilization = [least + (1.0 - least) * uniform() for _ in range(options.operators)]
    transfers = [max(options.least_transfer_us, options.ratio * times[v]) for _, v in edges]
    name = f"layered_{options.operators}_{options.edges}_{options.layers}_s{seed}"
    return GraphFile(
        _op_graph(name, options.operators, edges),
        tuple(times),
        tuple(utilization),
        tuple(transfers),
    )


def _layers(options: LayeredGraphOptions, pick: _Pick) -> list[list[int]]:
    """Return the operators of each layer, numbered layer by layer."""
    sizes = [1] * options.layers
    inner = options.layers - 2
    for _ in range(options.operators - options.layers):
        # Two layers have no inner one to grow: the first takes all.
        sizes[1 + pick(inner) if inner else 0] += 1
    layers, first = [], 0
    for size in sizes:
        layers.append(list(range(first, first + size)))
        first += size
    return layers


def _edges(
    options: LayeredGraphOptions, layers: list[list[int]], pick: _Pick
) -> list[tuple[int, int]]:
    edges: set[tuple[int, int]] = set()
    for before, layer in pairwise(layers):
        for v in layer:
            edges.add((before[pick(len(before))], v))
        read = {u for u, _ in edges if u >= before[0]}
        for u in before:
            if u not in read:
                edges.add((u, layer[pick(len(layer))]))
    if len(edges) > options.edges:
        raise InvalidOption(
            f"{options.edges} edges cannot join {options.operators} operators in "
            f"{options.layers} layers; these need {len(edges)}"
        )
    sizes = [len(layer) for layer in layers]
    total = sum(sizes)
    most = (total * total - sum(size * size for size in sizes)) // 2
    if options.edges > most:
        raise InvalidOption(
            f"{options.edges} edges are too many for {options.operators} operators in "
            f"{options.layers} layers; these have {most} pairs"
        )
    layer_of = [index for index, layer in enumerate(layers) for _ in layer]
    near = sum(a * b for a, b in pairwise(sizes))
    while len(edges) < options.edges:
        u = pick(total)
        if len(edges) < near and layer_of[u] + 1 < len(layers):
            layer = layers[layer_of[u] + 1]
            edges.add((u, layer[pick(len(layer))]))
        elif len(edges) >= near:
            v = pick(total)
            if layer_of[u] < layer_of[v]:
                edges.add((u, v))
    return sorted(edges)


def _op_graph(name: str, n_ops: int, edges: list[tuple[int, int]]) -> OpGraph:
    inputs: list[list[TensorId]] = [[] for _ in range(n_ops)]
    outputs: list[list[TensorId]] = [[] for _ in range(n_ops)]
    tensors = []
    for index, (u, v) in enumerate(edges):
        tensor = TensorId(index)
        tensors.append(Tensor(tensor, f"{u}->{v}", (), "float32", 0, OpId(u), (OpId(v),)))
        outputs[u].append(tensor)
        inputs[v].append(tensor)
    operators = tuple(
        Operator(OpId(v), str(v), "opaque", "", tuple(inputs[v]), tuple(outputs[v]))
        for v in range(n_ops)
    )
    return OpGraph(name, operators, tuple(tensors))
