"""Weights drawn from a seed: He-scaled, the same on every machine and in any order.

Each tensor has its own stream, keyed by the seed and its name, so that adding a layer leaves all
other weights as they were. The scale keeps activations of one order of magnitude through deep
networks (He et al., ICCV 2015, section 2.2): ``sqrt(2 / fan_in)`` behind a rectifier and
``sqrt(1 / fan_in)`` elsewhere; values that are added in front of a layer count as more fan-in.
"""

import math
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hios.errors import InvalidOption

__all__ = ["BIAS_STD", "WeightSpec", "draw", "he_std"]

BIAS_STD = 0.05
"""Biases are small but not zero, so that a lost bias shows in the output."""


@dataclass(frozen=True, slots=True)
class WeightSpec:
    """A float32 tensor to draw: normal with the given mean and standard deviation."""

    name: str
    shape: tuple[int, ...]
    std: float
    mean: float = 0.0

    def validate(self) -> None:
        """Check the shape and the spread.

        Raises
        ------
        InvalidOption
            When an extent is below 1 or the deviation is negative.
        """
        if any(extent < 1 for extent in self.shape) or not self.std >= 0:
            raise InvalidOption(
                f"weight {self.name!r} has shape {self.shape} and deviation {self.std}; "
                "extents must be positive and the deviation at least 0"
            )

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def he_std(fan_in: int, *, rectified: bool) -> float:
    """Return the standard deviation that keeps the variance of a layer's output.

    Parameters
    ----------
    fan_in : int
        Number of products summed into one output element.
    rectified : bool
        Whether the input went through a rectifier, which halves its second moment.
    """
    return math.sqrt((2.0 if rectified else 1.0) / fan_in)


def draw(spec: WeightSpec, seed: int) -> npt.NDArray[np.float32]:
    """Draw a tensor.

    Parameters
    ----------
    spec : WeightSpec
        What to draw; its name is part of the key.
    seed : int
        At least 0.

    Returns
    -------
    numpy.ndarray
        float32 of ``spec.shape``.

    Raises
    ------
    InvalidOption
        When the seed is negative.
    """
    if seed < 0:
        raise InvalidOption(f"seed is {seed}; it must be at least 0")
    stream = np.random.default_rng([seed, zlib.crc32(spec.name.encode())])
    values = stream.standard_normal(spec.shape, dtype=np.float32)
    values *= np.float32(spec.std)
    if spec.mean:
        values += np.float32(spec.mean)
    return values
