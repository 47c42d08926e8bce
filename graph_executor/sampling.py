"""Repeated timings and what is said about them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Samples"]


@dataclass(frozen=True, slots=True)
class Samples:
    """Times of one thing, measured several times.

    Attributes
    ----------
    times_us
        In the order of measurement; at least one.
    """

    times_us: tuple[float, ...]

    def percentile_us(self, percent: float) -> float:
        """Return a percentile, interpolated linearly between the two nearest samples.

        Examples
        --------
        >>> Samples((1.0, 4.0, 2.0)).percentile_us(75)
        3.0
        """
        ordered = sorted(self.times_us)
        position = (len(ordered) - 1) * percent / 100
        low = math.floor(position)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (position - low)

    @property
    def median_us(self) -> float:
        """The middle one."""
        return self.percentile_us(50)

    @property
    def p10_us(self) -> float:
        """One in ten is shorter."""
        return self.percentile_us(10)

    @property
    def p90_us(self) -> float:
        """One in ten is longer."""
        return self.percentile_us(90)

    @property
    def p99_us(self) -> float:
        """One in a hundred is longer."""
        return self.percentile_us(99)

    @property
    def min_us(self) -> float:
        """The shortest."""
        return min(self.times_us)

    @property
    def mean_us(self) -> float:
        """The arithmetic mean."""
        return math.fsum(self.times_us) / len(self.times_us)

    @property
    def spread(self) -> float:
        """Half the distance from the 10th to the 90th percentile, over the median."""
        median = self.median_us
        return (self.p90_us - self.p10_us) / 2 / median if median > 0 else 0.0

    @staticmethod
    def of(times_us: Sequence[float]) -> "Samples":
        """Return the samples of a list."""
        return Samples(tuple(times_us))
