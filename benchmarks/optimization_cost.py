"""Seconds to schedule against operators and devices, with the growth exponent.

``python -m benchmarks.optimization_cost`` draws layered random graphs of 10 to 10,000 operators
(two dependencies each, the paper's density of layers) and times every scheduler on machines of
several devices. Each point runs in a process of its own that is ended at the cap; a scheduler
that met the cap, or is expected to, is not tried on larger graphs. The exponent k of
seconds ∝ operatorsᵏ is a least-squares fit in logarithms over the points of at least 100
operators.
"""

import csv
import io
import math
import multiprocessing
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import click

from hios.errors import HiosError, InvalidOption
from hios.ir.presets import abstract_machine, available_cores
from hios.ir.serial import write_bytes
from hios.random_graphs import LayeredGraphOptions, layered_graph
from hios.schedulers import get_scheduler, list_schedulers, schedule
from hios_tvm.cli.terminal import print_json, progress_bar

OPERATORS = (10, 30, 100, 200, 500, 1000, 2000, 5000, 10_000)
DEVICES = (2, 4, 8)

# Points of fewer operators say more about the overhead of a call than about growth.
_LEAST_FITTED = 100

# A run shorter than this is repeated, and the fastest counts.
_SHORT_S = 0.5
_REPEATS = 3


@dataclass(frozen=True, slots=True)
class Point:
    """One scheduler on one graph and machine.

    Attributes
    ----------
    scheduler, operators, devices
        What was timed.
    seconds
        To decide; None when there is no figure.
    status
        ``ok``, ``over cap``, ``skipped`` (expected over the cap), or what the scheduler said.
    """

    scheduler: str
    operators: int
    devices: int
    seconds: float | None
    status: str = "ok"


@dataclass(frozen=True, slots=True)
class Growth:
    """The growth exponent of a scheduler on some devices; None from fewer than two points."""

    scheduler: str
    devices: int
    exponent: float | None


def graph_options(operators: int) -> LayeredGraphOptions:
    """Return the graph of this many operators: 14 layers for 200, as in the paper."""
    return LayeredGraphOptions(operators, 2 * operators, max(4, round(0.07 * operators)))


def seconds_to_schedule(name: str, operators: int, devices: int, streams: int, seed: int) -> float:
    """Draw the graph and return the time to decide once; short runs are repeated.

    Raises
    ------
    HiosError
        When the scheduler refuses the problem.
    """
    drawn = layered_graph(seed, graph_options(operators))
    machine = abstract_machine(devices, streams=streams)
    costs = drawn.costs(machine)
    best = math.inf
    for _ in range(_REPEATS):
        began = time.perf_counter()
        schedule(name, drawn.graph, machine, costs)
        best = min(best, time.perf_counter() - began)
        if best > _SHORT_S:
            break
    return best


