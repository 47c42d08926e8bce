"""What is said about repeated measurements: median and spread, and ratios with an interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hios.errors import InvalidOption

__all__ = ["Ratio", "Summary", "ratio_of_medians", "summarize"]


@dataclass(frozen=True, slots=True)
class Summary:
    """Quantiles of samples in microseconds."""

    median_us: float
    p10_us: float
    p90_us: float
    p99_us: float
    n: int

    @property
    def spread(self) -> float:
        """(p90 − p10) / median, without unit."""
        return (self.p90_us - self.p10_us) / self.median_us if self.median_us else 0.0


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of medians with its bootstrap interval (90 %)."""

    value: float
    low: float
    high: float


def summarize(samples_us: Sequence[float]) -> Summary:
    """Return median, p10, p90 and p99 of at least one sample.

    Raises
    ------
    InvalidOption
        When there are no samples.
    """
    if not len(samples_us):
        raise InvalidOption("no samples to summarise; measure at least once")
    median, p10, p90, p99 = (float(q) for q in np.quantile(samples_us, (0.5, 0.1, 0.9, 0.99)))
    return Summary(median, p10, p90, p99, len(samples_us))


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
