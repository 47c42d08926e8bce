"""The HIOS paper's simulation study: schedulers on layered random graphs, one command.

``python -m benchmarks.simulate`` sweeps the number of GPUs, operators, dependencies and layers
and the ratio of transfer to compute time, one at a time around the paper's defaults, and reports
each scheduler's speed-up over sequential: the mean over the graphs of a point with its 95 %
confidence interval. All schedulers see the same graphs. ``bound`` is what no schedule can beat.

Writes ``study.csv`` (one row a point and scheduler), ``graphs.csv`` (one row a graph and
scheduler), ``study.md`` (tables) and one picture a sweep.
"""

import csv
import io
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from benchmarks.confidence import Mean, mean_of
from hios.bounds import lower_bound
from hios.errors import HiosError, InvalidOption
from hios.ir.presets import abstract_machine
from hios.ir.serial import write_atomically, write_bytes
from hios.random_graphs import LayeredGraphOptions, layered_graph
from hios.schedulers import get_scheduler, schedule
from hios.simulator import makespan
from hios_tvm.cli.terminal import print_json, progress_bar

DEFAULT_SCHEDULERS = "sequential,ios,hios-mr-inter,hios-mr,hios-lp-inter,hios-lp,heft,auto"

BOUND = "bound"
"""Name of the lower bound in tables and pictures."""

# Schedulers that use one device whatever the machine has: the same for any number of GPUs.
_ONE_DEVICE = frozenset({"sequential", "ios"})

_DEFAULT_GPUS = 4


@dataclass(frozen=True, slots=True)
class Point:
    """One point of one sweep.

    Attributes
    ----------
    sweep
        What varies.
    value
        Its value here.
    gpus
        Devices of the machine.
    options
        Of the graphs.
    """

    sweep: str
    value: float
    gpus: int
    options: LayeredGraphOptions


