"""The default scheduler: a portfolio, improved by local search under the costs.

1. The cheap schedulers run (`hios.schedulers.search.portfolio`); the simulator times them all.
2. The best one-stream order is annealed (`hios.schedulers.search.annealing`): operators, chains
   and critical-path operators move between devices and in the order.
3. Where devices have several streams, the result goes through HIOS's sliding window; operators
   are dealt out to streams without stages (`hios.schedulers.search.stream_search`); and the stages
   of the best candidates are improved (`hios.schedulers.search.stage_search`).
4. The simulator chooses among everything found, so the result is never worse than a scheduler
   that took part.

The search stops as soon as the lower bound is met. Effort is counted in evaluations, so the same
seed gives the same schedule; a limit in seconds only truncates, and the notes say so.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from hios.bounds import problem_bounds
from hios.costs.protocol import Costs
from hios.errors import InfeasibleSchedule, InvalidOption
from hios.ir.graph import OpGraph
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.problem import Problem
from hios.schedulers.registry import register
from hios.schedulers.search.portfolio import Candidate, judge, rivals_for, run_rivals
from hios.schedulers.sliding_window import slide_window

__all__ = ["DEFAULT_EVALUATIONS", "EVALUATIONS_PER_SECOND", "auto"]

DEFAULT_EVALUATIONS = 400_000
"""Moves tried by default: well under a second for 200 operators."""

_LARGE = 500
"""Operators from which on the default effort shrinks in proportion."""

EVALUATIONS_PER_SECOND = 400_000
"""Moves granted for each second of a budget, whatever the machine really manages."""

_STAGE_SHARE = 80
"""A move of the stage search counts as this many moves of the compiled search."""

# The bound is met when it is met up to rounding.
_ROUNDING = 1.0 + 1e-9

Progress = Callable[[str, float], None]


@dataclass(slots=True)
class _Tally:
    """What the notes tell of the search."""

    evaluations: int = 0
    is_truncated: bool = False


@register("auto")
def auto(
    graph: OpGraph,
    machine: Machine,
    costs: Costs,
    *,
    evaluations: int | None = None,
    budget: float | None = None,
    seed: int = 0,
    least_gain: float = 0.0,
    progress: Progress | None = None,
) -> Schedule:
    """Improve the best of the cheap schedulers by local search; never worse than any of them.

    Parameters
    ----------
    graph, machine, costs
        What to run, where, and how long it takes.
    evaluations
        Moves that the search may try; 0 leaves the portfolio. By default
        `DEFAULT_EVALUATIONS`, or `EVALUATIONS_PER_SECOND` for each second of `budget`; fewer for
        more than 500 operators.
    budget
        Seconds after which the search is cut short. The rivals run in any case, and compiling
        the inner loop, at its first use on a machine, does not count.
    seed
        Of the random numbers.
    least_gain
        Fraction of the time in sequence that a schedule has to save; one that is predicted to
        save less gives way to running in sequence. For costs that are estimates: what is less
        than their error is not a gain.
    progress
        Called with what is being done and the fraction done.

    Returns
    -------
    Schedule
        With links decided. Notes: ``makespan_us``, ``lower_bound_us``, ``gap`` (the part of the
        bound by which it is exceeded), ``evaluations``, ``truncated`` (0 or 1), ``seed``,
        ``winner`` (what found the schedule), and ``rival_NAME_us`` for each scheduler that ran.

    Raises
    ------
    InvalidOption
        When an option is out of range.
    InfeasibleSchedule
        When not even one scheduler found a schedule that fits on the machine.

    Notes
    -----
    O(V + E) an evaluation at worst, usually a small part of that.
    """
    _check_options(evaluations, budget, seed, least_gain)
    began = time.monotonic()
    report: Progress = progress if progress is not None else _silent
    problem = Problem(graph, machine, costs)
    bounds = problem_bounds(problem)
    rivals = run_rivals(problem, rivals_for(problem), lambda name, part: report(name, 0.3 * part))
    if not rivals:
        raise InfeasibleSchedule(
            f"no scheduler found a schedule of graph {graph.name!r} that fits on machine "
            f"{machine.name!r}; use devices with more memory or a smaller batch"
        )
    best = min(rivals, key=lambda candidate: candidate.makespan_us)
    tally = _Tally()
    if evaluations is None:
        granted = DEFAULT_EVALUATIONS if budget is None else EVALUATIONS_PER_SECOND * budget
        # A move takes longer in a large graph.
        granted *= min(1.0, _LARGE / max(1, len(graph.operators)))
        evaluations = math.ceil(granted)
    target = bounds.lower_bound_us * _ROUNDING
    if evaluations and best.makespan_us > target:
        left = None if budget is None else budget - (time.monotonic() - began)
        found = _improve(problem, rivals, target, evaluations, left, seed, report, tally)
        # Ties go to the simpler schedule.
        best = min((best, *found), key=lambda candidate: candidate.makespan_us)
    in_order = next((rival for rival in rivals if rival.name == "sequential"), best)
    if best.makespan_us > (1.0 - least_gain) * in_order.makespan_us:
        best = in_order
    report("done", 1.0)
    bound = bounds.lower_bound_us
    notes: dict[str, str | int | float] = {
        "makespan_us": best.makespan_us,
        "lower_bound_us": bound,
        "gap": best.makespan_us / bound - 1.0 if bound > 0.0 else 0.0,
        "evaluations": tally.evaluations,
        "truncated": int(tally.is_truncated),
        "seed": seed,
        "winner": best.name,
    }
    notes.update((f"rival_{rival.name}_us", rival.makespan_us) for rival in rivals)
    return replace(best.schedule, scheduler="auto", notes=notes)


def _check_options(evaluations: object, budget: object, seed: object, least_gain: object) -> None:
    if evaluations is not None and (
        not isinstance(evaluations, int) or isinstance(evaluations, bool) or evaluations < 0
    ):
        raise InvalidOption(f"auto: evaluations is {evaluations!r}; need an integer ≥ 0")
    if budget is not None and (
        not isinstance(budget, int | float) or isinstance(budget, bool) or not 0 < budget < math.inf
    ):
        raise InvalidOption(f"auto: budget is {budget!r}; need a number of seconds above 0")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise InvalidOption(f"auto: seed is {seed!r}; need an integer")
    if (
        not isinstance(least_gain, int | float)
        or isinstance(least_gain, bool)
        or not 0 <= least_gain < 1
    ):
        raise InvalidOption(f"auto: least_gain is {least_gain!r}; need a fraction in [0, 1)")


def _silent(what: str, part: float) -> None:
    """Report to nobody."""


def _report_part(report: Progress, what: str, begin: float, length: float, part: float) -> None:
    """Report a part of what takes the fraction from `begin` on."""
    report(what, begin + length * part)


def _improve(
    problem: Problem,
    rivals: list[Candidate],
    target_us: float,
    evaluations: int,
    seconds: float | None,
    seed: int,
    report: Progress,
    tally: _Tally,
) -> list[Candidate]:
    """Return the candidates that the search finds."""
    # Only here: numba takes longer to import than many graphs take to schedule.
    from hios.schedulers.search.annealing import (
        Effort,
        anneal_order,
        links_by_reader,
        order_of_schedule,
    )
    from hios.schedulers.search.stage_search import has_one_stage_each, search_stages
    from hios.schedulers.search.stream_search import search_streams

    plain = [rival for rival in rivals if not rival.schedule.alternatives]
    deadline_s: float | None = None
    if plain:
        report("compile the search (once on a machine)", 0.3)
    if seconds is not None:
        if plain:
            # The first use on a machine compiles the inner loop: no part of the budget.
            anneal_order(problem, [plain[0].schedule], 0.0, Effort(1))
        deadline_s = time.monotonic() + seconds
    found: list[Candidate] = []
    has_streams = any(device.streams > 1 for device in problem.machine.devices)

    def keep(name: str, schedule: Schedule) -> Candidate | None:
        links = links_by_reader(problem, *order_of_schedule(problem, schedule))
        candidate = judge(problem, name, schedule, links)
        if candidate is not None:
            found.append(candidate)
        return candidate

    if plain and problem.n_devices > 1:
        effort = Effort(
            evaluations if not has_streams else evaluations // 4,
            deadline_s,
            seed,
            partial(_report_part, report, "anneal", 0.3, 0.2 if has_streams else 0.7),
        )
        annealed = anneal_order(problem, [rival.schedule for rival in plain], target_us, effort)
        tally.evaluations += annealed.evaluations
        tally.is_truncated |= annealed.is_truncated
        ordered = annealed.schedule(problem, "annealing")
        keep("annealing", ordered)
        if has_streams:
            keep("annealing, window", slide_window(problem, ordered))
    if plain and has_streams:
        start = min((*plain, *found), key=lambda candidate: candidate.makespan_us)
        effort = Effort(
            evaluations // 4,
            deadline_s,
            seed,
            partial(_report_part, report, "streams", 0.5, 0.2),
        )
        streamed, annealed = search_streams(
            problem, *order_of_schedule(problem, start.schedule), effort
        )
        tally.evaluations += annealed.evaluations
        tally.is_truncated |= annealed.is_truncated
        keep("streams", streamed)
    if has_streams:
        staged = sorted(
            (one for one in (*plain, *found) if has_one_stage_each(one.schedule)),
            key=lambda candidate: candidate.makespan_us,
        )[:2]
        moves = evaluations // (2 * _STAGE_SHARE)
        for turn, start in enumerate(staged):
            effort = Effort(
                moves // len(staged),
                deadline_s,
                seed + turn,
                partial(_report_part, report, "stages", 0.7 + 0.15 * turn, 0.15),
            )
            result = search_stages(problem, start.schedule, target_us, effort)
            tally.evaluations += result.evaluations
            tally.is_truncated |= result.is_truncated
            keep(f"{start.name}, stages", result.schedule)
    return found
