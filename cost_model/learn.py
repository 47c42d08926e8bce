"""From measured groups to a model, and what it may be trusted with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cost_model.dataset import Dataset, build_dataset
from cost_model.evaluation import SplitResult, evaluate_split
from cost_model.model_file import CostModel, describe_model
from cost_model.records import GroupRecord
from cost_model.train import TrainOptions, fit

__all__ = ["QUICK_SPLITS", "Learned", "learn"]

QUICK_SPLITS = ("unseen-group", "unseen-model")
"""What `learn` evaluates unless told otherwise: the easy case, and the one that matters."""


@dataclass(frozen=True, slots=True)
class Learned:
    """A trained model and its evaluation.

    Attributes
    ----------
    model
        Trained on all groups.
    data
        The groups.
    results
        Of each split that the data allow.
    """

    model: CostModel
    data: Dataset
    results: tuple[SplitResult, ...]


def learn(
    records: Sequence[GroupRecord],
    options: TrainOptions | None = None,
    splits: Sequence[str] = QUICK_SPLITS,
    progress: Callable[[str, float], None] | None = None,
) -> Learned:
    """Train on records, and evaluate on splits of them.

    Raises
    ------
    InvalidRecord
        When no record can be used, or they are of several kinds of device.
    CostModelMismatch
        When they are of several kinds of target.
    InvalidOption
        When an option is out of range, or there are fewer than two groups.
    """
    report = progress or (lambda _what, _fraction: None)
    data = build_dataset(records)
    steps = len(splits) + 1
    results = []
    for step, split in enumerate(splits):

        def tell(what: str, fraction: float, step: int = step) -> None:
            report(f"evaluate {what}", (step + fraction) / steps)

        result = evaluate_split(data, split, options, tell)
        if result is not None:
            results.append(result)
    report("train on everything", (steps - 1) / steps)
    model = describe_model(data, fit(data, options))
    report("done", 1.0)
    return Learned(model, data, tuple(results))
