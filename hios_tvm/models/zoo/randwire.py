"""Randomly wired networks (Xie et al., ICCV 2019, table 1), Watts–Strogatz WS(4, 0.75).

A stage is a random graph of 32 nodes (16 in the first one of the larger two), each a rectifier
and a 3×3 separable convolution of the sum of what it reads; nodes that read nothing get the
stage's input at stride 2, what nobody reads is summed. Edges run from the lower to the higher
node number, as in section 3.2 there. The learned weights of the sums and the mean at the end of
a stage are left out, as in IOS. A stage of 32 nodes and its sum are IOS's largest block: 33
units. How many can run at once depends on the wiring; the published networks have 8, and
`WIRING` is the first seed for which all three sizes have 8 as well.
"""

import networkx as nx

from hios_tvm.models.blocks import Block
from hios_tvm.models.builder import (
    conv2d,
    identity,
    linear,
    placeholder,
    pool2d,
    relu,
    reset_name,
    rwconv2d,
)
from hios_tvm.models.graph import Graph
from hios_tvm.models.values import Value
from hios_tvm.models.zoo.scaling import scaled

__all__ = ["WIRING", "randwire_large", "randwire_regular", "randwire_small", "wiring_graph"]

WIRING = 4
"""Seed of the default wiring: stage i is drawn with seed ``WIRING + i``."""


def randwire_small(
    image_size: int = 224, width: float = 1.0, classes: int = 1000, wiring: int = WIRING
) -> Graph:
    """Build the small regime: 78 channels, three stages of 32 nodes.

    Parameters
    ----------
    image_size : int
        Height and width of the image.
    width : float
        Multiplier of all channels.
    classes : int
        Outputs of the classifier.
    wiring : int
        Seed of the random graphs.
    """
    return _randwire("randwire_small", image_size, 78, width, classes, wiring, small=True)


def randwire_regular(
    image_size: int = 224, width: float = 1.0, classes: int = 1000, wiring: int = WIRING
) -> Graph:
    """Build the regular regime with 109 channels: a stage of 16 nodes and three of 32.

    Parameters
    ----------
    image_size, width, classes, wiring
        As for `randwire_small`.
    """
    return _randwire("randwire_regular", image_size, 109, width, classes, wiring, small=False)


def randwire_large(
    image_size: int = 224, width: float = 1.0, classes: int = 1000, wiring: int = WIRING
) -> Graph:
    """Build the regular regime with 154 channels, the network of the IOS and HIOS papers.

    Parameters
    ----------
    image_size, width, classes, wiring
        As for `randwire_small`.
    """
    return _randwire("randwire_large", image_size, 154, width, classes, wiring, small=False)


def wiring_graph(nodes: int, seed: int) -> "nx.DiGraph[int]":
    """Return a connected Watts–Strogatz graph (4 neighbours, 0.75 rewired), low to high.

    Parameters
    ----------
    nodes : int
        Number of nodes.
    seed : int
        Same seed, same graph.
    """
    ring = nx.connected_watts_strogatz_graph(nodes, 4, 0.75, tries=1000, seed=seed)
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(nodes))
    graph.add_edges_from((min(edge), max(edge)) for edge in ring.edges)
    return graph


def _randwire(
    name: str,
    image_size: int,
    base: int,
    width: float,
    classes: int,
    wiring: int,
    *,
    small: bool,
) -> Graph:
    reset_name()
    channels = scaled(base, width, multiple=2)
    image = placeholder((3, image_size, image_size))
    front = Block(image.node)
    down = ((3, 3), (2, 2), (1, 1))
    if small:
        half = conv2d(front, [[image]], channels // 2, *down)
        value = conv2d(front, [[half]], channels, *down, act="identity", is_exit=True)
        stages = [(32, 1), (32, 2), (32, 4)]
    else:
        value = conv2d(front, [[image]], channels // 2, *down, act="identity", is_exit=True)
        stages = [(16, 1), (32, 2), (32, 4), (32, 8)]
    blocks = [front]
    for index, (nodes, factor) in enumerate(stages):
        graph = wiring_graph(nodes, seed=wiring + index)
        value = _stage(blocks, value, channels * factor, graph)
    tail = Block(value.node)
    features = relu(tail, [[value]])
    features = conv2d(tail, [[features]], scaled(1280, width), act="relu")
    features = pool2d(tail, [[features]], "global_avg")
    linear(tail, [[features]], classes, is_exit=True)
    return Graph(name, image.node, [*blocks, tail])


def _stage(blocks: list[Block], enters: Value, channels: int, graph: "nx.DiGraph[int]") -> Value:
    block = Block(enters.node)
    blocks.append(block)
    outputs: dict[int, Value] = {}
    for node in sorted(graph):
        read = [outputs[source] for source in sorted(graph.predecessors(node))]
        if read:
            outputs[node] = rwconv2d(block, [read], channels)
        else:
            outputs[node] = rwconv2d(block, [[enters]], channels, stride=(2, 2))
    ends = [outputs[node] for node in sorted(graph) if not graph.out_degree(node)]
    return identity(block, [ends], is_exit=True)
