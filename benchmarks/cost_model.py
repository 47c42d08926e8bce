"""How well the learned cost model predicts: every split, every baseline, and the noise.

``python -m benchmarks.cost_model groups.jsonl.gz`` trains once for each fold of each split and
writes ``benchmarks/results/cost_model.json``, from which ``python -m benchmarks.tables`` makes
the tables of ``docs/cost-model.md``; ``--plot`` draws what stands beside them.
"""

import os
import platform
import statistics
import time
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.cost_model_plot import draw_calibration
from cost_model.dataset import Dataset, build_dataset
from cost_model.evaluation import SplitResult, evaluate_split
from cost_model.features import FEATURES, group_features, lay_out, setting_row
from cost_model.metrics import bootstrap
from cost_model.operator_features import operator_rows
from cost_model.records import GroupRecord
from cost_model.splits import SPLITS, fold_number, folds_of, network_of
from cost_model.store import read_records
from cost_model.train import Fitted, TrainOptions, fit, predict_quickly
from graph_executor.host import cpu_name
from hios.ir.serial import encode_json, write_bytes
from hios_tvm.cli.terminal import Progress, print_json, progress_bar

RESULT = Path(__file__).parent / "results" / "cost_model.json"
FRACTIONS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--split", "splits", multiple=True, help="Only these.  [default: all five]")
@click.option("--out", type=click.Path(path_type=Path), default=RESULT, show_default=True)
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the calibration as PNG.")
@click.option("--json", "as_json", is_flag=True, help="Print the result.")
def main(
    files: tuple[Path, ...], splits: tuple[str, ...], out: Path, plot: Path | None, as_json: bool
) -> None:
    """Evaluate the cost model on measured groups."""
    records: list[GroupRecord] = []
    damaged = 0
    for path in files:
        found = read_records(path)
        records += found.records
        damaged += len(found.damaged)
    data = build_dataset(records)
    options = TrainOptions()
    started = time.perf_counter()
    results: list[SplitResult] = []
    with progress_bar("evaluate", is_quiet=as_json) as progress:
        for number, split in enumerate(splits or SPLITS):

            def tell(what: str, done: float, number: int = number) -> None:
                progress(what, (number + done) / (len(splits or SPLITS) + 1))

            result = evaluate_split(data, split, options, tell)
            if result is not None:
                results.append(result)
        told = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": f"{cpu_name()}, {os.cpu_count()} cores, {platform.system()}",
            "command": f"python -m benchmarks.cost_model {' '.join(p.name for p in files)}",
            "records": _counts(records, damaged),
            "data": _data_facts(data),
            "options": msgspec.to_builtins(options),
            "splits": [_told(result) for result in results],
            "learning_curve": learning_curve(data, options, progress),
            "importance": importance(data, options),
            "prediction": prediction_speed(data, fit(data, options).fitted),
            "seconds": time.perf_counter() - started,
        }
    write_bytes(out, encode_json(told, indent=2) + b"\n")
    if plot is not None:
        draw_calibration(results, plot)
    if as_json:
        print_json(told)
    else:
        from benchmarks.cost_model_tables import cost_model

        click.echo(cost_model(told))


def learning_curve(
    data: Dataset, options: TrainOptions, progress: Progress
) -> list[dict[str, float]]:
    """Return the error on networks left out, against how many groups were trained on.

    Groups are taken by the hash of their identity, so each part holds the smaller ones.
    """
    folds = folds_of(data, "unseen-model") or folds_of(data, "unseen-group")
    rank = [fold_number(f"curve {group}", 1 << 30) / (1 << 30) for group in data.ids]
    points = []
    for fraction in FRACTIONS:
        progress(f"learning curve: {fraction:.0%}", 1.0)
        errors, counts, clusters = [], [], []
        for fold in folds:
            few = [int(i) for i in fold.train if rank[i] < fraction]
            if len(few) < 10:
                continue
            train, test = data.take(few), data.take(fold.test)
            found = predict_quickly(train, test, options)
            error = np.abs(np.expm1(found - test.target))
            errors.append(error)
            counts.append(len(few))
            clusters += [network_of(model) for model in test.models]
        if not errors:
            continue
        every = np.concatenate(errors)
        interval = bootstrap(partial(_mean, every), clusters)
        points.append(
            {
                "fraction": fraction,
                "groups": statistics.fmean(counts),
                "mape": interval.value,
                "low": interval.low,
                "high": interval.high,
            }
        )
    return points


