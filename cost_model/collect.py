"""Collects records: measures groups of some models on some devices, and writes each at once.

Groups are handed to the lanes in the order of the candidates; what the file already has is
skipped, so a collection that was stopped goes on where it was.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from cost_model.known_groups import KnownGroups, is_drifted, plain_identity
from cost_model.lane import Job, Lane
from cost_model.recording import make_record, new_session
from cost_model.records import GroupRecord
from cost_model.store import RecordStore
from graph_executor.group_timer import GroupOptions
from graph_executor.measure_service import ServiceFacts
from hios.errors import InvalidOption
from hios.ir.graph import OpGraph
from hios.ir.operator_key import operator_key

__all__ = ["CollectOptions", "Collected", "Progress", "collect"]

Progress = Callable[[str, float], None]
"""Told what is being done and the fraction done."""

_ROUND = 3.0
"""A round takes at least so many times what its operators take alone: all of them in order twice,
and once together."""

_LONG = "too long, as its operators say"


@dataclass(frozen=True, slots=True)
class CollectOptions:
    """How much is collected.

    Attributes
    ----------
    groups
        Valid groups that the file shall hold for the models asked for, those included that
        it had before.
    budget_s
        Seconds after which no new group is begun; None: as long as it takes.
    measuring
        How each group is measured.
    """

    groups: int = 200
    budget_s: float | None = None
    measuring: GroupOptions = field(default_factory=GroupOptions)

    def validate(self) -> None:
        """Check the numbers.

        Raises
        ------
        InvalidOption
            When one is out of range.
        """
        if self.groups < 1 or (self.budget_s is not None and not self.budget_s > 0):
            raise InvalidOption(
                f"collecting groups={self.groups}, budget_s={self.budget_s}; need groups ≥ 1 and "
                "a budget > 0"
            )
        self.measuring.validate()


@dataclass(frozen=True, slots=True)
class Collected:
    """What came of it.

    Attributes
    ----------
    valid, rejected
        Groups measured now.
    left_out
        Groups whose operators are known to take too long; no record tells of them.
    known
        Groups that the file had before.
    seconds
        Taken now.
    is_complete
        Whether as many groups as asked for, or all candidates, are in the file.
    reasons
        How often each reason for a rejection came up, or for leaving a group out.
    """

    valid: int
    rejected: int
    left_out: int
    known: int
    seconds: float
    is_complete: bool
    reasons: dict[str, int]


def collect(
    graphs: Sequence[OpGraph],
    models: Sequence[str],
    jobs: Iterable[Job],
    lanes: Sequence[Lane],
    store: RecordStore,
    options: CollectOptions,
    progress: Progress | None = None,
    known: KnownGroups | None = None,
) -> Collected:
    """Measure groups and write a record of each.

    Parameters
    ----------
    graphs, models
        Operator graphs, and what each is called.
    jobs
        Candidates, in the order in which they are wanted.
    lanes
        Places that measure; each gets a thread.
    store
        Open for appending.
    options
        See `CollectOptions`.
    progress
        Told what is being done and the fraction done, between groups only: drawing takes a
        core.
    known
        Groups that need no measurement; None: those that the file had when it was opened.

    Returns
    -------
    Collected
        Also when the budget ended it.

    Raises
    ------
    InvalidOption
        When an option is out of range or there is no lane.
    HiosError
        When no lane can measure any more.
    """
    options.validate()
    if not lanes:
        raise InvalidOption("no device to collect on; give --devices or --tracker")
    if known is None:
        known = KnownGroups(store.found.records)
    run = _Run(graphs, models, jobs, store, options, progress, known)
    if len(lanes) == 1:
        run.serve(lanes[0])
    else:
        threads = [
            threading.Thread(target=run.serve, args=(lane,), name=f"hios-lane-{lane.name}")
            for lane in lanes
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return run.finish(len(lanes))


class _Run:
    """What the lanes share."""

    def __init__(
        self,
        graphs: Sequence[OpGraph],
        models: Sequence[str],
        jobs: Iterable[Job],
        store: RecordStore,
        options: CollectOptions,
        progress: Progress | None,
        known: KnownGroups,
    ) -> None:
        self._graphs = graphs
        self._models = models
        self._jobs: Iterator[Job] = iter(jobs)
        self._store = store
        self._options = options
        self._progress = progress
        self._changed = threading.Condition()
        self._started = time.monotonic()
        self._session = new_session()
        self._known = known
        self._found = 0  # valid groups of these candidates in the file
        self._before = 0
        self._pending = 0
        self._rejected = 0
        self._long = 0
        self._reasons: dict[str, int] = {}
        self._is_exhausted = False
        self._returned: list[Job] = []
        self._failures: list[Exception] = []

    def serve(self, lane: Lane) -> None:
        """Measure on one lane until there is nothing more to do."""
        while (job := self._next()) is not None:
            try:
                facts = lane.facts(job.model)
                if self._skips(job, facts) or self._takes_too_long(job, facts):
                    continue
                answer = lane.measure(job, self._options.measuring)
                record = make_record(self._graphs, self._models, job, facts, answer, self._session)
                self._note(record)
            except Exception as problem:  # noqa: BLE001 - raised again when no lane is left
                self._give_back(job, lane, problem)
                return

    def _give_back(self, job: Job, lane: Lane, problem: Exception) -> None:
        """Let another lane have a job that this one could not do."""
        with self._changed:
            self._failures.append(problem)
            self._pending -= 1
            if (facts := lane.known_facts(job.model)) is not None:
                self._known.give_back(plain_identity(self._graphs[job.model], job.chains, facts))
            self._returned.append(job)
            self._changed.notify_all()

    def finish(self, lanes: int) -> Collected:
        """Return what came of it; raise when every lane failed."""
        if len(self._failures) == lanes:
            raise self._failures[0]
        return Collected(
            self._found - self._before,
            self._rejected,
            self._long,
            self._before,
            time.monotonic() - self._started,
            self._found >= self._options.groups or self._is_exhausted,
            dict(sorted(self._reasons.items())),
        )

    def _next(self) -> Job | None:
        """Return what to do now; None when nothing is left, and no lane can give a job back."""
        options = self._options
        with self._changed:
            while self._found < options.groups:
                spent = time.monotonic() - self._started
                if options.budget_s is not None and spent >= options.budget_s:
                    return None
                if self._found + self._pending < options.groups:
                    job = self._returned.pop() if self._returned else next(self._jobs, None)
                    if job is not None:
                        self._pending += 1
                        return job
                    self._is_exhausted = True
                if not self._pending:
                    return None
                self._changed.wait(1.0)
            return None

    def _skips(self, job: Job, facts: ServiceFacts) -> bool:
        """Return whether the file has this group of this device already."""
        identity = plain_identity(self._graphs[job.model], job.chains, facts)
        with self._changed:
            is_valid = self._known.is_valid(identity)
            if is_valid is None:
                self._known.take(identity)
                return False
            self._pending -= 1
            self._changed.notify_all()
            if is_valid:
                self._found += 1
                self._before += 1
            return True

    def _takes_too_long(self, job: Job, facts: ServiceFacts) -> bool:
        """Return whether that is known from the times of the operators, without opening them."""
        graph = self._graphs[job.model]
        keys = [operator_key(graph, op) or "" for chain in job.chains for op in chain]
        measuring = self._options.measuring
        with self._changed:
            solo_us = self._known.solo_us(keys, facts.device)
            if _ROUND * solo_us * 1e-6 * measuring.rounds <= measuring.longest_s:
                return False
            self._pending -= 1
            self._changed.notify_all()
            self._long += 1
            self._reasons[_LONG] = self._reasons.get(_LONG, 0) + 1
            return True

    def _note(self, record: GroupRecord) -> None:
        self._store.append(record)
        with self._changed:
            self._pending -= 1
            self._changed.notify_all()
            self._known.learn(record)
            if record.valid:
                self._found += 1
            else:
                self._rejected += 1
                kind = _kind_of(record.reject)
                self._reasons[kind] = self._reasons.get(kind, 0) + 1
            found, rejected = self._found, self._rejected
            if self._progress is not None:
                text = f"{found} of {self._options.groups} groups"
                if rejected:
                    text += f", {rejected} rejected"
                fraction = found / self._options.groups
                if self._options.budget_s is not None:
                    spent = (time.monotonic() - self._started) / self._options.budget_s
                    fraction = max(fraction, spent)
                self._progress(text, min(1.0, fraction))


def _kind_of(reject: str) -> str:
    if is_drifted(reject):
        return "the machine changed meanwhile"
    return reject.partition(":")[0]