@dataclass(frozen=True, slots=True)
class Task:
    """One graph on one machine for one scheduler (or the bound)."""

    options: LayeredGraphOptions
    seed: int
    gpus: int
    streams: int
    scheduler: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a task came to.

    Attributes
    ----------
    makespan_us
        Simulated; the bound's own value for the bound.
    seconds
        To decide.
    """

    makespan_us: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Row:
    """One scheduler at one point."""

    point: Point
    scheduler: str
    speedup: Mean
    makespan_us: Mean
    seconds: Mean


def sweep_points(is_quick: bool = False) -> list[Point]:
    """Return all points of the study, sweep by sweep."""
    paper = LayeredGraphOptions()
    points = [Point("gpus", gpus, gpus, paper) for gpus in (2, 4, 6, 8, 10, 12)]
    for operators in (100, 150, 200, 250, 300, 400):
        options = replace(paper, operators=operators, edges=2 * operators)
        points.append(Point("operators", operators, _DEFAULT_GPUS, options))
    for edges in (320, 400, 500, 600, 800):
        points.append(Point("edges", edges, _DEFAULT_GPUS, replace(paper, edges=edges)))
    for layers in (6, 10, 14, 18, 22):
        points.append(Point("layers", layers, _DEFAULT_GPUS, replace(paper, layers=layers)))
    for ratio in (0.2, 0.4, 0.6, 0.8, 1.0):
        points.append(Point("ratio", ratio, _DEFAULT_GPUS, replace(paper, ratio=ratio)))
    if not is_quick:
        return points
    small = {"operators": 50, "edges": 100, "layers": 8}
    return [
        replace(point, options=replace(point.options, **small))
        for point in points
        if (point.sweep, point.value) in {("gpus", 2), ("gpus", 4), ("ratio", 0.2), ("ratio", 1.0)}
    ]


def evaluate(task: Task) -> Outcome:
    """Draw the graph of a task, decide, and simulate."""
    drawn = layered_graph(task.seed, task.options)
    machine = abstract_machine(task.gpus, streams=task.streams)
    costs = drawn.costs(machine)
    began = time.perf_counter()
    if task.scheduler == BOUND:
        bound = lower_bound(drawn.graph, machine, costs)
        return Outcome(bound, time.perf_counter() - began)
    decided = schedule(task.scheduler, drawn.graph, machine, costs)
    seconds = time.perf_counter() - began
    return Outcome(makespan(drawn.graph, machine, costs, decided), seconds)


def tasks_of(
    points: Sequence[Point], schedulers: Sequence[str], n_graphs: int, streams: int, seed: int
) -> dict[tuple[Point, str], list[Task]]:
    """Return the tasks behind every row; equal tasks of different points are equal."""
    tasks: dict[tuple[Point, str], list[Task]] = {}
    for point in points:
        for name in (*schedulers, BOUND):
            gpus, options = point.gpus, point.options
            if name in _ONE_DEVICE:
                # Nothing is ever copied, so the points of two sweeps share their outcomes.
                gpus, options = 1, replace(options, ratio=LayeredGraphOptions().ratio)
            tasks[point, name] = [
                Task(options, seed + i, gpus, streams, name) for i in range(n_graphs)
            ]
    return tasks


def outcomes_of(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[Task, Outcome]]:
    """Evaluate tasks in order, by `jobs` processes."""
    if jobs == 1:
        for task in tasks:
            yield task, evaluate(task)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from zip(tasks, pool.map(evaluate, tasks, chunksize=4), strict=True)


def rows_of(tasks: dict[tuple[Point, str], list[Task]], outcomes: dict[Task, Outcome]) -> list[Row]:
    """Return the row of every point and scheduler."""
    rows = []
    for (point, name), own in tasks.items():
        sequential = [outcomes[task].makespan_us for task in tasks[point, "sequential"]]
        mine = [outcomes[task] for task in own]
        rows.append(
            Row(
                point,
                name,
                mean_of([s / o.makespan_us for s, o in zip(sequential, mine, strict=True)]),
                mean_of([o.makespan_us for o in mine]),
                mean_of([o.seconds for o in mine]),
            )
        )
    return rows


@click.command()
@click.option("--graphs", default=30, show_default=True, help="Graphs of each point.")
@click.option("--schedulers", default=DEFAULT_SCHEDULERS, show_default=True)
@click.option("--sweeps", default="", help="Comma-separated; all by default.")
@click.option("--streams", default=2, show_default=True, help="Streams of each GPU.")
@click.option("--seed", default=0, show_default=True, help="Of the first graph of each point.")
@click.option("--jobs", default=1, show_default=True, help="Processes.")
@click.option("--quick", is_flag=True, help="Four small points of at most 5 graphs.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("out/simulate"), show_default=True
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    graphs: int,
    schedulers: str,
    sweeps: str,
    streams: int,
    seed: int,
    jobs: int,
    quick: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Run the simulation study."""
    try:
        points = _chosen(sweep_points(quick), sweeps)
        names = list(dict.fromkeys(["sequential", *schedulers.split(",")]))
        for name in names:
            get_scheduler(name)
        if quick:
            graphs = min(graphs, 5)
        if graphs < 2 or jobs < 1:
            raise InvalidOption(f"{graphs} graphs, {jobs} jobs; need at least 2 and 1")
        tasks = tasks_of(points, names, graphs, streams, seed)
        unique = list(dict.fromkeys(task for own in tasks.values() for task in own))
        outcomes: dict[Task, Outcome] = {}
        with progress_bar("simulate", is_quiet=as_json) as progress:
            for task, outcome in outcomes_of(unique, jobs):
                outcomes[task] = outcome
                what = f"{task.scheduler}, {task.options.operators} operators, {task.gpus} GPUs"
                progress(what, len(outcomes) / len(unique))
        rows = rows_of(tasks, outcomes)
        out.mkdir(parents=True, exist_ok=True)
        write_bytes(out / "study.csv", _study_csv(rows))
        write_bytes(out / "graphs.csv", _graphs_csv(tasks, outcomes))
        tables = markdown_tables(rows, streams)
        write_bytes(out / "study.md", tables.encode())
        for sweep in dict.fromkeys(row.point.sweep for row in rows):
            draw_sweep([row for row in rows if row.point.sweep == sweep], out / f"{sweep}.png")
    except HiosError as problem:
        raise click.ClickException(str(problem)) from problem
    if as_json:
        print_json({"graphs": graphs, "streams": streams, "rows": [_flat(row) for row in rows]})
    else:
        click.echo(tables)
        click.echo(f"written to {out}")


def markdown_tables(rows: Sequence[Row], streams: int) -> str:
    """Return one table a sweep: values across, schedulers down."""
    blocks = []
    for sweep in dict.fromkeys(row.point.sweep for row in rows):
        own = [row for row in rows if row.point.sweep == sweep]
        gpus = sorted({row.point.gpus for row in own})
        head = f"### {_AXES[sweep]}\n\nMean speed-up over sequential ± 95 % interval, "
        head += f"{own[0].speedup.n} graphs a point, {streams} streams a GPU"
        head += f", {gpus[0]} GPUs" if sweep != "gpus" else ""
        blocks.append(f"{head}.\n\n{sweep_table(own)}")
    return "\n\n".join(blocks) + "\n"


