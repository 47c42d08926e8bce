"""`hios compare`: a network in every engine that is here, in one interleaved run."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hios.errors import ExecutionError, InvalidOption
from hios_tvm.cli.complete import complete_sources
from hios_tvm.cli.options import (
    MachineChoice,
    ModelChoice,
    OutputChoice,
    machine_options,
    model_options,
    output_options,
    parse_devices,
    parse_duration,
    parse_shapes,
)
from hios_tvm.cli.terminal import Progress, console, progress_bar

if TYPE_CHECKING:
    from hios_tvm.comparison_result import ComparisonResult

__all__ = ["command"]


@click.command("compare", short_help="Time a model beside TVM, ONNX Runtime, PyTorch, ...")
@click.argument("source", metavar="MODEL", shell_complete=complete_sources)
@click.option(
    "--engines",
    metavar="LIST",
    help="Families (hios, tvm, ort, torch, tensorrt, openvino) and single engines "
    "(hios-lp, ort-parallel, ...), comma-separated; -NAME leaves one out.  [default: all]",
)
@click.option("--baseline", metavar="ENGINE", help="Whom speed-ups are over.  [default: the first]")
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    help="Counted runs of each engine.  [default: 30, or what the budget allows]",
)
@click.option("--budget", metavar="TIME", help="Stop timing after this: 60s, 2min, or seconds.")
@click.option("--costs", metavar="KIND|FILE", help="As in `hios compile`.")
@click.option(
    "--sweep",
    multiple=True,
    metavar="AXIS=LIST",
    help="Repeat for each size, batch, devices or streams: size=224,299,448. Repeatable: the "
    "axes are multiplied.",
)
@click.option(
    "--specialise",
    metavar="SCHEDULER",
    help="With --sweep: run at each point the schedules decided at every other one too.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="Where a sweep keeps what is done, to go on from.  [default: beside --out]",
)
@click.option("--out", type=click.Path(path_type=Path), help="Write the raw figures as JSON.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write the table as Markdown.")
@click.option("--png", type=click.Path(path_type=Path), help="Draw it.")
@machine_options
@model_options
@output_options
def command(
    source: str,
    engines: str | None,
    baseline: str | None,
    repeat: int | None,
    budget: str | None,
    costs: str | None,
    sweep: tuple[str, ...],
    specialise: str | None,
    state: Path | None,
    out: Path | None,
    markdown: Path | None,
    png: Path | None,
    machine: MachineChoice,
    model: ModelChoice,
    output: OutputChoice,
) -> None:
    """Time MODEL in every engine that is installed: ours, TVM's, ONNX Runtime, PyTorch, ...

    All take turns in short bursts in one process, on the same cores and the same input; their
    outputs are compared. An engine that is not here is named with what would bring it.

    \b
    Examples:
      hios compare zoo:inception_v3@299 --devices cpu:0,cpu:1 --budget 60s
      hios compare model.onnx --engines build,ort --png bars.png --out compare.json
      hios compare zoo:squeezenet --engines hios --sweep size=224,448 --sweep batch=1,4
    """
    from hios.ir.serial import encode_json, write_bytes
    from hios_tvm.cli.sweeping import Destination, Sweep, run
    from hios_tvm.contest import ContestOptions, hold_contest
    from hios_tvm.engines.roster import choose
    from hios_tvm.engines.subject import Subject
    from hios_tvm.machines import resolve_machine
    from hios_tvm.sweep import Setting, parse_axis

    if source.endswith(".json"):
        raise InvalidOption(
            f"{source!r} is a graph file and has no kernels to run; give a model or an artifact, "
            "or use `hios simulate`"
        )
    if model.allow_tf32:
        raise InvalidOption(
            "--allow-tf32: our kernels are compared in float32; leave it out, or time them with "
            "`hios bench`"
        )
    contenders = choose(engines.split(",") if engines else [])
    budget_s = None if budget is None else parse_duration(budget)
    options = ContestOptions(repeat=repeat, budget_s=budget_s, baseline=baseline)
    base = Setting(source, parse_shapes(model.shapes), parse_devices(machine), machine.streams)

    def subject_of(setting: Setting) -> Subject:
        return Subject(
            setting.source,
            resolve_machine(setting.devices, machine.machine, setting.streams),
            target=model.target,
            shapes=setting.shapes,
            seed=model.seed,
            costs=costs,
        )

    def contest(subject: Subject, progress: Progress | None) -> "ComparisonResult":
        return hold_contest(
            subject, contenders, options, command=_command_line(), progress=progress
        )

    if sweep:
        axes = tuple(parse_axis(text) for text in sweep)
        wanted = Sweep(base, axes, specialise, state, options, tuple(c.key for c in contenders))
        results = run(
            wanted, subject_of, contest, model.seed, Destination(out, markdown, png), output
        )
    elif specialise is not None or state is not None:
        raise InvalidOption("--specialise and --state belong to a sweep; add --sweep AXIS=LIST")
    else:
        with progress_bar("compare", output.quiet or output.json) as progress:
            result = contest(subject_of(base), progress)
        results = [result]
        if out is not None:
            write_bytes(out, encode_json(result, indent=2))
        _tell(result, markdown, png, output)
    wrong = [row.name for one in results for row in one.rows if row.status == "differs"]
    if wrong:
        raise ExecutionError(f"outputs differ beyond the tolerance: {', '.join(wrong)}")


def _tell(
    result: "ComparisonResult", markdown: Path | None, png: Path | None, output: OutputChoice
) -> None:
    from hios.ir.serial import encode_json, write_bytes
    from hios_tvm.report import comparison_table as tables

    if markdown is not None:
        write_bytes(markdown, tables.markdown(result).encode())
    if png is not None:
        from hios_tvm.report.comparison_bars import draw_comparison

        draw_comparison(result, png)
    if output.json:
        sys.stdout.write(encode_json(result).decode() + "\n")
        return
    terminal = console()
    terminal.print(tables.comparison_table(result))
    for line in (*tables.verdict_lines(result), "", *tables.facts(result)):
        terminal.print(line, markup=False, soft_wrap=True)


def _command_line() -> str:
    import shlex

    return "hios " + shlex.join(sys.argv[1:])
