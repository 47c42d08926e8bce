"""Intervals that hold: quantile predictions, widened until they cover what was not trained on.

Conformalised quantile regression (Romano, Patterson and Candès, NeurIPS 2019): on groups that the
model has not seen, the score is how far the target lies outside of the predicted quantiles. The
interval is widened by the score that ⌈(n + 1)·coverage⌉ of n groups do not exceed. Scores come
from held-out folds, so that "not seen" means there what it will mean in use: another network.
"""

import math

import numpy as np
import numpy.typing as npt

from hios.errors import InvalidOption

__all__ = ["conformal_offset", "scores"]

Floats = npt.NDArray[np.float64]


def scores(target: Floats, low: Floats, high: Floats) -> Floats:
    """Return how far each target lies outside of [low, high]; negative inside.

    Examples
    --------
    >>> scores(np.array([2.0, 0.5]), np.zeros(2), np.ones(2)).tolist()
    [1.0, -0.5]
    """
    outside: Floats = np.maximum(low - target, target - high)
    return outside


def conformal_offset(values: Floats, coverage: float) -> float:
    """Return by how much to widen an interval on both sides.

    Parameters
    ----------
    values
        `scores` of groups that were not trained on.
    coverage
        Share of new groups that shall lie inside, in (0, 1).

    Returns
    -------
    float
        Negative when the quantiles were too wide. With too few groups for the coverage, the
        largest score.

    Raises
    ------
    InvalidOption
        When there are no scores, or the coverage is out of range.
    """
    if not len(values) or not 0.0 < coverage < 1.0:
        raise InvalidOption(
            f"an interval of coverage {coverage} from {len(values)} groups; need 0 < coverage < 1 "
            "and at least one group"
        )
    rank = min(len(values), math.ceil((len(values) + 1) * coverage))
    return float(np.sort(values)[rank - 1])