def sweep_table(rows: Sequence[Row]) -> str:
    """Return the table of one sweep: values across, schedulers down."""
    values = list(dict.fromkeys(row.point.value for row in rows))
    lines = ["| scheduler | " + " | ".join(f"{v:g}" for v in values) + " |"]
    lines.append("|---|" + "--:|" * len(values))
    for name in dict.fromkeys(row.scheduler for row in rows):
        found = {row.point.value: row.speedup for row in rows if row.scheduler == name}
        cells = [f"{found[v].value:.2f} ± {found[v].half_width:.2f}" for v in values]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def read_study(path: Path) -> list[Row]:
    """Return the rows of a ``study.csv``; the half-widths of seconds are not in it."""
    with path.open(newline="", encoding="utf-8") as file:
        return [_row(fields) for fields in csv.DictReader(file)]


def draw_sweep(rows: Sequence[Row], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Draw the speed-ups of one sweep with their intervals as a PNG file, `metadata` in it.

    Raises
    ------
    StorageError
        When it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for index, name in enumerate(dict.fromkeys(row.scheduler for row in rows)):
        own = [row for row in rows if row.scheduler == name]
        axes.errorbar(
            [row.point.value for row in own],
            [row.speedup.value for row in own],
            yerr=[row.speedup.half_width for row in own],
            label=name,
            capsize=2.5,
            linewidth=1.3,
            marker="none" if name == BOUND else "osv^D<>pXh"[index % 10],
            markersize=4,
            color="0.6" if name == BOUND else f"C{index % 10}",
            linestyle="--" if name == BOUND else "-",
        )
    axes.set_xlabel(_AXES[rows[0].point.sweep])
    axes.set_ylabel("speed-up over sequential")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7, ncols=2, frameon=False)
    write_atomically(
        path,
        lambda temporary: figure.savefig(temporary, format="png", metadata=metadata),
    )


_AXES = {
    "gpus": "GPUs",
    "operators": "operators (two dependencies each)",
    "edges": "dependencies",
    "layers": "layers",
    "ratio": "transfer time / compute time",
}


def _chosen(points: list[Point], sweeps: str) -> list[Point]:
    known = list(dict.fromkeys(point.sweep for point in points))
    wanted = sweeps.split(",") if sweeps else known
    for name in wanted:
        if name not in known:
            raise InvalidOption(f"no sweep {name!r}; there are {', '.join(known)}")
    return [point for point in points if point.sweep in wanted]


def _row(fields: dict[str, str]) -> Row:
    n = int(fields["graphs"])
    options = LayeredGraphOptions(
        operators=int(fields["operators"]),
        edges=int(fields["edges"]),
        layers=int(fields["layers"]),
        ratio=float(fields["ratio"]),
    )
    point = Point(fields["sweep"], float(fields["value"]), int(fields["gpus"]), options)

    def mean(value: str, half_width: str) -> Mean:
        return Mean(float(fields[value]), float(fields.get(half_width, "nan")), n)

    return Row(
        point,
        fields["scheduler"],
        mean("speedup", "speedup_ci95"),
        mean("makespan_us", "makespan_ci95_us"),
        mean("seconds", ""),
    )


def _flat(row: Row) -> dict[str, Any]:
    return {
        "sweep": row.point.sweep,
        "value": row.point.value,
        "gpus": row.point.gpus,
        "operators": row.point.options.operators,
        "edges": row.point.options.edges,
        "layers": row.point.options.layers,
        "ratio": row.point.options.ratio,
        "scheduler": row.scheduler,
        "graphs": row.speedup.n,
        "speedup": row.speedup.value,
        "speedup_ci95": row.speedup.half_width,
        "makespan_us": row.makespan_us.value,
        "makespan_ci95_us": row.makespan_us.half_width,
        "seconds": row.seconds.value,
    }


def _study_csv(rows: Sequence[Row]) -> bytes:
    return _csv([_flat(row) for row in rows])


def _graphs_csv(tasks: dict[tuple[Point, str], list[Task]], outcomes: dict[Task, Outcome]) -> bytes:
    return _csv(
        [
            {
                "sweep": point.sweep,
                "value": point.value,
                "scheduler": name,
                "seed": task.seed,
                "makespan_us": outcomes[task].makespan_us,
                "seconds": outcomes[task].seconds,
            }
            for (point, name), own in tasks.items()
            for task in own
        ]
    )


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


if __name__ == "__main__":
    main()
