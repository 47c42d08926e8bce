"""Which training options predict unseen networks best, on networks set aside for this choice.

``python -m benchmarks.cost_model_options groups.jsonl.gz`` takes half of the networks, by the hash
of their names, and leaves each of them out in turn; the other half has no say. Nothing is
written. The defaults of `cost_model.train.TrainOptions` were set by hand and were not chosen by
this yet.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from cost_model.dataset import Dataset, build_dataset
from cost_model.splits import fold_number, folds_of, network_of
from cost_model.store import read_records
from cost_model.train import TrainOptions, predict_quickly

VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"base": "bound"},
    {"base": "half"},
    {"depth": 3},
    {"depth": 5},
    {"depth": 3, "rounds": 500},
    {"rounds": 150},
    {"eta": 0.03},
    {"slope": 0.03},
    {"slope": 0.3},
    {"min_child_weight": 1.0},
    {"min_child_weight": 12.0},
    {"colsample": 0.3},
    {"reg_lambda": 10.0},
)
"""Each against the defaults."""


def chosen_on(network: str) -> bool:
    """Return whether options may be chosen by this network."""
    return fold_number(f"options {network}", 2) == 0


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
def main(files: tuple[Path, ...]) -> None:
    """Compare training options."""
    data = build_dataset([r for path in files for r in read_records(path).records])
    own = data.take([i for i, m in enumerate(data.models) if chosen_on(network_of(m))])
    networks = sorted({network_of(model) for model in own.models})
    click.echo(f"{len(own)} groups of {', '.join(networks)}")
    for variant in VARIANTS:
        mape, p90 = error_of(own, replace(TrainOptions(), **variant))
        click.echo(f"{mape:7.2%}  p90 {p90:7.2%}  {variant or 'defaults'}")


def error_of(data: Dataset, options: TrainOptions) -> tuple[float, float]:
    """Return MAPE and p90 over the networks of a data set, each left out in turn."""
    errors = []
    for fold in folds_of(data, "unseen-model"):
        test = data.take(fold.test)
        found = predict_quickly(data.take(fold.train), test, options)
        errors.append(np.abs(np.expm1(found - test.target)))
    every = np.concatenate(errors)
    return float(every.mean()), float(np.quantile(every, 0.9))


if __name__ == "__main__":
    main()
