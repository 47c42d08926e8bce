"""The rivals that `auto` starts from, and a common yardstick for all candidates: the simulator."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hios.errors import InfeasibleSchedule
from hios.ir.schedule import LinkOrder, Schedule
from hios.ir.validation import validate_schedule
from hios.merge import costs_of_schedule
from hios.problem import Problem
from hios.schedulers.registry import get_scheduler
from hios.simulator import complete_links, makespan

__all__ = ["RIVALS", "Candidate", "Rival", "judge", "rivals_for", "run_rivals"]


@dataclass(frozen=True, slots=True)
class Rival:
    """A scheduler that may take part.

    Attributes
    ----------
    name
        As registered.
    max_operators
        Left out of larger graphs, where it would take longer than the search itself.
    needs_streams
        Left out where the first device has a single stream and nothing to merge: everything in
        sequence is what it would find.
    options
        Of the scheduler.
    """

    name: str
    max_operators: int
    needs_streams: bool = False
    options: tuple[tuple[str, object], ...] = ()


RIVALS: tuple[Rival, ...] = (
    Rival("sequential", 1_000_000),
    Rival("heft", 20_000),
    Rival("hios-lp", 3_000),
    Rival("hios-mr", 2_000),
    Rival("lios", 10_000, needs_streams=True),
    Rival("graphi", 10_000, needs_streams=True),
    Rival("opara", 10_000, needs_streams=True),
    Rival("nimble", 1_000, needs_streams=True),
    Rival("wavefront", 10_000, needs_streams=True),
    Rival("ios", 400, needs_streams=True, options=(("max_states", 2_000),)),
)
"""The cheap schedulers, in the order in which they run; ties go to the first.

The first steps of hios-lp and hios-mr alone are left out: the whole is never slower.
"""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A complete schedule and what the simulator says of it.

    Attributes
    ----------
    name
        Of the scheduler, or of the search.
    schedule
        Valid, with the order of every link decided.
    makespan_us
        Predicted.
    """

    name: str
    schedule: Schedule
    makespan_us: float


def judge(
    problem: Problem, name: str, schedule: Schedule, links: Sequence[LinkOrder] = ()
) -> Candidate | None:
    """Complete and simulate a schedule.

    Parameters
    ----------
    problem
        What was scheduled.
    name
        For the candidate.
    schedule
        As a scheduler returned it.
    links
        Orders of the links to try besides those of the simulator.

    Returns
    -------
    Candidate or None
        With the better link orders; None when it does not fit, for example for want of memory.
    """
    graph, machine = problem.graph, problem.machine
    costs = costs_of_schedule(graph, problem.costs, schedule)
    best: Candidate | None = None
    try:
        if not schedule.links:
            schedule = complete_links(graph, machine, costs, schedule)
        offered = [schedule]
        if links and machine.is_contended:
            offered.append(replace(schedule, links=tuple(links)))
        for one in offered:
            validate_schedule(graph, machine, one)
            predicted = makespan(graph, machine, costs, one)
            if best is None or predicted < best.makespan_us:
                best = Candidate(name, one, predicted)
    except InfeasibleSchedule:
        return None
    return best


def rivals_for(problem: Problem) -> tuple[Rival, ...]:
    """Return the rivals that are worth running on a problem."""
    graph = problem.graph
    n_operators = len(graph.operators)
    has_choice = problem.machine.devices[0].streams > 1 or bool(graph.alternatives)
    return tuple(
        rival
        for rival in RIVALS
        if n_operators <= rival.max_operators and (has_choice or not rival.needs_streams)
    )


def run_rivals(
    problem: Problem, rivals: Sequence[Rival], report: Callable[[str, float], None]
) -> list[Candidate]:
    """Run schedulers one after another.

    Parameters
    ----------
    problem
        What to schedule.
    rivals
        Which.
    report
        Told the name of each, and the fraction done.

    Returns
    -------
    list of Candidate
        Those whose schedules fit on the machine, in the order in which they ran.
    """
    found: list[Candidate] = []
    for index, rival in enumerate(rivals):
        report(rival.name, index / len(rivals))
        function = get_scheduler(rival.name).function
        options = dict(rival.options)
        schedule = function(problem.graph, problem.machine, problem.costs, **options)
        candidate = judge(problem, rival.name, schedule)
        if candidate is not None:
            found.append(candidate)
    return found
