"""What the learned cost model costs in latency, against measuring every stage.

One device owns two cores and has two streams: the groups of a stage share the cores. For each
network, `ios` and `hios-lp` decide twice, with stages

* measured: every stage that the scheduler asks about is run (one measurement for all stages of
  the same kernels), and costs the solo times of its operators times the measured ratio;
* predicted: by a model that was trained without this network.

Both schedules then run interleaved on the same cores. Regret is the latency of the learned
schedule over that of the exhaustive one, minus 1. ``--count`` only counts candidate stages.

For networks whose exhaustive profile would take too long (``--large``) only the time to decide is
compared: a sample of the stages is measured, and the mean stands for the rest.
"""

import json
import os
import platform
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from benchmarks.measured_stages import CountedStages, MeasuredStages
from cost_model.dataset import Dataset, build_dataset
from cost_model.learned import LearnedCosts
from cost_model.model_file import CostModel, describe_model
from cost_model.records import GroupRecord
from cost_model.splits import network_of
from cost_model.store import read_records
from cost_model.train import TrainOptions, fit
from graph_executor.artifact import load_artifact
from graph_executor.group_timer import GroupOptions
from graph_executor.host import cpu_name
from graph_executor.measure import MeasureOptions, measure_costs
from graph_executor.select import Candidate, SelectOptions, select_fastest
from hios.costs.table import TableCosts
from hios.errors import InvalidOption
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId
from hios.ir.kernels import CompiledGraph
from hios.ir.machine import Machine
from hios.ir.presets import available_cores, cpu_machine
from hios.ir.schedule import Schedule
from hios.ir.serial import encode_json, write_bytes
from hios.schedulers import schedule as run_scheduler
from hios.simulator import makespan
from hios.statistics import ratio_of_medians
from hios_tvm.cli.terminal import print_json, progress_bar
from hios_tvm.collecting import ModelShelf
from hios_tvm.models.light import LIGHT_NETWORKS

RESULT = Path(__file__).parent / "results" / "cost_model_regret.json"

MODELS = (
    *(f"light:{name}" for name in LIGHT_NETWORKS),
    *("zoo:squeezenet_bypass@224", "zoo:inception_v3@299", "zoo:moe_block@128"),
)
"""Fixed before anything was measured; networks of more candidates than `MOST_STAGES` are named
and left out."""

LARGE = ("zoo:inception_v3@299", "zoo:nasnet_large@331")
"""Networks of which only the time to decide is compared."""

