"""The same problem decided by every other scheduler, within a time that is kept.

Schedulers cannot be interrupted from outside, so they run one after another in a process of
their own, which ends when the time is over. What it had no time for is told as such.
"""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from hios.costs.protocol import Costs
from hios.errors import HiosError
from hios.ir.graph import OpGraph
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.schedulers import get_scheduler, list_schedulers
from hios.schedulers import schedule as run_scheduler
from hios.simulator import makespan
from hios_tvm.report.html.data import RivalRow

__all__ = ["RivalProblem", "default_rivals", "measured_rivals", "run_rivals"]

Progress = Callable[[str, float], None]

# What is quick goes first, so that a short time still shows most of the field; what takes a
# budget goes last and gets what is left.
_ORDER = (
    "sequential",
    "heft",
    "hios-lp-inter",
    "hios-lp",
    "hios-mr-inter",
    "hios-mr",
    "wavefront",
    "lios",
    "opara",
    "graphi",
    "nimble",
    "autograph",
    "ios",
    "auto",
)
# Proves an optimum of small graphs, and is no rival in seconds.
_LEFT_OUT = frozenset({"exact", "multi-tenant"})


@dataclass(frozen=True, slots=True)
class RivalProblem:
    """What the schedulers are asked."""

    graph: OpGraph
    machine: Machine
    costs: Costs


def default_rivals() -> tuple[str, ...]:
    """Return the schedulers that are asked, those of other packages included, quick ones first."""
    known = [name for name in list_schedulers() if name not in _LEFT_OUT]
    return tuple(sorted(known, key=lambda name: (_rank(name), name)))


def measured_rivals(schedule: Schedule, makespan_us: float) -> tuple[RivalRow, ...]:
    """Return the row of a schedule itself, and the candidates that were measured beside it.

    The times of candidates are the notes ``measured_NAME_us`` of the schedule.
    """
    measured = {
        key.removeprefix("measured_").removesuffix("_us"): float(value)
        for key, value in schedule.notes.items()
        if key.startswith("measured_") and key.endswith("_us")
    }
    mine = measured.pop(schedule.scheduler, None)
    rows = [RivalRow(schedule.scheduler, makespan_us, mine, is_this=True)]
    rows += [
        RivalRow(name, measured_us=time_us, remark="measured when the model was compiled")
        for name, time_us in sorted(measured.items(), key=lambda item: item[1])
    ]
    return tuple(rows)


def run_rivals(
    problem: RivalProblem, names: Sequence[str], seconds: float, progress: Progress | None = None
) -> tuple[RivalRow, ...]:
    """Decide with each scheduler and predict what comes of it.

    Parameters
    ----------
    problem
        Graph, machine and costs; they are sent to another process.
    names
        Schedulers, asked in this order.
    seconds
        For all of them together. The process is ended when it is over.
    progress
        Told who is next, and the share of the time that is gone.

    Returns
    -------
    tuple of RivalRow
        In the order of `names`; without makespan where a scheduler failed or had no time.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    worker = context.Process(
        target=_decide_all, args=(problem, tuple(names), seconds, sender), daemon=True
    )
    started = time.monotonic()
    worker.start()
    sender.close()
    rows: list[RivalRow] = []
    try:
        while len(rows) < len(names):
            gone = time.monotonic() - started
            if progress is not None:
                progress(names[len(rows)], min(1.0, gone / seconds))
            left = seconds - gone
            if left <= 0:
                break
            if not receiver.poll(min(left, 0.2)):
                continue
            try:
                rows.append(receiver.recv())
            except EOFError:
                break
    finally:
        worker.terminate()
        worker.join()
        worker.close()
        receiver.close()
    late = f"not decided within {seconds:g} s for all"
    return (*rows, *(RivalRow(name, remark=late) for name in names[len(rows) :]))


def _decide_all(
    problem: RivalProblem, names: Sequence[str], seconds: float, results: Connection
) -> None:
    """Run in the other process: one row for each scheduler, as it is decided."""
    end = time.monotonic() + seconds
    for name in names:
        results.send(_decide(problem, name, end))
    results.close()


def _decide(problem: RivalProblem, name: str, end: float) -> RivalRow:
    options: dict[str, object] = {}
    started = time.monotonic()
    try:
        if get_scheduler(name).has_option("budget"):
            options["budget"] = max(0.1, 0.5 * (end - started))
        graph, machine, costs = problem.graph, problem.machine, problem.costs
        decided = run_scheduler(name, graph, machine, costs, **options)
        predicted = makespan(graph, machine, costs, decided)
    except HiosError as trouble:
        return RivalRow(name, remark=str(trouble))
    return RivalRow(name, predicted, seconds=time.monotonic() - started)


def _rank(name: str) -> int:
    return _ORDER.index(name) if name in _ORDER else len(_ORDER) - 2
