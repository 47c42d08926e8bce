"""Schedules decided for one setting, run at another: is it worth deciding anew?

The published tables of this kind (IOS, MLSys 2021, tables 3 and 4) hold for one machine; these are
measured here. A schedule can run elsewhere when the network has the same operators there, in the
same order, and the machine the same number of devices and streams.
"""

from collections.abc import Sequence

from hios.errors import HiosError
from hios.ir.schedule import Schedule
from hios.ir.validation import validate_schedule
from hios.statistics import ratio_of_medians
from hios_tvm.comparison import compare_engines
from hios_tvm.deciding import decide
from hios_tvm.engines.hios_executor import HiosExecutor
from hios_tvm.engines.subject import Subject
from hios_tvm.model import Model
from hios_tvm.settling import settle
from hios_tvm.sweep import Point, SpecialisationRow, SweepPoint, describe

__all__ = ["decide_schedule", "run_elsewhere"]


def decide_schedule(subject: Subject, scheduler: str) -> str:
    """Return the schedule decided for a network and machine, as JSON text."""
    known = subject.known
    model = decide(subject.compiled, known.machine, known.costs, scheduler=scheduler, select=False)
    return model.schedule.to_json().decode()


def run_elsewhere(
    subject: Subject,
    points: Sequence[SweepPoint],
    here: Point,
    *,
    repeat: int = 30,
    budget_s: float | None = None,
) -> list[SpecialisationRow]:
    """Run, interleaved at one point, the schedules decided at all points.

    Parameters
    ----------
    subject
        The network and machine of this point.
    points
        All, each with its schedule.
    here
        This point.
    repeat, budget_s
        See `hios_tvm.comparison.compare_engines`.

    Returns
    -------
    list of SpecialisationRow
        One for each of `points`; ratios are to the schedule decided here.
    """
    machine = subject.known.machine
    graph = subject.compiled.graph
    reasons: dict[int, str] = {}
    engines: dict[int, HiosExecutor] = {}
    schedules = {}
    own = next(index for index, done in enumerate(points) if done.point == dict(here))
    try:
        for index, done in enumerate(points):
            schedule = Schedule.from_json(done.schedule.encode(), what=describe(done.point))
            schedules[index] = schedule
            try:
                if done.result.operators != len(graph.operators):
                    raise ValueError(
                        f"{done.result.operators} operators there, {len(graph.operators)} here"
                    )
                validate_schedule(graph, machine, schedule)
            except (HiosError, ValueError) as problem:
                reasons[index] = str(problem)
                continue
            model = Model(subject.compiled, machine, schedule)
            engines[index] = HiosExecutor(describe(done.point), model)
        order = [own, *(index for index in engines if index != own)]
        compared = compare_engines(
            [engines[index] for index in order],
            subject.inputs,
            repeat=repeat,
            budget_s=budget_s,
            settle=settle,
        )
    finally:
        for engine in engines.values():
            engine.close()
    found = dict(zip(order, compared.rows, strict=True))
    mine = found[own].samples.times_us
    rows = []
    for index, done in enumerate(points):
        scheduler = schedules[index].scheduler
        if index in reasons:
            rows.append(SpecialisationRow(done.point, dict(here), scheduler, reason=reasons[index]))
            continue
        samples = found[index].samples
        ratio = ratio_of_medians(samples.times_us, mine)
        rows.append(
            SpecialisationRow(
                decided_for=done.point,
                run_at=dict(here),
                scheduler=scheduler,
                median_us=samples.median_us,
                p10_us=samples.p10_us,
                p90_us=samples.p90_us,
                slowdown=ratio.value,
                slowdown_low=ratio.low,
                slowdown_high=ratio.high,
            )
        )
    return rows