SCHEDULERS = ("ios", "hios-lp")
MOST_STAGES = 2000


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--models", default=",".join(MODELS), help="Comma-separated.  [default: the list]")
@click.option("--large", default=",".join(LARGE), show_default=True, help="Comma-separated.")
@click.option("--sample", default=40, show_default=True, help="Stages measured of a large one.")
@click.option("--schedulers", default=",".join(SCHEDULERS), show_default=True)
@click.option("--repeat", default=12, show_default=True, help="Turns of each schedule.")
@click.option("--rounds", default=15, show_default=True, help="Samples of each stage at least.")
@click.option("--count", is_flag=True, help="Count candidate stages and measure nothing.")
@click.option("--artifacts", type=click.Path(path_type=Path), help="Keep compiled models here.")
@click.option("--keep", is_flag=True, help="Keep what --out has of other networks.")
@click.option("--out", type=click.Path(path_type=Path), default=RESULT, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(
    files: tuple[Path, ...],
    models: str,
    large: str,
    sample: int,
    schedulers: str,
    repeat: int,
    rounds: int,
    count: bool,
    artifacts: Path | None,
    keep: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Compare schedules from predicted stages with schedules from measured ones.

    FILES are measured groups, from which a model is trained for each network without it.
    """
    names = [name for name in models.split(",") if name]
    others = [name for name in large.split(",") if name]
    machine = cpu_machine(["cpu:0"], available_cores()[:2], 2)
    algorithms = schedulers.split(",")
    every = [*others, *names]
    options = GroupOptions(rounds=rounds, most_rounds=60, budget_ms=40.0)
    with (
        progress_bar("regret", is_quiet=as_json) as progress,
        ModelShelf(every, None, machine.devices[0], artifacts, 0, progress) as shelf,
    ):
        if count:
            for number, name in enumerate(every):
                click.echo(f"{name}: {count_stages(shelf.graph(number), machine, algorithms)}")
            return
        records: list[GroupRecord] = [r for path in files for r in read_records(path).records]
        data = build_dataset(records)
        result = _known(out, data) if keep else {"rows": [], "large": [], "left_out": {}}
        for number, name in enumerate(every):
            progress(name, number / len(every))
            compiled = load_artifact(shelf.artifact(number)).compiled
            model = model_without(data, name)
            if number < len(others):
                new = time_to_decide(name, compiled, machine, model, algorithms, options, sample)
                result["large"] = _replaced(result["large"], new)
                continue
            candidates = count_stages(compiled.graph, machine, algorithms)
            if candidates > MOST_STAGES:
                result["left_out"][name] = candidates
                continue
            new = compare(name, compiled, machine, model, algorithms, options, repeat)
            result["rows"] = _replaced(result["rows"], new)
    result |= {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{cpu_name()}, {os.cpu_count()} cores, {platform.system()}",
        "device": "one device of two cores, two streams",
        "command": f"python -m benchmarks.cost_model_regret {' '.join(p.name for p in files)}",
        "data_hash": data.digest(),
        **summary(result["rows"]),
    }
    write_bytes(out, encode_json(result, indent=2) + b"\n")
    if as_json:
        print_json(result)
        return
    from benchmarks.cost_model_tables import cost_model_regret, cost_model_time

    click.echo(cost_model_regret(result))
    click.echo(cost_model_time(result))
    click.echo(summary(result["rows"]))


def _known(out: Path, data: Dataset) -> dict[str, Any]:
    """Return what a result has already.

    Raises
    ------
    InvalidOption
        When it stands on other groups.
    """
    if not out.exists():
        return {"rows": [], "large": [], "left_out": {}}
    known: dict[str, Any] = json.loads(out.read_text())
    if known["data_hash"] != data.digest():
        raise InvalidOption(f"{str(out)!r} stands on other groups; run without --keep")
    return {name: known[name] for name in ("rows", "large", "left_out")}


def _replaced(rows: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    fresh = {row["model"] for row in new}
    return [row for row in rows if row["model"] not in fresh] + new


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and worst regret, and what was measured on both ways."""
    if not rows:
        return {}
    regrets = [row["regret"] for row in rows]
    return {
        "mean_regret": sum(regrets) / len(regrets),
        "worst_regret": max(regrets),
        "stages_asked": sum(row["stages_asked"] for row in rows),
        "operators_measured": sum(
            {row["model"]: row["operators_measured"] for row in rows}.values()
        ),
    }


def model_without(data: Dataset, name: str) -> CostModel:
    """Return a model trained on the groups of all other networks.

    Raises
    ------
    InvalidOption
        When there are none.
    """
    network = network_of(name)
    own = {
        group for group, m in zip(data.ids, data.models, strict=True) if network_of(m) == network
    }
    rest = [i for i, group in enumerate(data.ids) if group not in own]
    if len(rest) < 2:
        raise InvalidOption(f"no groups but those of {network}; collect on other networks too")
    others = data.take(rest)
    return describe_model(others, fit(others, TrainOptions()))


def count_stages(graph: OpGraph, machine: Machine, schedulers: Sequence[str]) -> int:
    """Return how many different stages of several groups the schedulers ask about together.

    What they ask may depend on the answers; here each operator takes 1 µs a million operations.
    """
    times = [[1.0 + op.flops / 1e6 + op.bytes_written / 1e4] for op in graph.operators]
    table = TableCosts(graph, machine, times, [[1.6 * row[0]] for row in times])
    counted = CountedStages(graph, table)
    for name in schedulers:
        run_scheduler(name, graph, machine, counted, **_options(name))
    return len(counted.asked)


def compare(
    name: str,
    compiled: CompiledGraph,
    machine: Machine,
    model: CostModel,
    schedulers: Sequence[str],
    options: GroupOptions,
    repeat: int,
) -> list[dict[str, Any]]:
    """Return one row for each scheduler."""
    graph = compiled.graph
    measured = measure_costs(compiled, machine, MeasureOptions(is_cached=False))
    target = compiled.library.target
    rows = []
    with MeasuredStages(compiled, measured.costs, machine.devices[0], options) as exhaustive:
        for scheduler in schedulers:
            exhaustive.forget_asked()
            best = run_scheduler(scheduler, graph, machine, exhaustive, **_options(scheduler))
            asked = dict(exhaustive.seconds)
            learned = LearnedCosts(measured.costs, model, [cpu_name()], target)
            started = time.perf_counter()
            guess = run_scheduler(scheduler, graph, machine, learned, **_options(scheduler))
            seconds = time.perf_counter() - started
            schedules = {"exhaustive": best, "learned": guess}
            samples = _run(compiled, machine, schedules, repeat)
            regret = ratio_of_medians(samples["learned"], samples["exhaustive"])
            rows.append(
                {
                    "model": name,
                    "scheduler": scheduler,
                    "operators": len(graph.operators),
                    "operators_measured": len({str(op.attrs["key"]) for op in graph.operators}),
                    "stages_asked": len(asked),
                    "stages_rejected": len(exhaustive.rejected & set(asked)),
                    "stage_seconds": sum(asked.values()),
                    "learned_seconds": seconds,
                    "stages_predicted": learned.stages_predicted,
                    "sequential_us": _median(samples["sequential"]),
                    "exhaustive_us": _median(samples["exhaustive"]),
                    "learned_us": _median(samples["learned"]),
                    "exhaustive_predicted_us": makespan(graph, machine, exhaustive, best),
                    "learned_predicted_us": makespan(graph, machine, learned, guess),
                    "learned_by_measured_us": makespan(graph, machine, exhaustive, guess),
                    "same_schedule": best.placements == guess.placements,
                    "regret": regret.value - 1,
                    "regret_low": regret.low - 1,
                    "regret_high": regret.high - 1,
                    "samples": len(samples["learned"]),
                }
            )
    return rows


def time_to_decide(
    name: str,
    compiled: CompiledGraph,
    machine: Machine,
    model: CostModel,
    schedulers: Sequence[str],
    options: GroupOptions,
    sample: int,
) -> list[dict[str, Any]]:
    """Return, for each scheduler, how long deciding takes on both ways."""
    graph = compiled.graph
    started = time.perf_counter()
    measured = measure_costs(compiled, machine, MeasureOptions(is_cached=False))
    solo_seconds = time.perf_counter() - started
    rows = []
    for scheduler in schedulers:
        learned = LearnedCosts(measured.costs, model, [cpu_name()], compiled.library.target)
        counted = CountedStages(graph, learned)
        started = time.perf_counter()
        run_scheduler(scheduler, graph, machine, learned, **_options(scheduler))
        decide_seconds = time.perf_counter() - started
        run_scheduler(scheduler, graph, machine, counted, **_options(scheduler))
        stages = sorted(counted.asked.items())
        chosen = random.Random(0).sample(stages, min(sample, len(stages)))
        with MeasuredStages(compiled, measured.costs, machine.devices[0], options) as exhaustive:
            for _, groups in chosen:
                exhaustive.stage_us(groups, DeviceId(0))
            spent = list(exhaustive.seconds.values())
        each = sum(spent) / len(spent) if spent else 0.0
        rows.append(
            {
                "model": name,
                "scheduler": scheduler,
                "operators": len(graph.operators),
                "solo_seconds": solo_seconds,
                "decide_seconds": decide_seconds,
                "stages_asked": len(stages),
                "stages_sampled": len(spent),
                "seconds_a_stage": each,
                "exhaustive_seconds": each * len(stages),
            }
        )
    return rows


def _options(scheduler: str) -> dict[str, Any]:
    return {"merge": False} if scheduler == "ios" else {}


def _run(
    compiled: CompiledGraph, machine: Machine, schedules: dict[str, Schedule], repeat: int
) -> dict[str, tuple[float, ...]]:
    """Run the schedules and the sequential one in turns."""
    candidates = [Candidate(name, machine, schedule) for name, schedule in schedules.items()]
    selection = select_fastest(compiled, candidates, SelectOptions(rounds=repeat))
    return {name: samples.times_us for name, samples in selection.samples.items()}


def _median(times: Sequence[float]) -> float:
    ordered = sorted(times)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


if __name__ == "__main__":
    main()
