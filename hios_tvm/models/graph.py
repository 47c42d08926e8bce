"""A network: blocks one after the other, from one placeholder to one exit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import networkx as nx

from hios.errors import InvalidGraph
from hios_tvm.models.blocks import Block
from hios_tvm.models.node import Node
from hios_tvm.models.nodes import Conv, Linear, Placeholder, Sequential

if TYPE_CHECKING:
    import onnx

__all__ = ["Graph"]


class Graph:
    """A network written with the builder functions.

    Parameters
    ----------
    name : str
        For people and file names.
    input : Placeholder
        What the network takes.
    blocks : list of Block
        In order; the exit of each enters the next.

    Raises
    ------
    InvalidGraph
        When a block has no exit, blocks are not chained, two operators have one name, or an
        operator reads one that does not come before it.
    """

    __slots__ = ("blocks", "input", "name")

    def __init__(
        self,
        name: str,
        input: Node,  # noqa: A002 - the name in the IOS builder
        blocks: Sequence[Block],
    ) -> None:
        self.name = name
        self.input = input
        self.blocks = list(blocks)
        self.validate()

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the input."""
        return self.input.shape

    @property
    def enter_node(self) -> Node:
        """The operator that enters the first block."""
        return self.blocks[0].enter_node

    @property
    def exit_node(self) -> Node:
        """The operator whose output the network returns."""
        return self.blocks[-1].nodes()[-1]

    def nodes(self) -> Iterator[Node]:
        """Iterate over the input and all units, each after what it reads."""
        yield self.input
        for block in self.blocks:
            yield from block.nodes()

    def validate(self) -> None:
        """Check blocks, names and order; see the class for what is raised."""
        if not self.blocks:
            raise InvalidGraph(f"graph {self.name!r} has no blocks; give at least one")
        enter = self.input
        seen: set[str] = set()
        for block in self.blocks:
            if block.enter_node.name != enter.name:
                raise InvalidGraph(
                    f"graph {self.name!r}: a block is entered by {block.enter_node.owner}, but "
                    f"the block before it ends with {enter.owner}; blocks must form a chain"
                )
            enter = block.nodes()[-1]
        for node in self.nodes():
            for term in node.terms:
                for value in term:
                    if value.node.name not in seen:
                        raise InvalidGraph(
                            f"{node.owner} of graph {self.name!r} reads {value.node.owner}, "
                            "which does not come before it in any block of the graph"
                        )
            inner = node.nodes if isinstance(node, Sequential) else []
            for name in (node.name, *(part.name for part in inner)):
                if name in seen:
                    raise InvalidGraph(
                        f"graph {self.name!r} has two operators named {name!r}; do not call "
                        "reset_name() while a network is being built"
                    )
                seen.add(name)

    def infer_shape(self) -> None:
        """Set the output shape of every operator."""
        for node in self.nodes():
            node.infer_shape()

    def init_weights(self, seed: int = 0) -> None:
        """Fill `weight` and `bias` of every convolution and linear layer.

        Parameters
        ----------
        seed : int
            Same seed, same weights: those that `to_onnx` draws for layers that have none.
        """
        from hios_tvm.models.onnx_export import layer_weights

        for node in self.nodes():
            for layer in node.nodes if isinstance(node, Sequential) else [node]:
                if isinstance(layer, (Conv, Linear)):
                    layer.weight, layer.bias = layer_weights(layer, seed)

    def to_onnx(self, batch: int = 1, seed: int = 0) -> onnx.ModelProto:
        """Export as ONNX.

        Parameters
        ----------
        batch : int
            Images in one run.
        seed : int
            Seed of the weights of all layers whose `weight` is None.

        Returns
        -------
        onnx.ModelProto
            Input ``data`` (batch, channels, height, width), one output ``output``, float32.

        Raises
        ------
        InvalidOption
            When `batch` is below 1 or the weights set on a layer have another shape.
        """
        from hios_tvm.models.onnx_export import draft_graph

        return draft_graph(self, batch).to_model(seed)

    def unit_graph(self) -> nx.DiGraph[str]:
        """Return the units that a scheduler sees, by name, and who reads whom."""
        graph: nx.DiGraph[str] = nx.DiGraph()
        for block in self.blocks:
            for node in block.nodes():
                graph.add_node(node.name)
                graph.add_edges_from(
                    (value.node.name, node.name)
                    for term in node.terms
                    for value in term
                    if value.node is not self.input
                )
        return graph

    def parts(self) -> list[list[str]]:
        """Return the names of the units of each block, or of each part where a block has some."""
        return [
            [node.name for node in part]
            for block in self.blocks
            for part in (block.parts or [block.nodes()])
        ]

    def macs(self) -> int:
        """Multiply-adds for one image."""
        return sum(node.macs() for node in self.nodes())

    def parameters(self) -> int:
        """Number of weights and biases."""
        return sum(node.parameters() for node in self.nodes())

    def flops(self) -> int:
        """Floating-point operations for one image."""
        return sum(block.flops() for block in self.blocks)

    def memory_access(self) -> int:
        """Elements read and written for one image."""
        return sum(block.memory_access() for block in self.blocks)

    def kernels(self) -> int:
        """Kernel calls without fusion."""
        return sum(block.kernels() for block in self.blocks)

    def schedule_operators(self) -> int:
        """Return the number of units that a scheduler sees."""
        return sum(block.schedule_operators() for block in self.blocks)

    def sequential_schedule(self) -> None:
        """Set the stages of every block to one operator after the other."""
        for block in self.blocks:
            block.sequential_schedule()

    def greedy_schedule(self, max_num_stream: int = 10) -> None:
        """Set the stages of every block to all ready operators, at most `max_num_stream`."""
        for block in self.blocks:
            block.greedy_schedule(max_num_stream)

    def export_config(self) -> dict[str, Any]:
        """Return the network without weights as plain data for JSON."""
        return {
            "name": self.name,
            "input": self.input.export_config(),
            "blocks": [block.export_config() for block in self.blocks],
        }

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> Graph:
        """Rebuild a network from `export_config`.

        Raises
        ------
        InvalidGraph
            When a field is missing or the network breaks a rule.
        """
        try:
            shape = config["input"]["output_shape"]
            source = Placeholder(config["input"]["name"], config["input"]["hint_name"], shape)
            names: dict[str, Node] = {source.name: source}
            blocks = [Block.from_config(block, names) for block in config["blocks"]]
            graph = Graph(config["name"], source, blocks)
        except KeyError as missing:
            raise InvalidGraph(
                f"the network configuration has no field {missing.args[0]!r}"
            ) from None
        graph.infer_shape()
        return graph

    def readable_lines(self, indent: int = 0) -> list[str]:
        """Return the network for people, one string a line."""
        inner = [line for block in self.blocks for line in block.readable_lines(indent)]
        return ["sequential(", *(" " * indent + line for line in inner), ")"]

    def __str__(self) -> str:
        return "\n".join(self.readable_lines(2))
