"""How good predictions are: errors of times, order, decisions, and skill over the lower bound.

Targets are y = ln(T / ΣTg), so a time's relative error is exp(ŷ − y) − 1. Intervals of a metric
come from resampling whole clusters (networks, where the split is by network): groups of one
network err together, and drawing them one by one would promise too much.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Interval", "Metrics", "bootstrap", "compare", "evaluate"]

Floats = npt.NDArray[np.float64]

_CLEAR = 0.03
"""A group whose |y| is below may run either way: the decision is not counted."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """Quality of predictions on one set of groups.

    Attributes
    ----------
    groups
        How many.
    mape
        Mean absolute relative error of the time, with its interval.
    p90
        One group in ten errs by more.
    spearman
        Rank correlation of y; 0 where either does not vary.
    decided
        Share of right decisions 'together or one after another' where |y| > 3 %.
    clear
        How many groups have such a |y|.
    skill
        1 − MAE / MAE of LB on y, with its interval.
    coverage
        Share of groups inside their interval; None without intervals.
    """

    groups: int
    mape: Interval
    p90: float
    spearman: float
    decided: float
    clear: int
    skill: Interval
    coverage: float | None = None


def evaluate(
    target: Floats,
    predicted: Floats,
    bound: Floats,
    clusters: Sequence[str],
    interval: tuple[Floats, Floats] | None = None,
) -> Metrics:
    """Return the metrics of predictions.

    Parameters
    ----------
    target, predicted, bound
        Measured y, predicted y, and y of the lower bound LB.
    clusters
        What each group is drawn with in the bootstrap.
    interval
        Lower and upper y.
    """
    error = np.abs(np.expm1(predicted - target))
    off, off_bound = np.abs(predicted - target), np.abs(bound - target)
    clear = np.abs(target) > _CLEAR
    right = (predicted < 0.0) == (target < 0.0)
    covered = None
    if interval is not None:
        covered = float(((interval[0] <= target) & (target <= interval[1])).mean())
    return Metrics(
        groups=len(target),
        mape=bootstrap(lambda at: float(error[at].mean()), clusters),
        p90=float(np.quantile(error, 0.9)),
        spearman=spearman(target, predicted),
        decided=float(right[clear].mean()) if clear.any() else 1.0,
        clear=int(clear.sum()),
        skill=bootstrap(
            lambda at: 1.0 - float(off[at].sum() / max(off_bound[at].sum(), 1e-12)), clusters
        ),
        coverage=covered,
    )


def compare(target: Floats, predicted: Floats, other: Floats, clusters: Sequence[str]) -> Interval:
    """Return MAPE of `other` minus that of `predicted`, drawn together: above 0 is better."""
    gain = np.abs(np.expm1(other - target)) - np.abs(np.expm1(predicted - target))
    return bootstrap(lambda at: float(gain[at].mean()), clusters)


def spearman(one: Floats, other: Floats) -> float:
    """Return the rank correlation, ties sharing their mean rank."""
    a, b = _ranks(one), _ranks(other)
    if a.std() == 0.0 or b.std() == 0.0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def bootstrap(
    figure: Callable[[npt.NDArray[np.intp]], float],
    clusters: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return a figure of all groups, and its 95 % interval over resampled clusters."""
    names, owner = np.unique(np.asarray(clusters), return_inverse=True)
    members = [np.flatnonzero(owner == i) for i in range(len(names))]
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        chosen = generator.integers(0, len(names), len(names))
        drawn.append(figure(np.concatenate([members[i] for i in chosen])))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Interval(figure(np.arange(len(owner))), float(low), float(high))


def _ranks(values: Floats) -> Floats:
    _, owner, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: Floats = (last - (counts - 1) / 2.0)[owner]
    return mean
