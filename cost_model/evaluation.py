"""Train on each fold of a split, predict what was held out, and say how good that is."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cost_model.baselines import BASELINES
from cost_model.dataset import Dataset
from cost_model.metrics import Interval, Metrics, compare, evaluate
from cost_model.splits import folds_of, network_of
from cost_model.train import TrainOptions, fit

__all__ = ["SplitResult", "evaluate_split"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SplitResult:
    """What a split says.

    Attributes
    ----------
    split
        Its name.
    folds
        How many folds had something to train on and to test.
    learned
        Metrics of the learned model over all held-out groups.
    baselines
        The same of each baseline.
    gains
        For each baseline, its MAPE minus that of the learned model, drawn together; a baseline
        is beaten where the interval lies above 0.
    by_fold
        MAPE of the learned model, and groups, of each fold.
    places, target, predicted, low, high
        Each held-out group: where it stands in the data set, measured y, predicted y, interval.
    """

    split: str
    folds: int
    learned: Metrics
    baselines: dict[str, Metrics]
    gains: dict[str, Interval]
    by_fold: dict[str, tuple[float, int]]
    places: npt.NDArray[np.intp]
    target: Floats
    predicted: Floats
    low: Floats
    high: Floats


def evaluate_split(
    data: Dataset,
    split: str,
    options: TrainOptions | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> SplitResult | None:
    """Return the result of a split, or None where the data cannot be split so.

    Clusters of the bootstrap are networks where networks or devices are held out, single groups
    otherwise.

    Raises
    ------
    InvalidOption
        When there is no such split, or an option is out of range.
    """
    folds = folds_of(data, split)
    places, predicted, low, high = [], [], [], []
    others: dict[str, list[Floats]] = {name: [] for name in BASELINES}
    by_fold: dict[str, tuple[float, int]] = {}
    for number, fold in enumerate(folds):
        if len(fold.train) < 2:
            continue
        if progress is not None:
            progress(f"{split}: {fold.name}", number / len(folds))
        train, test = data.take(fold.train), data.take(fold.test)
        fitted = fit(train, options).fitted
        own = fitted.predict(test.features, test.basis)
        ends = fitted.interval(test.features, test.basis)
        places.append(fold.test)
        predicted.append(own)
        low.append(ends[0])
        high.append(ends[1])
        for name, baseline in BASELINES.items():
            others[name].append(baseline(train, test))
        error = float(np.abs(np.expm1(own - test.target)).mean())
        by_fold[fold.name] = (error, len(fold.test))
    if not places:
        return None
    at = np.concatenate(places)
    target, mine = data.target[at], np.concatenate(predicted)
    rest = {name: np.concatenate(parts) for name, parts in others.items()}
    interval = (np.concatenate(low), np.concatenate(high))
    held_out = split in ("unseen-model", "unseen-device")
    named = data.models if held_out else data.ids
    clusters = [network_of(named[i]) if held_out else named[i] for i in at]
    return SplitResult(
        split,
        len(by_fold),
        evaluate(target, mine, rest["LB"], clusters, interval),
        {name: evaluate(target, own, rest["LB"], clusters) for name, own in rest.items()},
        {name: compare(target, mine, own, clusters) for name, own in rest.items()},
        by_fold,
        at,
        target,
        mine,
        *interval,
    )
