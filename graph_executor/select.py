"""Never slower: run the candidates on the real devices and keep the fastest.

Predictions choose which schedules are worth a try; only a clock says which is fastest here. The
candidates take turns in short bursts, in an order that rotates, so that a drift of the machine
hits all alike; the first run of a burst is not counted, since it finds the caches and the
threads of another candidate. The sequential schedule is always among them.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from graph_executor.executor import ExecutorOptions, GraphExecutor, random_inputs
from hios.errors import InvalidOption
from hios.ir.ids import DeviceId
from hios.ir.kernels import CompiledGraph
from hios.ir.machine import Machine
from hios.ir.schedule import Placement, Schedule
from hios.statistics import Samples

__all__ = ["SEQUENTIAL", "Candidate", "SelectOptions", "Selection", "select_fastest"]

SEQUENTIAL = "sequential"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A schedule worth a try.

    Attributes
    ----------
    name
        Unique among the candidates.
    machine
        The devices it is for; candidates may cut the same cores into different devices.
    schedule
        What runs where.
    compiled
        Its own graph and kernels, of the same inputs and outputs; None: those of all.
    """

    name: str
    machine: Machine
    schedule: Schedule
    compiled: CompiledGraph | None = None


@dataclass(frozen=True, slots=True)
class SelectOptions:
    """How candidates are compared.

    Attributes
    ----------
    rounds
        How often each one has its turn.
    burst
        Counted runs in a turn.
    """

    rounds: int = 10
    burst: int = 3

    def validate(self) -> None:
        """Check the numbers.

        Raises
        ------
        InvalidOption
            When one is below 1.
        """
        if self.rounds < 1 or self.burst < 1:
            raise InvalidOption(
                f"comparing with rounds={self.rounds}, burst={self.burst}; both must be ≥ 1"
            )


@dataclass(frozen=True, slots=True)
class Selection:
    """The outcome.

    Attributes
    ----------
    best
        The candidate with the smallest median; the first of equals.
    samples
        Times of every candidate, in the order given.
    """

    best: Candidate
    samples: Mapping[str, Samples]

    @property
    def ratio(self) -> float:
        """How many times faster the best is than the sequential schedule (medians)."""
        return self.samples[SEQUENTIAL].median_us / self.samples[self.best.name].median_us


def select_fastest(
    compiled: CompiledGraph,
    candidates: Sequence[Candidate],
    options: SelectOptions | None = None,
    executor_options: ExecutorOptions | None = None,
    inputs: Mapping[str, Any] | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Selection:
    """Measure all candidates and return the fastest.

    Parameters
    ----------
    compiled
        Graph, kernels and weights.
    candidates
        At least one. Where none is called ``sequential``, the sequential schedule on the
        first device of the first candidate's machine is put in front.
    options, executor_options
        See there.
    inputs
        As `GraphExecutor.run` takes them; by default random ones.
    progress
        Told the fraction done and the candidate whose turn it is.

    Raises
    ------
    InvalidOption
        When there is no candidate, or two have one name.

    Notes
    -----
    All executors are alive at once, each with its own copy of the weights.
    """
    options = options or SelectOptions()
    options.validate()
    report = progress or (lambda _fraction, _text: None)
    everyone = _with_sequential(compiled, candidates)
    values = random_inputs(compiled.graph) if inputs is None else inputs
    times: dict[str, list[float]] = {candidate.name: [] for candidate in everyone}
    with ExitStack() as stack:
        executors = [
            stack.enter_context(
                GraphExecutor(c.compiled or compiled, c.machine, c.schedule, executor_options)
            )
            for c in everyone
        ]
        turns = options.rounds * len(everyone)
        for turn in range(turns):
            # Rotate by one each round: nobody always follows the same neighbour's start.
            who = (turn + turn // len(everyone)) % len(everyone)
            name = everyone[who].name
            report(turn / turns, name)
            samples = executors[who].benchmark(options.burst, 1, values)
            times[name] += samples.times_us
    report(1.0, "done")
    found = {name: Samples.of(own) for name, own in times.items()}
    best = min(everyone, key=lambda candidate: found[candidate.name].median_us)
    return Selection(best, found)


def _with_sequential(compiled: CompiledGraph, candidates: Sequence[Candidate]) -> list[Candidate]:
    if not candidates:
        raise InvalidOption("no candidate to select from; give at least one schedule")
    names = [candidate.name for candidate in candidates]
    for name in names:
        if names.count(name) > 1:
            raise InvalidOption(f"two candidates are called {name!r}; names must differ")
    if SEQUENTIAL in names:
        return list(candidates)
    order = compiled.graph.topological_order()
    schedule = Schedule(SEQUENTIAL, tuple(Placement(op, DeviceId(0)) for op in order))
    return [Candidate(SEQUENTIAL, candidates[0].machine, schedule), *candidates]
