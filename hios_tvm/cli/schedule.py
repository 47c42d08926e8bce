"""`hios schedule`: decide on which device, in which stream and when each operator runs."""

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


@click.command("schedule", short_help="Decide where and when each operator runs.")
@click.argument("source", metavar="FILE", shell_complete=complete_sources, required=False)
@click.option("--list", "is_list", is_flag=True, help="List the schedulers and exit.")
@machine_options
@scheduler_options
@model_options
@output_options
def command(
    source: str | None,
    is_list: bool,
    machine: MachineChoice,
    deciding: SchedulerChoice,
    model: ModelChoice,
    output: OutputChoice,
) -> None:
    """Decide on which device, in which stream and when each operator of FILE runs.

    FILE is a graph file (JSON, operators with times), a model (.onnx, .pt2, zoo:NAME,
    light:NAME) or an artifact (.hios). A graph file needs neither TVM nor a device.

    \b
    Examples:
      hios schedule graph.json --devices 4 --streams 1 --scheduler hios-lp --json
      hios schedule model.onnx --machine 2xA40-NVLink --costs analytic
      hios schedule --list
    """
    if is_list:
        _print_schedulers(output)
        return
    if source is None:
        raise click.UsageError("Missing argument 'FILE'", click.get_current_context())
    from hios_tvm.cli.problem import decide, read_problem

    problem = read_problem(source, machine, model, deciding, output)
    summary = decide(problem, deciding, output)
    if output.json:
        print_json(summary.to_dict())
        return
    from hios_tvm.report.summary import devices_table, schedule_table

    terminal = console()
    terminal.print(schedule_table(summary))
    terminal.print(devices_table(summary.graph, summary.machine, summary.timeline))


def _print_schedulers(output: OutputChoice) -> None:
    from hios.schedulers import get_scheduler, list_schedulers

    known = [get_scheduler(name) for name in list_schedulers()]
    if output.json:
        shown = [
            {
                "name": one.name,
                "summary": one.summary,
                "source": one.source,
                "options": {name: str(default) for name, default in one.options},
            }
            for one in known
        ]
        print_json({"schedulers": shown})
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("scheduler", "what it does", "options", "source")
    for one in known:
        options = ", ".join(f"{name}={default}" for name, default in one.options)
        table.add_row(*(Text(text) for text in (one.name, one.summary, options, one.source)))
    console().print(table)
