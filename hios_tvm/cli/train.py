"""`hios train`: learn from measured groups what operators that run at once cost."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hios_tvm.cli.options import OutputChoice, output_options
from hios_tvm.cli.terminal import console, print_json, progress_bar

if TYPE_CHECKING:
    from cost_model.dataset import Dataset
    from cost_model.evaluation import SplitResult
    from cost_model.learn import Learned
    from cost_model.metrics import Metrics

__all__ = ["command", "report_training"]


@click.command("train", short_help="Learn a cost model from measured groups.")
@click.argument("files", metavar="GROUPS.jsonl...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=Path),
    required=True,
    metavar="MODEL.ubj",
    help="Where to write the model.",
)
@click.option(
    "--split",
    "splits",
    multiple=True,
    metavar="NAME",
    help="What to hold out for the evaluation: random, unseen-group, unseen-operator, "
    "unseen-model, unseen-device. Repeatable.  [default: unseen-group and unseen-model]",
)
@click.option("--no-evaluate", is_flag=True, help="Train only; say nothing about errors.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@output_options
def command(
    files: tuple[str, ...],
    path: Path,
    splits: tuple[str, ...],
    no_evaluate: bool,
    seed: int,
    output: OutputChoice,
) -> None:
    """Learn from measured groups what operators cost that run at once.

    The files are what `hios collect` writes (JSON lines, plain or .gz). The model is used with
    `--costs learned --model MODEL.ubj` by every verb that decides.

    \b
    Examples:
      hios train groups.jsonl -o model.ubj
      hios train groups.jsonl more.jsonl.gz -o model.ubj --split unseen-model --json
    """
    from cost_model.learn import QUICK_SPLITS, learn
    from cost_model.model_file import save_model
    from cost_model.records import GroupRecord
    from cost_model.store import read_records
    from cost_model.train import TrainOptions

    records: list[GroupRecord] = []
    for name in files:
        read = read_records(Path(name))
        if complaint := read.report():
            print(f"hios: {complaint}", file=sys.stderr)
        records += read.records
    chosen: Sequence[str] = () if no_evaluate else splits or QUICK_SPLITS
    with progress_bar("train", output.quiet or output.json) as progress:
        learned = learn(records, TrainOptions(seed=seed), chosen, progress)
    save_model(learned.model, path)
    report_training(learned, path, len(records), output)


def report_training(learned: "Learned", path: Path, n_records: int, output: OutputChoice) -> None:
    """Print what was trained, and how good it is beside the estimates without learning."""
    facts = learned.model.facts
    if output.json:
        print_json(
            {
                "model": str(path),
                "records": n_records,
                "groups": facts.groups,
                "operators": len(frozenset().union(*learned.data.keys)),
                "networks": list(facts.networks),
                "devices": [f"{device.name} ×{device.units}" for device in facts.devices],
                "target": facts.target_kind,
                "data_hash": facts.data_hash,
                "date": facts.date,
                "noise_mape": facts.noise,
                "splits": [_told(result) for result in learned.results],
            }
        )
        return
    from rich.table import Table

    terminal = console()
    terminal.print(
        f"{path}: {facts.groups} groups of {n_records} records, {len(facts.networks)} networks, "
        f"{', '.join(f'{d.name} ×{d.units}' for d in facts.devices)}, target {facts.target_kind}",
        markup=False,
    )
    terminal.print(_noise_line(learned.data), markup=False)
    for result in learned.results:
        table = Table(title=f"{result.split}: {result.learned.groups} groups held out in turn")
        for column in ("", "MAPE", "p90", "Spearman", "decided right", "in interval", "skill"):
            table.add_column(column, justify="left" if not column else "right")
        for name, metrics in (("learned", result.learned), *result.baselines.items()):
            table.add_row(name, *_cells(metrics))
        terminal.print(table)


def _noise_line(data: "Dataset") -> str:
    if data.noise is None:
        return "no group was measured twice: the noise is unknown"
    noise = data.noise
    return (
        f"noise: a perfect model would err by {noise.mape:.1%} ({noise.visits:.1f} visits a "
        f"group), against one visit by {noise.visit:.1%} (p90 {noise.p90:.1%}, {noise.pairs} pairs)"
    )


def _cells(metrics: "Metrics") -> tuple[str, ...]:
    mape, skill = metrics.mape, metrics.skill
    return (
        f"{mape.value:.1%} ({mape.low:.1%}–{mape.high:.1%})",
        f"{metrics.p90:.1%}",
        f"{metrics.spearman:.3f}",
        f"{metrics.decided:.1%}",
        "" if metrics.coverage is None else f"{metrics.coverage:.1%}",
        f"{skill.value:.2f} ({skill.low:.2f}–{skill.high:.2f})",
    )


def _told(result: "SplitResult") -> dict[str, Any]:
    import msgspec

    return {
        "split": result.split,
        "folds": result.folds,
        "learned": msgspec.to_builtins(result.learned),
        "baselines": msgspec.to_builtins(result.baselines),
        "gains": msgspec.to_builtins(result.gains),
        "by_fold": result.by_fold,
    }
