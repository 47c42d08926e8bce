"""Checks of what a user may give an operator, each naming the operator in its error."""

import operator
from collections.abc import Sequence

import numpy as np

from hios.errors import InvalidOption

__all__ = ["Pair", "choice", "is_count", "pair", "positive"]

Pair = tuple[int, int]
"""Along height and width."""


def is_count(value: object, least: int = 1) -> bool:
    """Return whether `value` is an integer ≥ `least`."""
    return isinstance(value, (int, np.integer)) and int(value) >= least


def positive(value: int, what: str, owner: str) -> int:
    """Return a positive integer option or raise `InvalidOption` naming its owner."""
    if not is_count(value):
        raise InvalidOption(f"{owner} has {what}={value!r}; it must be a positive integer")
    return operator.index(value)


def pair(value: Sequence[int], what: str, least: int, owner: str) -> Pair:
    """Return a (height, width) option or raise `InvalidOption` naming its owner."""
    if (
        not isinstance(value, Sequence)
        or len(value) != 2
        or not all(is_count(v, least) for v in value)
    ):
        raise InvalidOption(
            f"{owner} has {what}={value!r}; it must be two integers ≥ {least} (height, width)"
        )
    return operator.index(value[0]), operator.index(value[1])


def choice(value: str, what: str, allowed: Sequence[str], owner: str) -> str:
    """Return an option out of a list or raise `InvalidOption` naming its owner."""
    if value not in allowed:
        raise InvalidOption(
            f"{owner} has unknown {what} {value!r}; it must be one of {', '.join(allowed)}"
        )
    return value
