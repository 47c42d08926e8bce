"""`hios compile`: from a model to an artifact that runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

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
from hios_tvm.cli.terminal import console, print_json

__all__ = ["command"]


@click.command("compile", short_help="Compile a model, decide, and save it.")
@click.argument("source", metavar="MODEL", shell_complete=complete_sources)
@click.option(
    "-o", "--output", "path", type=click.Path(path_type=Path), help="The artifact, NAME.hios."
)
@click.option(
    "--select/--no-select",
    default=True,
    show_default=True,
    help="Run the candidates and keep the fastest, never slower than one after another.",
)
@machine_options
@scheduler_options
@model_options
@output_options
def command(
    source: str,
    path: Path | None,
    select: bool,
    machine: MachineChoice,
    deciding: SchedulerChoice,
    model: ModelChoice,
    output: OutputChoice,
) -> None:
    """Compile MODEL, measure its operators, decide where and when each runs, and save it.

    MODEL is an .onnx or .pt2 file, zoo:NAME@SIZE or light:NAME, or an artifact, which keeps its
    schedule unless --scheduler or --costs is given. Without -o the artifact gets the name of
    the model and stands in this folder. For devices that are not on this host times are
    estimated and candidates compared by simulation.

    \b
    Examples:
      hios compile model.onnx --devices cpu:0,cpu:1 -o model.hios
      hios compile model.onnx --shapes data:1x3x224x224 --streams 2
      hios compile light:inception_v1 --scheduler heft --no-select
      hios compile zoo:inception_v3@1280 --target cuda:sm_90 --devices 2 --machine 2xA40-NVLink
    """
    from hios_tvm.cli.problem import open_model, summarise

    target = path or Path(_artifact_name(source))
    with open_model(source, machine, model, deciding, output, select=select) as opened:
        compiled = opened.compiled
        # Kept in the manifest: a report tells how its artifact was made.
        attrs = {**compiled.attrs, "command": invocation()}
        opened.compiled = replace(compiled, attrs=attrs)
        opened.save(target)
    from graph_executor.prediction import memory_of

    schedule, place = opened.schedule, opened.machine
    memory = memory_of(opened.graph, place, schedule)
    summary = None
    if opened.costs is not None:
        summary = summarise(opened.graph, place, opened.costs, schedule)
    from hios_tvm.report.placement_tables import memory_rows, memory_table, simulated_table

    if output.json:
        told: dict[str, Any] = {
            "graph": opened.graph.name,
            "operators": len(opened.graph.operators),
            "scheduler": schedule.scheduler,
            "machine": place.name,
            "device_names": [device.name for device in place.devices],
            "notes": dict(schedule.notes),
            "memory": memory_rows(memory),
        }
        if summary is not None:
            told |= summary.to_dict()
        print_json({"artifact": str(target)} | told)
        return
    from hios_tvm.report.summary import candidates_table, devices_table, schedule_table

    terminal = console()
    if summary is not None:
        terminal.print(schedule_table(summary))
        terminal.print(devices_table(opened.graph, place, summary.timeline))
    terminal.print(memory_table(memory))
    for table in (candidates_table(schedule), simulated_table(schedule)):
        if table is not None:
            terminal.print(table)
    used = ", ".join(device.name for device in place.devices)
    terminal.print(f"wrote {target}: {schedule.scheduler} on {used}", markup=False)


def _artifact_name(source: str) -> str:
    """Return the artifact's name for a model: ``a/b.onnx`` and ``zoo:b@299`` give ``b.hios``."""
    return Path(source.rpartition(":")[2].partition("@")[0]).stem + ".hios"
