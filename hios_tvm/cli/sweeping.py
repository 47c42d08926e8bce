"""The part of `hios compare` that repeats a comparison at many points."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import hios
from hios.ir.serial import encode_json, write_bytes
from hios_tvm.cli.options import OutputChoice
from hios_tvm.cli.terminal import Progress, console, progress_bar
from hios_tvm.comparison_result import ComparisonResult
from hios_tvm.contest import ContestOptions
from hios_tvm.engines.subject import Subject
from hios_tvm.specialisation import decide_schedule, run_elsewhere
from hios_tvm.sweep import (
    Axis,
    Point,
    Setting,
    SpecialisationRow,
    SweepPoint,
    SweepResult,
    points_of,
    run_sweep,
    setting_at,
)

__all__ = ["Destination", "Sweep", "run"]


@dataclass(frozen=True, slots=True)
class Sweep:
    """What is swept and how; `specialise` names a scheduler, `state` is the file to go on from."""

    base: Setting
    axes: tuple[Axis, ...]
    specialise: str | None
    state: Path | None
    options: ContestOptions
    engines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Destination:
    """Where results go beside the terminal."""

    out: Path | None
    markdown: Path | None
    png: Path | None


def run(
    sweep: Sweep,
    subject_of: Callable[[Setting], Subject],
    contest: Callable[[Subject, Progress | None], ComparisonResult],
    seed: int,
    destination: Destination,
    output: OutputChoice,
) -> list[ComparisonResult]:
    """Do a sweep, or what is left of it, and tell it."""
    points = points_of(sweep.axes)
    settings = {point: setting_at(sweep.base, point) for point in points}
    state = sweep.state
    if state is None and destination.out is not None:
        state = destination.out.with_suffix(".state.json")
    scheduler = sweep.specialise

    def compare(point: Point) -> SweepPoint:
        subject = subject_of(settings[point])
        result = contest(subject, None)
        schedule = "" if scheduler is None else decide_schedule(subject, scheduler)
        return SweepPoint(dict(point), result, schedule)

    def elsewhere(done: Sequence[SweepPoint], here: Point) -> list[SpecialisationRow]:
        return run_elsewhere(
            subject_of(settings[here]),
            done,
            here,
            repeat=sweep.options.repeat or 30,
            budget_s=sweep.options.budget_s,
        )

    identity = {
        "model": sweep.base.source,
        "engines": ",".join(sweep.engines),
        "devices": str(sweep.base.devices),
        "streams": str(sweep.base.streams),
        "specialise": str(scheduler),
        "options": str(sweep.options),
        "seed": str(seed),
        "version": hios.__version__,
    }
    with progress_bar("sweep", output.quiet or output.json) as progress:
        finished = run_sweep(
            points,
            identity,
            state,
            compare,
            specialise=None if scheduler is None else elsewhere,
            progress=progress,
        )
    result = SweepResult(sweep.base.source, sweep.axes, finished.points, finished.specialisation)
    _tell(result, destination, output)
    return [done.result for done in result.points]


def _tell(result: SweepResult, destination: Destination, output: OutputChoice) -> None:
    from hios_tvm.report import sweep_table as tables

    if destination.out is not None:
        write_bytes(destination.out, encode_json(result, indent=2))
    if destination.markdown is not None:
        write_bytes(destination.markdown, tables.sweep_markdown(result).encode())
    if destination.png is not None:
        from hios_tvm.report.sweep_lines import draw_sweep

        draw_sweep(result, destination.png)
    if output.json:
        sys.stdout.write(encode_json(result).decode() + "\n")
        return
    terminal = console()
    terminal.print(tables.sweep_table(result))
    if result.specialisation:
        terminal.print(tables.specialisation_table(result))
        for row in result.specialisation:
            if row.reason:
                terminal.print(
                    f"schedule for {dict(row.decided_for)} at {dict(row.run_at)}: {row.reason}",
                    markup=False,
                    soft_wrap=True,
                )