def timed_point(
    name: str,
    operators: int,
    devices: int,
    streams: int,
    seed: int,
    cap_s: float,
    grace_s: float = 10.0,
) -> Point:
    """Time one point in a process of its own, which is ended `grace_s` after the cap.

    The grace is for starting Python, drawing the graph and repeating short runs.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(
        target=_report, args=(there, name, operators, devices, streams, seed), daemon=True
    )
    child.start()
    there.close()
    try:
        if not here.poll(cap_s + grace_s):
            return Point(name, operators, devices, None, "over cap")
        answer: float | str = here.recv()
    except EOFError:
        answer = "ended without an answer"
    finally:
        child.kill()
        child.join()
        here.close()
    if isinstance(answer, str):
        return Point(name, operators, devices, None, answer)
    return Point(name, operators, devices, answer, "ok" if answer <= cap_s else "over cap")


def growth_exponent(points: Sequence[Point]) -> float | None:
    """Return the slope of log seconds over log operators.

    Examples
    --------
    >>> quadratic = [Point("x", n, 2, 1e-6 * n * n) for n in (100, 200, 400)]
    >>> round(growth_exponent(quadratic), 6)
    2.0
    """
    pairs = [
        (math.log(point.operators), math.log(point.seconds))
        for point in points
        if point.seconds is not None and point.seconds > 0.0 and point.operators >= _LEAST_FITTED
    ]
    if len(pairs) < 2:
        return None
    mean_x = sum(x for x, _ in pairs) / len(pairs)
    mean_y = sum(y for _, y in pairs) / len(pairs)
    above = sum((x - mean_x) * (y - mean_y) for x, y in pairs)
    return above / sum((x - mean_x) ** 2 for x, _ in pairs)


def growths_of(points: Sequence[Point]) -> list[Growth]:
    """Return the growth of every scheduler and number of devices, in the order of the points."""
    own: dict[tuple[str, int], list[Point]] = {}
    for point in points:
        own.setdefault((point.scheduler, point.devices), []).append(point)
    return [Growth(*key, growth_exponent(found)) for key, found in own.items()]


def read_points(path: Path) -> list[Point]:
    """Return the points of a CSV file that ``--out`` wrote."""
    with path.open(newline="", encoding="utf-8") as lines:
        return [
            Point(
                row["scheduler"],
                int(row["operators"]),
                int(row["devices"]),
                float(row["seconds"]) if row["seconds"] else None,
                row["status"],
            )
            for row in csv.DictReader(lines)
        ]


@click.command()
@click.option("--schedulers", default="", help="Comma-separated; all by default.")
@click.option("--operators", default=",".join(map(str, OPERATORS)), show_default=True)
@click.option("--devices", default=",".join(map(str, DEVICES)), show_default=True)
@click.option("--streams", default=2, show_default=True, help="Streams of each device.")
@click.option("--cap", default=60.0, show_default=True, help="Most seconds of a point.")
@click.option("--seed", default=0, show_default=True, help="Of the graphs.")
@click.option("--quick", is_flag=True, help="At most 200 operators on 2 devices, 10 s a point.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the points as CSV.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    schedulers: str,
    operators: str,
    devices: str,
    streams: int,
    cap: float,
    seed: int,
    quick: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Time the schedulers themselves."""
    try:
        names = schedulers.split(",") if schedulers else list(list_schedulers())
        for name in names:
            get_scheduler(name)
        sizes, machines = _integers("operators", operators), _integers("devices", devices)
        if quick:
            sizes = [size for size in sizes if size <= 200] or sizes[:1]
            machines, cap = machines[:1], min(cap, 10.0)
        if not cap > 0.0:
            raise InvalidOption(f"cap is {cap} seconds; need more than 0")
        points: list[Point] = []
        n_points = len(names) * len(sizes) * len(machines)
        with progress_bar("optimization cost", is_quiet=as_json) as progress:
            for name in names:
                for n_devices in machines:
                    own: list[Point] = []
                    for size in sorted(sizes):
                        what = f"{name}, {size} operators, {n_devices} devices"
                        progress(what, (len(points) + len(own)) / n_points)
                        own.append(next_point(own, name, size, n_devices, streams, seed, cap))
                    points += own
        growths = growths_of(points)
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(out, _csv(points))
    except HiosError as problem:
        raise click.ClickException(str(problem)) from problem
    if as_json:
        print_json(
            {
                "machine": f"{platform.machine()}, {len(available_cores())} cores",
                "streams": streams,
                "cap_s": cap,
                "points": [asdict(point) for point in points],
                "growth": [asdict(growth) for growth in growths],
            }
        )
    else:
        click.echo(markdown_table(points, growths))


def markdown_table(points: Sequence[Point], growths: Sequence[Growth]) -> str:
    """Return seconds by operators, one row a scheduler and number of devices."""
    sizes = sorted({point.operators for point in points})
    lines = ["| scheduler | devices | " + " | ".join(f"{n:,}" for n in sizes) + " | exponent |"]
    lines.append("|---|--:|" + "--:|" * (len(sizes) + 1))
    found = {(p.scheduler, p.devices, p.operators): p for p in points}
    for growth in growths:
        cells = [_cell(found.get((growth.scheduler, growth.devices, n))) for n in sizes]
        exponent = "–" if growth.exponent is None else f"{growth.exponent:.2f}"
        lines.append(
            f"| `{growth.scheduler}` | {growth.devices} | {' | '.join(cells)} | {exponent} |"
        )
    return "\n".join(lines) + "\n"


def next_point(
    own: Sequence[Point],
    name: str,
    size: int,
    devices: int,
    streams: int,
    seed: int,
    cap_s: float,
) -> Point:
    """Time one scheduler on the next larger graph, unless that is expected to meet the cap.

    Parameters
    ----------
    own
        Its points on smaller graphs and the same devices, ascending.
    name, size, devices, streams, seed, cap_s
        Of the point.
    """
    if own and own[-1].status != "ok":
        return Point(name, size, devices, None, "skipped")
    if own and own[-1].seconds is not None:
        # At least in proportion to the operators, or as fast as it grew so far.
        exponent = max(1.0, growth_exponent(own) or 1.0)
        expected = own[-1].seconds * (size / own[-1].operators) ** exponent
        if expected > 2.0 * cap_s:
            return Point(name, size, devices, None, "skipped")
    return timed_point(name, size, devices, streams, seed, cap_s)


def _report(
    there: Connection, name: str, operators: int, devices: int, streams: int, seed: int
) -> None:
    try:
        there.send(seconds_to_schedule(name, operators, devices, streams, seed))
    except HiosError as refusal:
        there.send(str(refusal))
    finally:
        there.close()


def _cell(point: Point | None) -> str:
    if point is None or point.seconds is None:
        return "–"
    return f"{point.seconds:.3g}"


def _integers(option: str, text: str) -> list[int]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        raise InvalidOption(f"{option} is {text!r}; need whole numbers with commas") from None
    if min(values) < 1:
        raise InvalidOption(f"{option} is {text!r}; need numbers of at least 1")
    return values


def _csv(points: Sequence[Point]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(asdict(points[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(point) for point in points)
    return text.getvalue().encode()


if __name__ == "__main__":
    main()
