"""Our own executor under one schedule."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hios_tvm.engines.protocol import Arrays
from hios_tvm.model import Model

__all__ = ["HiosExecutor"]


class HiosExecutor:
    """A decided model.

    Parameters
    ----------
    label
        Row label.
    model
        Closed together with the engine.
    """

    def __init__(self, label: str, model: Model) -> None:
        self.name = label
        self.model = model

    def run(self, inputs: Arrays) -> Sequence[np.ndarray[Any, np.dtype[Any]]]:
        """Run once."""
        return list(self.model.run(inputs).values())

    def close(self) -> None:
        """End its threads."""
        self.model.close()
