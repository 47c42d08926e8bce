"""What a learned model has to beat: estimates of a group's time without it.

Each is fitted on the training part where it has something to fit, and predicts y = ln(T / ΣTg).
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from cost_model.dataset import Dataset
from cost_model.features import FEATURES
from cost_model.train import fit_start, start_us

__all__ = ["BASELINES", "Baseline"]

Floats = npt.NDArray[np.float64]

Baseline = Callable[[Dataset, Dataset], Floats]
"""From training data and test data to the predicted targets of the test data."""

_NEIGHBOURS = ("time_max", "time_min", "narrow_max", "narrow_min", "narrow_sum", "bandwidth_sum")
"""What two groups are near in, besides `groups`; all are ratios of the group's sum."""


def total(_train: Dataset, test: Dataset) -> Floats:
    """Return ΣTg: nothing overlaps."""
    return np.zeros(len(test))


def longest(_train: Dataset, test: Dataset) -> Floats:
    """Return max Tg: everything overlaps."""
    return _target(test, test.basis.longest_us)


def bound(_train: Dataset, test: Dataset) -> Floats:
    """Return LB = max(max Tg, Σbytes / bandwidth, Σflops / peak)."""
    return _target(test, test.basis.bound_us)


def half(_train: Dataset, test: Dataset) -> Floats:
    """Return the HIOS paper's ½·ΣTg + ½·max(demand, max Tg)."""
    return _target(test, test.basis.half_us)


def shared_cores(_train: Dataset, test: Dataset) -> Floats:
    """Return the groups on equal shares of the cores (CPU; elsewhere as `half`)."""
    return _target(test, test.basis.shared_us)


def shared_cores_started(train: Dataset, test: Dataset) -> Floats:
    """Return `shared_cores` scaled, plus what starting and joining streams takes, fitted."""
    return _target(test, start_us(test.features, test.basis, fit_start(train, "shared")))


def linear(train: Dataset, test: Dataset) -> Floats:
    """Return T = a·ΣTg + b·max Tg + c·Σbytes / bandwidth, fitted to relative errors.

    The slowdown grows linearly with the bandwidth wanted, as models of memory contention have
    it.
    """
    weights, *_ = np.linalg.lstsq(_parts(train), train.time_us / train.basis.sum_us, rcond=None)
    predicted = np.maximum(_parts(test) @ weights, 1e-3)
    return np.maximum(np.log(predicted), _target(test, test.basis.longest_us))


def nearest(train: Dataset, test: Dataset) -> Floats:
    """Return the target of the nearest training group with as many chains."""
    names = [FEATURES.index(name) for name in _NEIGHBOURS]
    count = FEATURES.index("groups")
    scale = np.maximum(train.features[:, names].std(axis=0), 1e-6)
    known, asked = train.features[:, names] / scale, test.features[:, names] / scale
    found = np.empty(len(test))
    for i, row in enumerate(asked):
        apart = ((known - row) ** 2).sum(axis=1)
        # Another number of chains is farther than anything else.
        apart = apart + 1e6 * np.abs(train.features[:, count] - test.features[i, count])
        found[i] = train.target[int(apart.argmin())]
    return np.maximum(found, _target(test, test.basis.longest_us))


BASELINES: dict[str, Baseline] = {
    "sum": total,
    "max": longest,
    "LB": bound,
    "½Σ + ½max": half,
    "shared cores": shared_cores,
    "shared cores, fitted": shared_cores_started,
    "linear on bandwidth": linear,
    "nearest neighbour": nearest,
}
"""By the name that tables use."""


def _target(data: Dataset, time_us: Floats) -> Floats:
    predicted: Floats = np.log(time_us / data.basis.sum_us)
    return predicted


def _parts(data: Dataset) -> Floats:
    basis = data.basis
    parts = (np.ones(len(data)), basis.longest_us / basis.sum_us, basis.traffic_us / basis.sum_us)
    return np.stack(parts, axis=1)
