"""`hios simulate`: the predicted timeline of a schedule."""

from dataclasses import asdict
from pathlib import Path

import click

from hios_tvm.cli.complete import complete_sources
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
from hios_tvm.cli.terminal import console, print_json

__all__ = ["command"]


@click.command("simulate", short_help="Predict when everything runs.")
@click.argument("source", metavar="FILE", shell_complete=complete_sources)
@click.option("--png", type=click.Path(path_type=Path), help="Draw the timeline.")
@click.option(
    "--trace", type=click.Path(path_type=Path), help="Write it for Perfetto or Chrome (JSON)."
)
@machine_options
@scheduler_options
@model_options
@output_options
def command(
    source: str,
    png: Path | None,
    trace: Path | None,
    machine: MachineChoice,
    deciding: SchedulerChoice,
    model: ModelChoice,
    output: OutputChoice,
) -> None:
    """Predict when every operator and copy of FILE runs, without running anything.

    The schedule is decided by --scheduler, or read with --load-schedule. FILE is what
    `hios schedule` takes.

    \b
    Examples:
      hios simulate graph.json --devices 4 --png graph.png
      hios simulate graph.json --devices 4 --load-schedule s.json --trace graph.trace.json
    """
    from hios_tvm.cli.problem import decide, read_problem

    problem = read_problem(source, machine, model, deciding, output)
    summary = decide(problem, deciding, output)
    graph, described, timeline = summary.graph, summary.machine, summary.timeline
    if png is not None:
        from hios_tvm.report.gantt import draw_gantt

        draw_gantt(
            graph,
            described,
            [timeline],
            png,
            title=f"{graph.name} · {summary.schedule.scheduler}",
            sequential_us=summary.sequential_us,
            lower_bound_us=summary.lower_bound_us,
        )
    if trace is not None:
        from hios_tvm.report.trace import write_trace

        write_trace(graph, described, [timeline], trace)
    if output.json:
        print_json(summary.to_dict() | {"events": [asdict(event) for event in timeline.events]})
        return
    from hios.ir.ids import OpId
    from hios_tvm.report.summary import devices_table, kinds_table, schedule_table

    times = {
        OpId(event.subject): event.end_us - event.start_us
        for event in timeline.events
        if event.kind == "operator"
    }
    terminal = console()
    terminal.print(schedule_table(summary))
    terminal.print(devices_table(graph, described, timeline))
    terminal.print(kinds_table(graph, times))
    for path in (png, trace):
        if path is not None:
            terminal.print(f"wrote {path}", markup=False)
