"""What all operators of a network have in common: name, inputs, shape, work.

Work is counted as follows: a multiply-add is two floating-point operations, an activation, an
addition or a comparison is one an element, copies are none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hios.errors import InvalidGraph
from hios_tvm.models.values import Inputs, Shape, combined_shape, element_count, terms_text

__all__ = ["Node"]


class Node:
    """An operator; the base of all others.

    Parameters
    ----------
    type : str
        Kind of operator, as in the exported configuration.
    name : str
        Unique in the network.
    hint_name : str
        For people; need not be unique.
    inputs : list of list of Value, optional
        Terms to concatenate, each a list of values to add; None inside of a `Sequential`.
    output_shape : tuple of int, optional
        (channels, height, width), if already known.

    Attributes
    ----------
    uses : list of (Node, int, int)
        Who reads this operator: the reader, its term and the position in that term.
    """

    __slots__ = ("hint_name", "inputs", "name", "output_shape", "type", "uses")

    def __init__(
        self,
        type: str,  # noqa: A002 - the name in the IOS builder
        name: str,
        hint_name: str,
        inputs: Inputs | None,
        output_shape: Sequence[int] | None,
    ) -> None:
        self.type = type
        self.name = name
        self.hint_name = hint_name
        self.inputs = inputs
        self.output_shape = output_shape
        self.uses: list[tuple[Node, int, int]] = []

    @property
    def owner(self) -> str:
        """The operator as an error calls it."""
        return f"{self.type} operator {self.name!r}"

    @property
    def shape(self) -> Shape:
        """`output_shape`, which must be known by now."""
        if self.output_shape is None:
            raise InvalidGraph(f"{self.owner} has no shape yet; call infer_shape() first")
        channels, height, width = self.output_shape
        return channels, height, width

    @property
    def terms(self) -> Inputs:
        """`inputs`, which must be set by now."""
        if self.inputs is None:
            raise InvalidGraph(f"{self.owner} has no inputs")
        return self.inputs

    @property
    def input_shape(self) -> Shape:
        """(channels, height, width) of the combined inputs."""
        return combined_shape(self.terms, self.owner)

    def infer_shape(self) -> None:
        """Set `output_shape` from the inputs; the same as the input unless overridden."""
        self.output_shape = self.input_shape

    def macs(self) -> int:
        """Multiply-adds for one image."""
        return 0

    def parameters(self) -> int:
        """Number of weights and biases."""
        return 0

    def own_flops(self) -> int:
        """Floating-point operations for one image, without those of combining the inputs."""
        return 2 * self.macs()

    def flops(self) -> int:
        """Floating-point operations for one image, additions of inputs included."""
        sums = sum((len(term) - 1) * element_count(term[0].shape) for term in self.terms)
        return self.own_flops() + sums

    def memory_access(self) -> int:
        """Elements read and written for one image: inputs, parameters and output."""
        read = sum(element_count(value.shape) for term in self.terms for value in term)
        return read + self.parameters() + element_count(self.shape)

    def kernels(self) -> int:
        """Kernel calls without fusion: the operator, its additions and its concatenation."""
        joins = sum(len(term) > 1 for term in self.terms) + (len(self.terms) > 1)
        return joins + int(self.type not in ("identity", "element"))

    def register_uses(self) -> None:
        """Tell the operators that this one reads about it."""
        for term_index, term in enumerate(self.terms):
            for value_index, value in enumerate(term):
                value.node.uses.append((self, term_index, value_index))

    def export_config(self) -> dict[str, Any]:
        """Return the operator as plain data for JSON."""
        return {
            "type": self.type,
            "name": self.name,
            "hint_name": self.hint_name,
            "inputs": None
            if self.inputs is None
            else [[value.export_config() for value in term] for term in self.inputs],
            **self._own_config(),
            "output_shape": None if self.output_shape is None else list(self.output_shape),
        }

    @staticmethod
    def from_config(config: Mapping[str, Any], name2node: dict[str, Node]) -> Node:
        """Rebuild an operator; `name2node` holds those it reads.

        Raises
        ------
        InvalidGraph
            When the type is unknown, a field is missing or an input is not defined before.
        """
        # Not at the top: the configuration knows every operator, and they know this base.
        from hios_tvm.models.node_config import rebuild_node

        return rebuild_node(config, name2node)

    def readable_lines(self, indent: int) -> list[str]:
        """Return the operator for people, one string a line."""
        return [f"[{self.hint_name}]{self.type}({terms_text(self.terms)})"]

    def __repr__(self) -> str:
        return self.name

    def _own_config(self) -> dict[str, Any]:
        return {}
