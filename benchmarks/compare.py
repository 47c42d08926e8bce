"""Many networks against other engines, each in one interleaved run, into one file.

``python -m benchmarks.compare --suite cpu --out benchmarks/results/compare_cpu.json`` takes the
networks and engines of a suite; ``--models`` and ``--engines`` take any others. What one network
says is the JSON of `hios compare`; the file adds geometric means over the networks. Stopped, the
same command goes on after the last network that is done.
"""

import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from hios.errors import HiosError, InvalidOption
from hios.ir.serial import decode_json, encode_json, read_bytes, write_bytes
from hios_tvm.cli.terminal import console, print_json, progress_bar
from hios_tvm.comparison_result import ComparisonResult, EngineRow
from hios_tvm.contest import ContestOptions, hold_contest
from hios_tvm.engines.roster import choose
from hios_tvm.engines.subject import Subject
from hios_tvm.machines import resolve_machine


@dataclass(frozen=True, slots=True)
class Suite:
    """Networks and engines that are published together."""

    models: tuple[str, ...]
    engines: tuple[str, ...]
    budget_s: float


SUITES = {
    "cpu": Suite(
        models=(
            "light:inception_v1",
            "light:inception_v2",
            "zoo:inception_v3@299",
            "zoo:nasnet_mobile@224",
            "zoo:randwire_small@224",
            "light:squeezenet",
        ),
        engines=(
            "sequential",
            "hios-lp",
            "auto",
            "wide",
            "build",
            "ort",
            "-ort-cuda",
            "-ort-tensorrt",
        ),
        budget_s=12.0,
    ),
}

PARALLEL = "ort-parallel"
"""ONNX Runtime's own answer to parallelism between operators."""


@dataclass(frozen=True, slots=True)
class Mean:
    """How many times faster ours is, geometric mean over networks, and the worst of them."""

    ours: str
    rival: str
    geometric: float
    worst: float
    worst_model: str


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """All networks and what they say together."""

    suite: str
    command: str
    networks: tuple[ComparisonResult, ...]
    means: tuple[Mean, ...] = ()


@click.command()
@click.option("--suite", type=click.Choice(sorted(SUITES)), default="cpu", show_default=True)
@click.option("--models", help="Comma-separated, instead of the suite's.")
@click.option("--engines", help="Comma-separated, instead of the suite's.")
@click.option("--devices", default="cpu:0,cpu:1", show_default=True)
@click.option("--budget", type=float, help="Seconds of timing a network.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the raw figures as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    suite: str,
    models: str | None,
    engines: str | None,
    devices: str,
    budget: float | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compare engines on the networks of a suite."""
    chosen = SUITES[suite]
    names = models.split(",") if models else list(chosen.models)
    contenders = choose(engines.split(",") if engines else list(chosen.engines))
    options = ContestOptions(budget_s=budget or chosen.budget_s)
    command = "python -m benchmarks.compare " + shlex.join(sys.argv[1:])
    partial = None if out is None else out.with_suffix(".partial.json")
    networks = _continued(partial, command)
    with progress_bar(suite, is_quiet=as_json) as progress:
        for index, name in enumerate(names):
            if any(done.model == name for done in networks):
                continue

            def step(what: str, done: float, index: int = index, name: str = name) -> None:
                progress(f"{name}: {what}", (index + done) / len(names))

            subject = Subject(name, resolve_machine(devices))
            networks.append(
                hold_contest(subject, contenders, options, command=command, progress=step)
            )
            if partial is not None:
                write_bytes(partial, encode_json(SuiteResult(suite, command, tuple(networks))))
            if not as_json and not sys.stderr.isatty():
                print(f"  {name} done", file=sys.stderr, flush=True)
    networks.sort(key=lambda done: names.index(done.model))
    result = SuiteResult(suite, command, tuple(networks), tuple(means(networks)))
    if out is not None and partial is not None:
        write_bytes(out, encode_json(result, indent=2))
        partial.unlink(missing_ok=True)
    if as_json:
        print_json({"means": [_fields(mean) for mean in result.means]})
    else:
        _print(result)


def means(networks: Sequence[ComparisonResult]) -> list[Mean]:
    """Return `build` against ONNX Runtime's parallel mode, its best mode, and TVM's executor.

    Where an engine is missing in one network, nothing is said of it.
    """
    found = []
    for label, pick in (
        (PARALLEL, lambda r: r.row(PARALLEL)),
        ("ort, best mode", lambda r: next(iter(r.measured("ort")), None)),
        ("tvm, our kernels", lambda r: r.row("tvm-ours-all")),
    ):
        ratios = []
        for network in networks:
            ours, rival = network.row("build"), pick(network)
            if _has_time(ours) and _has_time(rival):
                ratios.append((rival.median_us / ours.median_us, network.model))
        if networks and len(ratios) == len(networks):
            worst = min(ratios)
            mean = math.exp(math.fsum(math.log(r) for r, _ in ratios) / len(ratios))
            found.append(Mean("build", label, mean, *worst))
    return found


def _has_time(row: EngineRow | None) -> bool:
    return row is not None and row.status == "measured" and row.median_us is not None


def _continued(partial: Path | None, command: str) -> list[ComparisonResult]:
    if partial is None or not partial.exists():
        return []
    state = decode_json(read_bytes(partial), SuiteResult, InvalidOption, str(partial))
    if state.command != command:
        raise InvalidOption(f"{partial} is of another command, {state.command!r}; delete it")
    return list(state.networks)


def _fields(mean: Mean) -> dict[str, Any]:
    return {name: getattr(mean, name) for name in Mean.__slots__}


def _print(result: SuiteResult) -> None:
    from hios_tvm.report.summary import format_us, rows_table

    keys = list(
        dict.fromkeys(row.key for n in result.networks for row in n.rows if row.status != "absent")
    )
    rows = []
    for network in result.networks:
        cells = [network.model]
        for key in keys:
            row = network.row(key)
            cells.append("–" if not _has_time(row) else format_us(row.median_us))
        rows.append(cells)
    terminal = console()
    terminal.print(rows_table(["network", *keys], rows, f"suite {result.suite}: medians"))
    for mean in result.means:
        terminal.print(
            f"{mean.ours} against {mean.rival}: {mean.geometric:.2f}× as fast (geometric mean), "
            f"worst {mean.worst:.2f}× on {mean.worst_model}",
            markup=False,
        )


if __name__ == "__main__":
    try:
        main()
    except HiosError as problem:
        sys.exit(f"error: {problem}")
