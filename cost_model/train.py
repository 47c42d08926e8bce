"""Train a cost model: XGBoost on what a simple estimate leaves over.

Every group starts from an estimate of its time (the margin), and the trees learn how measured
groups differ from it, in logarithms. Predictions are clamped at the longest chain. A second set
of trees predicts two quantiles, made conformal on networks held out in turn
(`cost_model.conformal`). Training is deterministic: one thread, fixed seeds, records in the order
of their ids.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from cost_model.conformal import conformal_offset, scores
from cost_model.dataset import Dataset
from cost_model.features import FEATURES, MONOTONE, Basis
from cost_model.forest import Forest
from cost_model.splits import fold_number, network_of
from hios.errors import InvalidOption

if TYPE_CHECKING:
    import xgboost

__all__ = [
    "Fitted",
    "Start",
    "TrainOptions",
    "Trained",
    "clamped",
    "fit",
    "fit_start",
    "margin_of",
    "predict_quickly",
    "start_us",
]

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]

Base = Literal["bound", "shared", "half"]
"""Which estimate the trees start from, see `cost_model.features.Basis`."""

_GROUPS = FEATURES.index("groups")

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Start:
    """What trees start from: ``scale · estimate + overhead_us + stream_us · (streams − 2)``.

    Fitted to the training data. Starting and joining streams takes time that no operator shows
    when it is alone, and operators that share a device slow each other down.

    Attributes
    ----------
    base
        Which estimate.
    scale
        Factor of the estimate.
    overhead_us
        Of starting and joining two streams.
    stream_us
        Of each further one.
    """

    base: Base
    scale: float = 1.0
    overhead_us: float = 0.0
    stream_us: float = 0.0


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How a model is trained.

    Attributes
    ----------
    rounds, depth, eta
        Number, depth and weight of the trees.
    min_child_weight, subsample, colsample, reg_lambda
        As XGBoost names them; `colsample` is for each tree.
    slope
        Where the loss turns from squared to absolute, in units of y (pseudo-Huber).
    base
        The estimate to start from.
    coverage
        Of the interval.
    quantile_rounds
        Trees of each quantile.
    calibration_folds
        Parts that the networks are held out in for the interval.
    seed
        Of the sampling of rows and columns.
    """

    rounds: int = 300
    depth: int = 4
    eta: float = 0.05
    min_child_weight: float = 4.0
    subsample: float = 0.8
    colsample: float = 0.6
    reg_lambda: float = 2.0
    slope: float = 0.1
    base: Base = "shared"
    coverage: float = 0.9
    quantile_rounds: int = 120
    calibration_folds: int = 5
    seed: int = 0

    def validate(self) -> None:
        """Check the numbers.

        Raises
        ------
        InvalidOption
            On the first that is out of range.
        """
        positive = ("rounds", "eta", "slope", "quantile_rounds", "subsample", "colsample")
        for name in positive:
            if not getattr(self, name) > 0:
                raise InvalidOption(f"{name} is {getattr(self, name)}; need > 0")
        if not 1 <= self.depth <= 12:
            raise InvalidOption(f"depth is {self.depth}; need 1 to 12")
        if not 0.0 < self.coverage < 1.0:
            raise InvalidOption(f"coverage is {self.coverage}; need 0 < coverage < 1")
        if self.calibration_folds < 2:
            raise InvalidOption(f"{self.calibration_folds} calibration folds; need at least 2")


@dataclass(frozen=True, slots=True)
class Fitted:
    """Trained trees, ready to predict.

    Attributes
    ----------
    forest, quantiles
        Of y, and of its lower and upper quantile.
    start
        The estimate they start from.
    offset
        By how much the interval is widened on both sides, in units of y.
    coverage
        What the interval promises.
    """

    forest: Forest
    quantiles: Forest
    start: Start
    offset: float
    coverage: float

    def predict(self, features: Singles, basis: Basis) -> Floats:
        """Return y of each group, never below ln(max Tg / ΣTg)."""
        raw = self.forest.predict(features, margin_of(features, basis, self.start))[:, 0]
        return clamped(raw.astype(np.float64), basis)

    def interval(self, features: Singles, basis: Basis) -> tuple[Floats, Floats]:
        """Return the lower and the upper y of each group, not below the clamp either."""
        raw = self.quantiles.predict(features, margin_of(features, basis, self.start))
        ends = np.sort(raw.astype(np.float64), axis=1)
        low, high = ends[:, 0] - self.offset, ends[:, 1] + self.offset
        middle = 0.5 * (low + high)  # a negative offset must not turn the interval round
        return (
            clamped(np.minimum(low, middle), basis),
            clamped(np.maximum(high, middle), basis),
        )


@dataclass(frozen=True, slots=True)
class Trained:
    """What training gives: the boosters, to be stored, and the same ready to predict."""

    booster: "xgboost.Booster"
    quantiles: "xgboost.Booster"
    fitted: Fitted


def start_us(features: Singles, basis: Basis, start: Start) -> Floats:
    """Return the estimate that trees start from, at least max Tg."""
    further = features[:, _GROUPS].astype(np.float64) - 2.0
    found = (
        start.scale * _estimate(basis, start.base) + start.overhead_us + start.stream_us * further
    )
    return np.maximum(found, basis.longest_us)


def margin_of(features: Singles, basis: Basis, start: Start) -> Singles:
    """Return ln(estimate / ΣTg)."""
    return np.log(start_us(features, basis, start) / basis.sum_us).astype(np.float32)


