"""`hios run`: run a model once, on given or random inputs."""

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


@click.command("run", short_help="Run a model once.")
@click.argument("source", metavar="MODEL", shell_complete=complete_sources)
@click.option(
    "-i",
    "--input",
    "given",
    type=click.Path(path_type=Path),
    help="Inputs by name (.npz).  [default: random, from --seed]",
)
@click.option(
    "-o", "--output", "path", type=click.Path(path_type=Path), help="Write the outputs (.npz)."
)
@machine_options
@scheduler_options
@model_options
@output_options
def command(
    source: str,
    given: Path | None,
    path: Path | None,
    machine: MachineChoice,
    deciding: SchedulerChoice,
    model: ModelChoice,
    output: OutputChoice,
) -> None:
    """Run MODEL once and tell its outputs.

    MODEL is an artifact, or a model that is compiled first. Inputs and outputs are .npz files
    whose arrays carry the names of the model's inputs and outputs.

    \b
    Examples:
      hios run model.hios --input x.npz -o y.npz
      hios run model.hios --seed 7
    """
    from graph_executor.executor import random_inputs
    from hios_tvm.arrays import read_arrays, write_arrays
    from hios_tvm.cli.problem import open_model

    inputs = None if given is None else read_arrays(given)
    with open_model(source, machine, model, deciding, output, select=False) as opened:
        outputs = opened.run(random_inputs(opened.graph, model.seed) if inputs is None else inputs)
    if path is not None:
        write_arrays(path, outputs)
    rows = [
        {
            "name": name,
            "shape": list(array.shape),
            "dtype": str(array.dtype),
            "min": float(array.min()) if array.size else None,
            "mean": float(array.mean()) if array.size else None,
            "max": float(array.max()) if array.size else None,
        }
        for name, array in outputs.items()
    ]
    if output.json:
        print_json({"outputs": rows, "file": None if path is None else str(path)})
        return
    from hios_tvm.report.summary import rows_table

    headers = ("output", "shape", "dtype", "min", "mean", "max")
    cells = [
        (
            str(row["name"]),
            "×".join(map(str, outputs[str(row["name"])].shape)) or "scalar",
            str(row["dtype"]),
            *("–" if row[key] is None else f"{row[key]:.6g}" for key in ("min", "mean", "max")),
        )
        for row in rows
    ]
    terminal = console()
    terminal.print(rows_table(headers, cells))
    if path is not None:
        terminal.print(f"wrote {path}", markup=False)