def importance(data: Dataset, options: TrainOptions, most: int = 20) -> list[dict[str, Any]]:
    """Return the features that reduced the loss most, as shares of the whole."""
    score = fit(data, options).booster.get_score(importance_type="total_gain")
    total = sum(score.values()) or 1.0
    ranked = sorted(score.items(), key=lambda item: -item[1])[:most]
    return [{"feature": name, "share": gain / total} for name, gain in ranked]


def prediction_speed(data: Dataset, fitted: Fitted, repeat: int = 7) -> dict[str, float]:
    """Return microseconds a group, features included, for one group and for a batch of 1,000.

    Rows of operators are there before, as they are in `cost_model.learned.LearnedCosts`.
    """
    record = max(data.records, key=lambda r: len(r.ops))
    pool = [op for r in data.records[:200] for op in r.ops]
    rows = operator_rows(pool, record.device)
    setting = np.array([setting_row(record.device, record.mode, record.cache)])
    is_cpu = record.device.kind == "cpu"
    generator = np.random.default_rng(0)
    groups = [[generator.integers(0, len(pool), 2).tolist() for _ in range(2)] for _ in range(1000)]

    def ask(asked: list[list[list[int]]]) -> None:
        features, basis = group_features(rows, lay_out(asked), setting, is_cpu)
        fitted.predict(features, basis)

    def best(asked: list[list[list[int]]], times: int) -> float:
        ask(asked)
        found = []
        for _ in range(repeat):
            started = time.perf_counter()
            for _ in range(times):
                ask(asked)
            found.append((time.perf_counter() - started) / times * 1e6)
        return statistics.median(found)

    return {
        "single_us": best(groups[:1], 200),
        "batched_us": best(groups, 3) / len(groups),
        "batch": float(len(groups)),
        "features": float(len(FEATURES)),
    }


def _mean(values: npt.NDArray[np.float64], at: npt.NDArray[np.intp]) -> float:
    return float(values[at].mean())


def _counts(records: list[GroupRecord], damaged: int) -> dict[str, Any]:
    reasons = Counter(record.reject.partition(":")[0] for record in records if not record.valid)
    return {
        "lines": len(records) + damaged,
        "damaged": damaged,
        "valid": sum(record.valid for record in records),
        "rejected": dict(reasons.most_common()),
        "sessions": len({record.session for record in records}),
    }


def _data_facts(data: Dataset) -> dict[str, Any]:
    sizes = Counter(record.streams for record in data.records)
    return {
        "groups": len(data),
        "operators": len(frozenset().union(*data.keys)),
        "networks": dict(sorted(Counter(map(network_of, data.models)).items())),
        "streams": {str(size): count for size, count in sorted(sizes.items())},
        "devices": dict(Counter(data.devices)),
        "hash": data.digest(),
        "noise": None if data.noise is None else msgspec.to_builtins(data.noise),
        "faster_together": float((data.target < 0.0).mean()),
        "dates": sorted({record.date[:10] for record in data.records}),
    }


def _told(result: SplitResult) -> dict[str, Any]:
    return {
        "split": result.split,
        "folds": result.folds,
        "learned": msgspec.to_builtins(result.learned),
        "baselines": msgspec.to_builtins(result.baselines),
        "gains": msgspec.to_builtins(result.gains),
        "by_fold": {name: list(values) for name, values in result.by_fold.items()},
    }


if __name__ == "__main__":
    main()
