"""A block: the part of a network between two operators that everything passes through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hios.errors import InvalidGraph, InvalidOption
from hios_tvm.models.node import Node

__all__ = ["Block"]

Stages = list[list[list[str]]]
"""Stages one after the other, each of concurrent groups, each of operator names in order."""


class Block:
    """Operators with one way in and one way out.

    Parameters
    ----------
    enter_node : Node
        The operator whose output enters; it belongs to the block before, or is the placeholder.
    exit_node : Node, optional
        The last operator, part of this block; the builder functions set it by ``is_exit=True``.
    inner_nodes : list of Node, optional
        All other operators, each after what it reads.
    stages : list of list of list of str, optional
        A schedule: stages in order, of concurrent groups, of operator names in order.

    Attributes
    ----------
    parts : list of list of Node or None
        A finer division for the scheduler, from `get_parts`.
    """

    __slots__ = ("enter_node", "exit_node", "inner_nodes", "parts", "stages")

    def __init__(
        self,
        enter_node: Node,
        exit_node: Node | None = None,
        inner_nodes: list[Node] | None = None,
        stages: Stages | None = None,
    ) -> None:
        self.enter_node = enter_node
        self.exit_node = exit_node
        self.inner_nodes: list[Node] = [] if inner_nodes is None else inner_nodes
        self.stages = stages
        self.parts: list[list[Node]] | None = None

    def nodes(self) -> list[Node]:
        """Return the inner operators and the exit.

        Raises
        ------
        InvalidGraph
            When the block has no exit.
        """
        if self.exit_node is None:
            last = self.inner_nodes[-1].owner if self.inner_nodes else "none"
            raise InvalidGraph(
                f"the block that {self.enter_node.owner} enters has no exit (its last operator: "
                f"{last}); pass is_exit=True to the operator that ends it"
            )
        return [*self.inner_nodes, self.exit_node]

    def schedule_operators(self) -> int:
        """Return the number of units that a scheduler sees."""
        return len(self.nodes())

    def flops(self) -> int:
        """Floating-point operations for one image."""
        return sum(node.flops() for node in self.nodes())

    def memory_access(self) -> int:
        """Elements read and written for one image."""
        return sum(node.memory_access() for node in self.nodes())

    def kernels(self) -> int:
        """Kernel calls without fusion."""
        return sum(node.kernels() for node in self.nodes())

    def sequential_schedule(self) -> None:
        """Set `stages` to one operator after the other."""
        self.stages = [[[node.name]] for node in self.nodes()]

    def greedy_schedule(self, max_num_stream: int) -> None:
        """Set `stages` so that each runs all ready operators, at most `max_num_stream`.

        Raises
        ------
        InvalidOption
            When `max_num_stream` is below 1.
        """
        if max_num_stream < 1:
            raise InvalidOption(f"max_num_stream is {max_num_stream}; it must be at least 1")
        waiting = self.nodes()
        own = {node.name for node in waiting}
        done: set[str] = set()
        self.stages = []
        while waiting:
            ready = [
                node
                for node in waiting
                if all(
                    value.node.name in done or value.node.name not in own
                    for term in node.terms
                    for value in term
                )
            ][:max_num_stream]
            if not ready:
                raise InvalidGraph(f"operators depend on each other in a circle: {waiting}")
            self.stages.append([[node.name] for node in ready])
            done.update(node.name for node in ready)
            waiting = [node for node in waiting if node.name not in done]

    def export_config(self) -> dict[str, Any]:
        """Return the block as plain data for JSON."""
        *inner, last = self.nodes()
        return {
            "enter_name": self.enter_node.name,
            "enter_node": self.enter_node.export_config(),
            "inner_nodes": [node.export_config() for node in inner],
            "exit_node": last.export_config(),
            "stages": self.stages,
        }

    @staticmethod
    def from_config(config: Mapping[str, Any], name2node: dict[str, Node]) -> Block:
        """Rebuild a block; `name2node` holds the operators before it and learns the new ones."""
        enter = config["enter_name"]
        if enter not in name2node:
            raise InvalidGraph(f"a block is entered by operator {enter!r}, not defined before")
        inner: list[Node] = []
        for node_config in config["inner_nodes"]:
            inner.append(Node.from_config(node_config, name2node))
            name2node[inner[-1].name] = inner[-1]
        last = Node.from_config(config["exit_node"], name2node)
        name2node[last.name] = last
        return Block(name2node[enter], last, inner, config.get("stages"))

    def readable_lines(self, indent: int = 0) -> list[str]:
        """Return the block for people, stage by stage when it has a schedule."""
        nodes = {node.name: node for node in self.nodes()}
        stages = [[[name]] for name in nodes] if self.stages is None else self.stages
        lines: list[str] = []
        for stage in stages:
            groups = [
                [line for name in group for line in nodes[name].readable_lines(indent)]
                for group in stage
            ]
            if len(groups) == 1:
                lines.extend(groups[0])
            else:
                inner = [" " * indent + line for group in groups for line in group]
                lines.extend(["parallel(", *inner, ")"])
        return lines
