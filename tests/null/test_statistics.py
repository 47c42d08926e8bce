"""Medians, quantiles and ratios."""

import pytest

from hios.errors import InvalidOption
from hios.statistics import Samples, ratio_of_medians


def test_quantiles_of_known_samples() -> None:
    samples = Samples.of([float(i) for i in range(101)])
    assert (samples.median_us, samples.p10_us, samples.p90_us, samples.p99_us) == (50, 10, 90, 99)
    assert (samples.min_us, samples.mean_us) == (0, 50)
    assert samples.spread == pytest.approx(0.8)


def test_paired_ratio_ignores_drift_that_hits_both_sides() -> None:
    drift = [1.0 + i / 10 for i in range(50)]
    paired = ratio_of_medians([2 * d for d in drift], drift)
    assert paired.value == pytest.approx(2)
    assert paired.low == pytest.approx(2)
    assert paired.high == pytest.approx(2)


def test_interval_holds_the_value() -> None:
    ratio = ratio_of_medians([3.0, 3.1, 2.9, 3.3], [1.0, 1.1, 0.9])
    assert ratio.low <= ratio.value <= ratio.high
    assert ratio.low < ratio.high


def test_no_samples_is_an_error() -> None:
    with pytest.raises(InvalidOption, match="no samples"):
        Samples.of([])
    with pytest.raises(InvalidOption, match="both sides"):
        ratio_of_medians([1.0], [])
