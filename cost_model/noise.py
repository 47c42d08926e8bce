"""The noise floor: how much two sessions differ about the same groups.

A group that was measured again on the same kind of device, in another session (a process, or a
later round over all groups), has another *visit* (`cost_model.visits`). Times alone are shared by
all groups of an operator, so what differs is the time of the group.
"""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cost_model.records import GroupRecord
from cost_model.visits import by_group

__all__ = ["Noise", "noise_floor"]


@dataclass(frozen=True, slots=True)
class Noise:
    """What measuring the same group again says about errors.

    Attributes
    ----------
    pairs
        Pairs of visits of one group, each of another session than the other.
    visit
        Mean absolute error, as a fraction, of a perfect model against one visit: the mean
        difference of two over √2.
    median, p90
        One group in two, and one in ten, differs by more, likewise over √2.
    visits
        Visits of a group, on average.
    mape
        Mean absolute error of a perfect model against the middle of so many visits: `visit`
        over their root.
    """

    pairs: int
    visit: float
    median: float
    p90: float
    visits: float
    mape: float


def noise_floor(records: Iterable[GroupRecord]) -> Noise | None:
    """Return how much sessions differ about the valid groups; None where nothing repeats.

    Visits of one group in one session count as one.
    """
    errors: list[float] = []
    counts: list[int] = []
    for visits in by_group(records).values():
        sessions: dict[str, list[float]] = {}
        for record in visits:
            if record.group_us is not None:
                sessions.setdefault(record.session, []).append(record.group_us.p50)
        times = [statistics.median(own) for own in sessions.values()]
        counts.append(len(times))
        errors += [abs(again / first - 1) / math.sqrt(2.0) for first, again in pairwise(times)]
    if not errors:
        return None
    of_one, count = float(np.mean(errors)), float(np.mean(counts))
    return Noise(
        len(errors),
        of_one,
        float(np.median(errors)),
        float(np.quantile(errors, 0.9)),
        count,
        of_one / math.sqrt(count),
    )
