"""`hios report`: one HTML page that shows a schedule, a run of it, and its rivals."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hios_tvm.cli.complete import complete_sources
from hios_tvm.cli.invocation import invocation
from hios_tvm.cli.options import (
    MachineChoice,
    ModelChoice,
    OutputChoice,
    SchedulerChoice,
    machine_options,
    model_options,
    output_options,
    scheduler_options,
)
from hios_tvm.cli.terminal import console, print_json, progress_bar

if TYPE_CHECKING:
    from hios_tvm.report.html.build import ReportParts
    from hios_tvm.report.html.data import RivalRow

__all__ = ["command"]


@click.command("report", short_help="Write one HTML page about a schedule.")
@click.argument("source", metavar="FILE", shell_complete=complete_sources)
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=Path),
    help="The page.  [default: NAME.html in this folder]",
)
@click.option(
    "--measure/--no-measure",
    default=None,
    help="Run it and show the run beside the prediction.  [default: where this host can]",
)
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    default=9,
    show_default=True,
    help="Measured runs; the one of median length is shown.",
)
@click.option("--rivals", is_flag=True, help="Let the other schedulers decide as well.")
@click.option(
    "--rivals-budget",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    default=20.0,
    show_default=True,
    help="For all rivals together; who is late is told as such.",
)
@click.option(
    "--comparison",
    "comparisons",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Show what `hios compare --json` wrote. Repeatable.",
)
@machine_options
@scheduler_options
@model_options
@output_options
def command(
    source: str,
    path: Path | None,
    measure: bool | None,
    runs: int,
    rivals: bool,
    rivals_budget: float,
    comparisons: tuple[Path, ...],
    machine: MachineChoice,
    deciding: SchedulerChoice,
    model: ModelChoice,
    output: OutputChoice,
) -> None:
    """Write one HTML page about FILE: timeline, graph, critical path, memory and rivals.

    The page needs no network and no other file. FILE is an artifact (.hios), which keeps its
    schedule, a model, which is compiled and decided first, or a graph file (.json), which is
    only predicted.

    \b
    Examples:
      hios report model.hios -o report.html
      hios report model.hios --rivals --rivals-budget 60 -o report.html
      hios report graph.json --devices 4 --scheduler hios-lp -o graph.html
    """
    from hios_tvm.report.html import build_report, write_page
    from hios_tvm.report.html.comparison import read_comparison

    compared = [model for file in comparisons for model in read_comparison(file)]
    parts = _parts(source, measure, runs, machine, deciding, model, output)
    rows = list(parts.rivals)
    if rivals:
        rows += _run_rivals(parts, rivals_budget, output)
    from dataclasses import replace

    report = build_report(replace(parts, rivals=rows, comparisons=compared))
    target = path or Path(f"{_stem(source)}.html")
    write_page(report, target)
    if output.json:
        print_json(
            {
                "page": str(target),
                "graph": report.name,
                "scheduler": report.scheduler,
                "operators": len(report.operators),
                "lower_bound_us": report.lower_bound_us,
                "sequential_us": report.sequential_us,
                "timelines": {one.origin: one.makespan_us for one in report.timelines},
                "rivals": {row.name: row.makespan_us for row in rows},
                "bytes": target.stat().st_size,
            }
        )
        return
    from hios_tvm.report.summary import format_bytes, format_us

    told = ", ".join(f"{format_us(one.makespan_us)} {one.origin}" for one in report.timelines)
    size = format_bytes(target.stat().st_size)
    console().print(f"wrote {target} ({size}): {report.scheduler}, {told}", markup=False)


def _parts(
    source: str,
    measure: bool | None,
    runs: int,
    machine: MachineChoice,
    deciding: SchedulerChoice,
    model: ModelChoice,
    output: OutputChoice,
) -> "ReportParts":
    """Read, decide, and measure where that is asked for or can be done."""
    from hios.errors import InvalidOption
    from hios_tvm.cli.problem import cost_kind, decide, measured_costs, open_model, read_problem
    from hios_tvm.report.html.build import ReportParts
    from hios_tvm.report.html.memory import memory_of
    from hios_tvm.report.html.rivals import measured_rivals

    is_graph_file = source.endswith(".json")
    if is_graph_file and measure:
        raise InvalidOption(
            f"{source!r} is a graph file and has no kernels to measure; give a model or an artifact"
        )
    commands = {"This page": invocation()}
    measured = None
    if is_graph_file or measure is False or (measure is None and machine.machine is not None):
        problem = read_problem(source, machine, model, deciding, output)
        summary = decide(problem, deciding, output)
        costs, place = problem.costs, problem.machine
    else:
        from graph_executor.executor import random_inputs
        from hios_tvm.cli.problem import summarise

        with open_model(source, machine, model, deciding, output) as opened:
            place, known = opened.machine, opened.costs
            if measure or all(device.kind == "cpu" for device in place.devices):
                with progress_bar("run", output.quiet or output.json) as progress:
                    progress(f"{runs} runs", 0.0)
                    inputs = random_inputs(opened.graph, model.seed)
                    measured = opened.profile(runs=runs, inputs=inputs)
            if known is None:
                place, known = measured_costs(opened.compiled, place, deciding, output)
            costs = known
            summary = summarise(opened.graph, place, costs, opened.schedule)
            commands = {"The artifact": opened.compiled.attrs.get("command", ""), **commands}
    graph, schedule = summary.graph, summary.schedule
    return ReportParts(
        summary,
        costs,
        _cost_source(is_graph_file, cost_kind(place, deciding)),
        measured=measured,
        memory=memory_of(graph, place, schedule),
        rivals=measured_rivals(schedule, summary.makespan_us),
        commands=commands,
    )


def _run_rivals(parts: "ReportParts", seconds: float, output: OutputChoice) -> "list[RivalRow]":
    from hios_tvm.report.html.rivals import RivalProblem, default_rivals, run_rivals

    summary = parts.summary
    names = [name for name in default_rivals() if name != summary.schedule.scheduler]
    problem = RivalProblem(summary.graph, summary.machine, parts.costs)
    with progress_bar("rivals", output.quiet or output.json) as progress:
        return list(run_rivals(problem, names, seconds, progress))


def _cost_source(is_graph_file: bool, kind: str) -> str:
    """Say in words where times come from."""
    if is_graph_file:
        return "the graph file" if not kind.endswith(".json") else f"the file {kind}"
    return {
        "profile": "measurements of every operator alone on this host",
        "analytic": "an estimate from the machine's data sheet (roofline); nothing was measured",
        "learned": "a learned cost model",
    }.get(kind, f"the file {kind}")


def _stem(source: str) -> str:
    """Return the page's name for a source: ``a/b.hios`` and ``zoo:b@299`` give ``b``."""
    return Path(source.rstrip("/").rpartition(":")[2].partition("@")[0]).stem
