"""The noise floor: how much two processes differ about the same groups.

A group measured again on the same kind of device, in another process, is a *repeat*. What is
compared is the ratio of its time to the sum of the solo times: a model predicts that, and both
parts are measured.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cost_model.records import GroupRecord, RecordIdentity

__all__ = ["Noise", "Pair", "noise_floor", "noise_of", "split_repeats"]

Pair = tuple[GroupRecord, GroupRecord]
"""The first record of a group, and one of another process."""


@dataclass(frozen=True, slots=True)
class Noise:
    """What measuring the same group again says about errors.

    Attributes
    ----------
    pairs
        Groups measured in two processes.
    mape
        Mean absolute error, as a fraction, of a perfect model against one measurement: the mean
        difference of two measurements over √2.
    median, p90
        One group in two, and one in ten, differs by more, likewise over √2.
    """

    pairs: int
    mape: float
    median: float
    p90: float


def split_repeats(records: Iterable[GroupRecord]) -> tuple[list[GroupRecord], list[Pair]]:
    """Return the first record of each group on each kind of device, and the repeats.

    Parameters
    ----------
    records
        Valid ones. Two records of one group in one process are no repeat.
    """
    first: dict[RecordIdentity, GroupRecord] = {}
    pairs: list[Pair] = []
    for record in records:
        known = first.setdefault(record.identity, record)
        if known.session != record.session:
            pairs.append((known, record))
    return list(first.values()), pairs


def noise_of(pairs: Sequence[Pair]) -> Noise | None:
    """Return how much the records of pairs differ; None where there are none."""
    if not pairs:
        return None
    errors = [abs(_ratio(again) / _ratio(first) - 1) / np.sqrt(2.0) for first, again in pairs]
    return Noise(
        len(pairs),
        float(np.mean(errors)),
        float(np.median(errors)),
        float(np.quantile(errors, 0.9)),
    )


def noise_floor(records: Iterable[GroupRecord]) -> Noise | None:
    """Return how much two processes differ about the valid groups; None where nothing repeats."""
    _, pairs = split_repeats(record for record in records if record.valid)
    return noise_of(pairs)


def _ratio(record: GroupRecord) -> float:
    together = record.group_us.p50 if record.group_us else np.nan
    return together / sum(op.solo_us.p50 for op in record.ops if op.solo_us)
