"""Values and how an operator combines them.

The inputs of an operator are a list of *terms* and a term is a list of *values*: the values of a
term are added (or multiplied, for `multiply`), the terms are concatenated along the channels.
``[[a, b], [c]]`` reads concat(a + b, c). Addition and concatenation are so part of the operator
that needs them, as in the builder of IOS and HIOS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hios.errors import InvalidGraph

if TYPE_CHECKING:
    from hios_tvm.models.nodes import Node

__all__ = ["Inputs", "Shape", "Value", "combined_shape", "element_count", "terms_text"]

Shape = tuple[int, int, int]
"""(channels, height, width); the batch is chosen on export."""


class Value:
    """The channels ``begin`` to ``end`` of what an operator computes.

    Parameters
    ----------
    node : Node
        The operator.
    begin, end : int
        Half-open range of its channels; the whole is ``Value(node, 0, node.output_shape[0])``.
    """

    __slots__ = ("begin", "end", "node")

    def __init__(self, node: Node, begin: int, end: int) -> None:
        self.node = node
        self.begin = begin
        self.end = end

    @property
    def length(self) -> int:
        """Number of channels."""
        return self.end - self.begin

    @property
    def shape(self) -> Shape:
        """(channels, height, width) of the slice."""
        _, height, width = self.node.shape
        return self.length, height, width

    @staticmethod
    def from_config(config: Sequence[Any], name2node: dict[str, Node]) -> Value:
        """Rebuild a value from ``[node name, begin, end]``."""
        name, begin, end = config
        if name not in name2node:
            raise InvalidGraph(f"a value refers to operator {name!r}, which is not defined before")
        return Value(name2node[name], begin, end)

    def export_config(self) -> list[Any]:
        """Return ``[node name, begin, end]``."""
        return [self.node.name, self.begin, self.end]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Value):
            return NotImplemented
        return self.node is other.node and (self.begin, self.end) == (other.begin, other.end)

    def __hash__(self) -> int:
        return hash((id(self.node), self.begin, self.end))

    def __repr__(self) -> str:
        return f"({self.node.hint_name}:{self.begin}:{self.end})"


Inputs = Sequence[Sequence[Value]]


def combined_shape(inputs: Inputs, owner: str) -> Shape:
    """Return the shape of added and concatenated inputs.

    Parameters
    ----------
    inputs : sequence of sequence of Value
        Terms of values.
    owner : str
        What to call the operator in an error.

    Raises
    ------
    InvalidGraph
        When there is nothing to combine, a slice leaves its tensor, the values of a term differ
        in shape, or the terms differ in height or width.
    """
    if (
        not isinstance(inputs, Sequence)
        or not inputs
        or any(not isinstance(term, Sequence) or not term for term in inputs)
    ):
        raise InvalidGraph(
            f"{owner} got {inputs!r} as inputs; they must be a list of terms, each a list of at "
            "least one value, as [[a, b], [c]]"
        )
    for term in inputs:
        for value in term:
            if not isinstance(value, Value):
                raise InvalidGraph(
                    f"{owner} got {value!r} as an input; it takes the values that the builder's "
                    "functions return"
                )
            if not 0 <= value.begin < value.end <= value.node.shape[0]:
                raise InvalidGraph(
                    f"{owner} takes channels {value.begin}:{value.end} of operator "
                    f"{value.node.name!r}, which has {value.node.shape[0]}"
                )
            if value.shape != term[0].shape:
                raise InvalidGraph(
                    f"{owner} adds values of different shapes in one term: "
                    f"{term[0].node.name!r} is {_text(term[0].shape)}, "
                    f"{value.node.name!r} is {_text(value.shape)}; they must be equal"
                )
    _, height, width = inputs[0][0].shape
    for term in inputs:
        if term[0].shape[1:] != (height, width):
            raise InvalidGraph(
                f"{owner} concatenates terms of different height or width: "
                f"{inputs[0][0].node.name!r} is {_text(inputs[0][0].shape)}, "
                f"{term[0].node.name!r} is {_text(term[0].shape)}; only channels may differ"
            )
    return sum(term[0].length for term in inputs), height, width


def element_count(shape: Sequence[int]) -> int:
    """Return the product of the extents."""
    total = 1
    for extent in shape:
        total *= extent
    return total


def terms_text(terms: Inputs, sign: str = "+") -> str:
    """Return terms for people: ``a+b`` or ``concat(a+b, c)``."""
    texts = [sign.join(value.node.hint_name for value in term) for term in terms]
    return texts[0] if len(texts) == 1 else f"concat({', '.join(texts)})"


def _text(shape: Shape) -> str:
    return "×".join(str(extent) for extent in shape)
