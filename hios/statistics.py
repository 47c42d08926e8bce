"""What is said about repeated measurements: median and spread, and ratios with an interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hios.errors import InvalidOption

__all__ = ["Ratio", "Samples", "ratio_of_medians"]


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
        """Return the samples of a list.

        Raises
        ------
        InvalidOption
            When it is empty.
        """
        if not times_us:
            raise InvalidOption("no samples; measure at least once")
        return Samples(tuple(times_us))


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of medians with its bootstrap interval (90 %)."""

    value: float
    low: float
    high: float


def ratio_of_medians(
    numerator_us: Sequence[float],
    denominator_us: Sequence[float],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Ratio:
    """Return median(numerator) / median(denominator) with a 90 % bootstrap interval.

    Where both were measured interleaved (equally many samples), the i-th samples of both are
    drawn together, so that a slow minute of the machine hits both sides of a ratio.

    Raises
    ------
    InvalidOption
        When either has no samples.
    """
    import numpy as np  # not at the start of the command line

    above, below = np.asarray(numerator_us, float), np.asarray(denominator_us, float)
    if not above.size or not below.size:
        raise InvalidOption("a ratio needs samples on both sides; measure at least once")
    value = float(np.median(above) / np.median(below))
    generator = np.random.default_rng(seed)
    draws = generator.integers(0, above.size, (resamples, above.size))
    others = (
        draws
        if below.size == above.size
        else generator.integers(0, below.size, (resamples, below.size))
    )
    ratios = np.median(above[draws], axis=1) / np.median(below[others], axis=1)
    low, high = (float(q) for q in np.quantile(ratios, (0.05, 0.95)))
    return Ratio(value, low, high)
