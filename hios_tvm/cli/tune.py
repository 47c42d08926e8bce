"""`hios tune`: search for faster kernels, and write down what was found."""

from dataclasses import asdict

import click

from hios.errors import InvalidOption
from hios_tvm.cli.complete import complete_sources
from hios_tvm.cli.options import (
    ModelChoice,
    OutputChoice,
    model_options,
    output_options,
    parse_duration,
    parse_shapes,
    parse_tracker,
)
from hios_tvm.cli.terminal import console, print_json, progress_bar

__all__ = ["command"]


@click.command("tune", short_help="Search for faster kernels of a model.")
@click.argument("source", metavar="MODEL", shell_complete=complete_sources)
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Schedules to try over the whole model, those in the database already included.",
)
@click.option("--budget", metavar="TIME", help="Stop after this long: 90s, 10m or 2h.")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Schedules that are compiled together.",
)
@click.option(
    "--population",
    type=click.IntRange(min=4),
    default=128,
    show_default=True,
    help="Schedules weighed by the cost model before each batch.",
)
@click.option("--tracker", metavar="HOST:PORT", help="Measure on a machine of this RPC tracker.")
@click.option("--key", metavar="KEY", help="Name of that machine at the tracker.")
@model_options
@output_options
def command(
    source: str,
    trials: int,
    budget: str | None,
    batch: int,
    population: int,
    tracker: str | None,
    key: str | None,
    model: ModelChoice,
    output: OutputChoice,
) -> None:
    """Run TVM's MetaSchedule over the distinct kernels of MODEL, into --database DIR.

    Kernels get trials by their share of the model's time. Every trial is written down as soon
    as it is measured: an interrupted search goes on where it stopped when it is started again
    with the same database. At the end each kernel found is measured beside the one of our
    rules; `hios compile --database DIR` takes it only where it was faster.

    \b
    Examples:
      hios tune model.onnx --trials 256 --database tuned --budget 10m
      hios tune model.onnx --database tuned --target '{"kind": "llvm", "mcpu": "znver4"}' \\
        --tracker 10.0.0.7:9190 --key epyc
    """
    if model.database is None:
        raise InvalidOption("--database DIR is needed: where the trials are written")
    if (tracker is None) != (key is None):
        raise InvalidOption("--tracker HOST:PORT and --key KEY belong together; give both")
    seconds = None if budget is None else parse_duration(budget)
    place = None if tracker is None else parse_tracker(tracker)

    from hios_tvm.caching import cache_folder
    from hios_tvm.sources import resolve_model
    from relay_passes import resolve_target
    from relay_passes.compile_cache import CompileCache
    from relay_passes.tuning import Tracker, TuneOptions, TuningDatabase, tune, tuning_tasks

    target = resolve_target(model.target or "llvm", model.allow_tf32)
    lent = None if place is None or key is None else Tracker(*place, key)
    options = TuneOptions(trials, seconds, batch, population, model.seed, lent)
    folder = cache_folder(model.cache)
    with progress_bar("tune", output.quiet or output.json) as report:
        report("import", 0.0)
        network = resolve_model(source, model.seed)
        tasks = tuning_tasks(network, target, parse_shapes(model.shapes))
        database = TuningDatabase(model.database, target, create=True)
        store = None if folder is None else CompileCache(folder).kernels
        told = tune(tasks, database, options, store, report)
    if output.json:
        print_json({"database": str(database.folder), "target": str(target)} | asdict(told))
        return
    from rich.table import Table

    table = Table()
    table.add_column("kernel")
    for column in ("calls", "trials", "cores", "rule", "tuned", "tuned/rule"):
        table.add_column(column, justify="right")
    table.add_column("taken")
    for kernel in told.kernels:
        if kernel.verdict is None or not kernel.verdict.rule_us:
            continue
        for cores, rule_us in kernel.verdict.rule_us.items():
            tuned_us = kernel.verdict.tuned_us[cores]
            table.add_row(
                kernel.name,
                str(kernel.count),
                str(kernel.trials),
                cores,
                f"{rule_us:.1f} µs",
                f"{tuned_us:.1f} µs",
                f"{tuned_us / rule_us:.2f}",
                "yes" if kernel.verdict.is_faster else "no",
            )
    terminal = console()
    if table.row_count:
        terminal.print(table)
    tried = [kernel for kernel in told.kernels if kernel.trials]
    faster = sum(k.verdict is not None and k.verdict.is_faster for k in tried)
    terminal.print(
        f"{told.trials} trials ({told.failed} failed) in {told.seconds:.0f} s, ended by "
        f"{told.stopped}; {len(tried)} of {len(told.kernels)} kernels were tried, {faster} of them "
        "are faster than those of our rules",
        markup=False,
    )
    if not faster:
        return
    terminal.print(
        f"use them with: hios compile {source} --database {model.database}", markup=False
    )
