"""`hios trace`: a measured run beside its prediction, as a picture or for Perfetto."""

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

_SUFFIXES = (".png", ".json")


@click.command("trace", short_help="Show a measured run beside its prediction.")
@click.argument("source", metavar="MODEL", shell_complete=complete_sources)
@click.option(
    "-o",
    "--output",
    "paths",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="A picture (.png) or a trace for Perfetto and Chrome (.json). Repeatable.",
)
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    default=9,
    show_default=True,
    help="Measured runs; the one of median length is shown, as it was.",
)
@machine_options
@scheduler_options
@model_options
@output_options
def command(
    source: str,
    paths: tuple[Path, ...],
    runs: int,
    machine: MachineChoice,
    deciding: SchedulerChoice,
    model: ModelChoice,
    output: OutputChoice,
) -> None:
    """Run MODEL and show when every operator and copy ran, beside the prediction.

    MODEL is an artifact, or a model that is compiled first. The prediction stands on the costs
    that --costs names; operators that were measured before are not measured again.

    \b
    Examples:
      hios trace model.hios -o model.png
      hios trace model.hios -o model.png -o model.trace.json --runs 25
    """
    from graph_executor.executor import random_inputs
    from hios.errors import InvalidOption
    from hios_tvm.cli.problem import measured_costs, open_model, summarise

    for path in paths:
        if path.suffix not in _SUFFIXES:
            raise InvalidOption(
                f"--output {path}: need a name that ends in {' or '.join(_SUFFIXES)}"
            )
    with open_model(source, machine, model, deciding, output) as opened:
        measured = opened.profile(runs=runs, inputs=random_inputs(opened.graph, model.seed))
        place, costs = opened.machine, opened.costs
        if costs is None:
            place, costs = measured_costs(opened.compiled, place, deciding, output, model.cache)
    summary = summarise(opened.graph, place, costs, opened.schedule)
    timelines = [summary.timeline, measured]
    for path in paths:
        if path.suffix == ".png":
            from hios_tvm.report.gantt import draw_gantt

            draw_gantt(
                opened.graph,
                place,
                timelines,
                path,
                title=f"{opened.graph.name} · {opened.schedule.scheduler}",
                sequential_us=summary.sequential_us,
                lower_bound_us=summary.lower_bound_us,
            )
        else:
            from hios_tvm.report.trace import write_trace

            write_trace(opened.graph, place, timelines, path)
    if output.json:
        print_json(
            {
                "graph": opened.graph.name,
                "scheduler": opened.schedule.scheduler,
                "predicted_us": summary.makespan_us,
                "measured_us": measured.makespan_us,
                "runs": runs,
                "files": [str(path) for path in paths],
            }
        )
        return
    from hios_tvm.report.summary import devices_table, format_us

    terminal = console()
    change = measured.makespan_us / summary.makespan_us - 1 if summary.makespan_us > 0 else 0.0
    terminal.print(
        f"measured {format_us(measured.makespan_us)} (median of {runs} runs), "
        f"predicted {format_us(summary.makespan_us)}: {change:+.1%}",
        markup=False,
    )
    terminal.print(devices_table(opened.graph, place, measured))
    for path in paths:
        terminal.print(f"wrote {path}", markup=False)
