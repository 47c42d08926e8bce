"""What a comparison needs from an engine."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Arrays", "Engine"]

Arrays = Mapping[str, npt.NDArray[Any]]
"""Inputs by the names of the model's signature."""


class Engine(Protocol):
    """One way to run a model."""

    @property
    def name(self) -> str:
        """Row label of a comparison."""
        ...

    def run(self, inputs: Arrays) -> Sequence[np.ndarray[Any, np.dtype[Any]]]:
        """Run once and return the outputs in the order of the model's signature."""
        ...

    def close(self) -> None:
        """Release threads and memory; further runs are errors."""
        ...
