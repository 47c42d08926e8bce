"""`hios bench`: time a model beside the same kernels one after another."""

from typing import TYPE_CHECKING

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
from hios_tvm.cli.terminal import console, print_json, progress_bar

if TYPE_CHECKING:
    from hios_tvm.model import Model

__all__ = ["command"]


@click.command("bench", short_help="Time a model beside its operators in sequence.")
@click.argument("source", metavar="MODEL", shell_complete=complete_sources)
@click.option(
    "--repeat", type=click.IntRange(min=1), default=50, show_default=True, help="Timed runs."
)
@click.option(
    "--warmup", type=click.IntRange(min=0), default=5, show_default=True, help="Runs before them."
)
@click.option("--alone", is_flag=True, help="Do not time one device in sequence beside it.")
@machine_options
@scheduler_options
@model_options
@output_options
def command(
    source: str,
    repeat: int,
    warmup: int,
    alone: bool,
    machine: MachineChoice,
    deciding: SchedulerChoice,
    model: ModelChoice,
    output: OutputChoice,
) -> None:
    """Time MODEL, interleaved with the same kernels one after another on its first device.

    Both take turns, so that a slow moment of the machine hits both; the ratio comes with its
    90 % interval. MODEL is an artifact, or a model that is compiled first.

    \b
    Examples:
      hios bench model.hios
      hios bench light:inception_v1 --devices cpu:0,cpu:1 --repeat 100 --json
    """
    from graph_executor.executor import random_inputs
    from hios_tvm.cli.problem import open_model
    from hios_tvm.comparison import compare_engines
    from hios_tvm.engines.hios_executor import HiosExecutor

    opened = open_model(source, machine, model, deciding, output)
    engines = []
    try:
        if not alone:
            engines.append(HiosExecutor("one after another, first device", _sequential(opened)))
        engines.append(HiosExecutor(f"{opened.schedule.scheduler}, {_devices(opened)}", opened))
        inputs = random_inputs(opened.graph, model.seed)
        with progress_bar("bench", output.quiet or output.json) as progress:
            compared = compare_engines(
                engines,
                inputs,
                warmup=warmup,
                repeat=repeat,
                progress=lambda done, total: progress(f"round {done} of {total}", done / total),
            )
    finally:
        for engine in engines:
            engine.close()
        opened.close()
    if output.json:
        print_json(
            {
                "graph": opened.graph.name,
                "machine": opened.machine.name,
                "rows": [
                    {
                        "name": row.name,
                        "repeat": len(row.samples.times_us),
                        "median_us": row.samples.median_us,
                        "p10_us": row.samples.p10_us,
                        "p90_us": row.samples.p90_us,
                        "p99_us": row.samples.p99_us,
                        "speedup": row.ratio.value,
                        "speedup_low": row.ratio.low,
                        "speedup_high": row.ratio.high,
                        "samples_us": row.samples.times_us,
                    }
                    for row in compared.rows
                ],
            }
        )
        return
    from hios_tvm.report.summary import format_us, rows_table

    headers = (opened.graph.name, "median", "p10", "p90", "p99", "runs", "speed-up (90 %)")
    rows = [
        (
            row.name,
            format_us(row.samples.median_us),
            format_us(row.samples.p10_us),
            format_us(row.samples.p90_us),
            format_us(row.samples.p99_us),
            str(len(row.samples.times_us)),
            f"{row.ratio.value:.2f}× ({row.ratio.low:.2f}–{row.ratio.high:.2f})",
        )
        for row in compared.rows
    ]
    console().print(rows_table(headers, rows))


def _sequential(opened: "Model") -> "Model":
    """Return the same kernels, one after another on the first device."""
    from hios.ir import DeviceId, Placement, Schedule
    from hios_tvm.model import Model

    order = opened.graph.topological_order()
    schedule = Schedule("sequential", tuple(Placement(op, DeviceId(0)) for op in order))
    return Model(opened.compiled, opened.machine.subset([0]), schedule)


def _devices(opened: "Model") -> str:
    used = len(opened.schedule.devices_used())
    return "1 device" if used == 1 else f"{used} devices"