def fit_start(data: Dataset, base: Base, passes: int = 30) -> Start:
    """Fit the estimate to absolute relative errors, by least squares weighted again and again.

    What would be negative is left out: nothing is faster for having more streams.
    """
    further = data.features[:, _GROUPS].astype(np.float64) - 2.0
    parts = np.stack([_estimate(data.basis, base), np.ones(len(data)), further], axis=1)
    parts /= data.time_us[:, None]
    used = [0, 1, 2]
    while True:
        found = np.zeros(3)
        weight = np.ones(len(data))
        for _ in range(passes):
            own = parts[:, used] * weight[:, None]
            found[used] = np.linalg.lstsq(own, weight, rcond=None)[0]
            weight = 1.0 / np.sqrt(np.maximum(np.abs(parts @ found - 1.0), 1e-3))
        kept = [i for i in used if found[i] > 0.0]
        if kept == used or not kept:
            return Start(base, *found.tolist()) if kept else Start(base)
        used = kept


def _estimate(basis: Basis, base: Base) -> Floats:
    return {"bound": basis.bound_us, "shared": basis.shared_us, "half": basis.half_us}[base]


def clamped(target: Floats, basis: Basis) -> Floats:
    """Return targets not below ln(max Tg / ΣTg)."""
    return np.maximum(target, np.log(basis.longest_us / basis.sum_us))


def fit(
    data: Dataset, options: TrainOptions | None = None, progress: Progress | None = None
) -> Trained:
    """Train on a data set.

    Parameters
    ----------
    data
        At least two groups.
    options
        See `TrainOptions`.
    progress
        Told what is trained and the fraction done.

    Raises
    ------
    InvalidOption
        When an option is out of range, or there are fewer than two groups.
    """
    options = options or TrainOptions()
    options.validate()
    report = progress or (lambda _what, _fraction: None)
    if len(data) < 2:
        raise InvalidOption(f"{len(data)} groups to train on; need at least 2")
    parts = _calibration_parts(data, options.calibration_folds)
    steps = len(set(parts)) + 2
    report("train", 0.0)
    start = fit_start(data, options.base)
    booster = _train_point(data, options, start)
    found = []
    for step, part in enumerate(sorted(set(parts))):
        report("calibrate the interval", (step + 1) / steps)
        out = np.flatnonzero(parts == part)
        rest_of = data.take(np.flatnonzero(parts != part))
        begin = fit_start(rest_of, options.base)
        quantiles = Forest.of(_train_quantiles(rest_of, options, begin))
        rest = data.take(out)
        raw = quantiles.predict(rest.features, margin_of(rest.features, rest.basis, begin))
        ends = np.sort(raw.astype(np.float64), axis=1)
        found.append(scores(rest.target, ends[:, 0], ends[:, 1]))
    report("train the interval", (steps - 1) / steps)
    quantile_booster = _train_quantiles(data, options, start)
    report("done", 1.0)
    offset = conformal_offset(np.concatenate(found), options.coverage)
    ready = Fitted(
        Forest.of(booster),
        Forest.of(quantile_booster),
        start,
        offset,
        options.coverage,
    )
    return Trained(booster, quantile_booster, ready)


def predict_quickly(train: Dataset, test: Dataset, options: TrainOptions) -> Floats:
    """Return y of `test` after training without an interval: for curves, and to choose options."""
    start = fit_start(train, options.base)
    forest = Forest.of(_train_point(train, options, start))
    raw = forest.predict(test.features, margin_of(test.features, test.basis, start))[:, 0]
    return clamped(raw.astype(np.float64), test.basis)


def _calibration_parts(data: Dataset, folds: int) -> npt.NDArray[np.intp]:
    """Return the part of each group: whole networks, or single groups of too few networks."""
    networks = [network_of(model) for model in data.models]
    names = sorted(set(networks), key=lambda name: (fold_number(name, 1 << 30), name))
    if len(names) >= 2:
        place = {name: i % folds for i, name in enumerate(names)}
        return np.array([place[network] for network in networks], np.intp)
    parts = np.array([fold_number(f"part {group}", folds) for group in data.ids], np.intp)
    if len(set(parts.tolist())) < 2:
        parts = np.arange(len(data), dtype=np.intp) % 2
    return parts


def _train_point(data: Dataset, options: TrainOptions, start: Start) -> "xgboost.Booster":
    settings = {"objective": "reg:pseudohubererror", "huber_slope": options.slope}
    return _train(data, options, start, settings, options.rounds)


def _train_quantiles(data: Dataset, options: TrainOptions, start: Start) -> "xgboost.Booster":
    outside = (1.0 - options.coverage) / 2
    settings = {
        "objective": "reg:quantileerror",
        "quantile_alpha": [outside, 1.0 - outside],
        # A quantile of few groups is noise: larger leaves than for the middle.
        "min_child_weight": 5 * options.min_child_weight,
    }
    shallow = replace(options, depth=min(3, options.depth))
    return _train(data, shallow, start, settings, options.quantile_rounds)


def _train(
    data: Dataset, options: TrainOptions, start: Start, settings: dict[str, Any], rounds: int
) -> "xgboost.Booster":
    import xgboost

    margin = margin_of(data.features, data.basis, start)
    outputs = len(settings.get("quantile_alpha", [0.5]))
    if outputs > 1:
        margin = np.repeat(margin[:, None], outputs, axis=1)
    matrix = xgboost.DMatrix(
        data.features, data.target, base_margin=margin, feature_names=list(FEATURES)
    )
    parameters = {
        "max_depth": options.depth,
        "eta": options.eta,
        "min_child_weight": options.min_child_weight,
        "subsample": options.subsample,
        "colsample_bytree": options.colsample,
        "lambda": options.reg_lambda,
        "monotone_constraints": dict.fromkeys(MONOTONE, 1),
        "base_score": 0.0,
        "tree_method": "hist",
        "max_bin": 64,
        "nthread": 1,
        "seed": options.seed,
        "verbosity": 0,
        **settings,
    }
    return xgboost.train(parameters, matrix, rounds)
