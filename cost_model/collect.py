"""Collects records: measures groups of some models on some devices, and writes each at once.

A *lane* is one place that measures one group at a time: a device of this machine, or a server.
Groups are handed to the lanes in the order of the candidates; what the file already has is
skipped, so a collection that was stopped goes on where it was. Groups that were rejected because
the machine changed meanwhile are measured again the next time.

One group in twenty (by its identity, so always the same ones) is measured again in another
process: that difference is the noise floor.
"""

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from cost_model.candidates import Chains
from cost_model.records import (
    SCHEMA,
    GroupRecord,
    OperatorRecord,
    Source,
    Spread,
    describe_operator,
    group_id,
)
from cost_model.store import RecordStore
from graph_executor.group_timer import GroupOptions
from graph_executor.measure_service import GroupAnswer, GroupRequest, Service, ServiceFacts
from hios.errors import ExecutionError, InvalidOption
from hios.ir.graph import OpGraph
from hios.ir.ids import OpId
from hios.ir.operator_key import operator_key
from hios.ir.serial import decode_json, encode_json

__all__ = [
    "CollectOptions",
    "Collected",
    "Job",
    "Lane",
    "NoiseFloor",
    "collect",
    "noise_floor",
    "repeat_some",
    "wants_repeat",
]

Progress = Callable[[str, float], None]

_REPEATED_ONE_IN = 20
_ROUND = 3.0
"""A round takes at least so many times what its operators take alone: all of them in order twice,
and once together."""

_LONG = "too long, as its operators say"
_DRIFTED = "the sentinel"
"""How the reason begins that another moment may not bring: such groups have another chance."""


class Lane:
    """One place that measures one group at a time.

    Parameters
    ----------
    name
        For people.
    service
        What measures there.
    artifacts
        The artifact of each graph of the collection, made when first asked for.
    """

    def __init__(self, name: str, service: Service, artifacts: Callable[[int], Path]) -> None:
        self.name = name
        self._service = service
        self._artifacts = artifacts
        self._facts: dict[int, ServiceFacts] = {}

    def facts(self, model: int) -> ServiceFacts:
        """Make a graph ready, if it is not yet, and return where and how it is measured.

        Raises
        ------
        HiosError
            When it cannot be used there.
        """
        if model not in self._facts:
            answer = self._service.open(str(self._artifacts(model)))
            self._facts[model] = decode_json(answer, ServiceFacts, ExecutionError, self.name)
        return self._facts[model]

    def known_facts(self, model: int) -> ServiceFacts | None:
        """Return what `facts` said of a graph; None where it was not made ready."""
        return self._facts.get(model)

    def measure(self, job: "Job", options: GroupOptions) -> GroupAnswer:
        """Measure a group.

        Raises
        ------
        HiosError
            When the lane is no longer there.
        """
        request = GroupRequest(str(self._artifacts(job.model)), job.chains, options)
        answer = self._service.measure(encode_json(request).decode())
        return decode_json(answer, GroupAnswer, ExecutionError, self.name)


@dataclass(frozen=True, slots=True)
class Job:
    """A group to measure: the number of its graph, and its chains."""

    model: int
    chains: Chains


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


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """How much two processes differ about the same groups.

    Attributes
    ----------
    pairs
        Groups measured twice.
    median, p90
        Of |ratio − 1| over √2, the ratio being that of time over sum of the solo times.
    """

    pairs: int
    median: float
    p90: float


def collect(
    graphs: Sequence[OpGraph],
    models: Sequence[str],
    jobs: Iterable[Job],
    lanes: Sequence[Lane],
    store: RecordStore,
    options: CollectOptions,
    progress: Progress | None = None,
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
    run = _Run(graphs, models, jobs, store, options, progress)
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
        self._known = _known(store)
        self._found = 0  # valid groups of these candidates in the file
        self._before = 0
        self._pending = 0
        self._rejected = 0
        self._long = 0
        self._solo_us: dict[tuple[str, str, int], float] = {}
        for record in store.found.records:
            self._learn_solo(record)
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
                identity = record_identity(self._graphs[job.model], job.chains, facts)
                self._known.pop(identity, None)
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
        identity = record_identity(self._graphs[job.model], job.chains, facts)
        with self._changed:
            known = self._known.get(identity)
            if known is None:
                self._known[identity] = True  # taken: the other lanes leave it alone
                return False
            self._pending -= 1
            self._changed.notify_all()
            if known:
                self._found += 1
                self._before += 1
            return True

    def _takes_too_long(self, job: Job, facts: ServiceFacts) -> bool:
        """Return whether that is known from the times of the operators, without opening them."""
        keys = [
            (operator_key(self._graphs[job.model], op) or "", facts.device.name, facts.device.units)
            for chain in job.chains
            for op in chain
        ]
        measuring = self._options.measuring
        with self._changed:
            solo_us = sum(self._solo_us.get(key, 0.0) for key in keys)
            if _ROUND * solo_us * 1e-6 * measuring.rounds <= measuring.longest_s:
                return False
            self._pending -= 1
            self._changed.notify_all()
            self._long += 1
            self._reasons[_LONG] = self._reasons.get(_LONG, 0) + 1
            return True

    def _learn_solo(self, record: GroupRecord) -> None:
        for op in record.ops:
            if op.solo_us is not None:
                key = (op.key, record.device.name, record.device.units)
                self._solo_us[key] = op.solo_us.p50

    def _note(self, record: GroupRecord) -> None:
        self._store.append(record)
        with self._changed:
            self._pending -= 1
            self._changed.notify_all()
            self._learn_solo(record)
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


def make_record(
    graphs: Sequence[OpGraph],
    models: Sequence[str],
    job: Job,
    facts: ServiceFacts,
    answer: GroupAnswer,
    session: str,
) -> GroupRecord:
    """Return the record of a measurement, valid or not."""
    graph = graphs[job.model]
    timing = answer.timing
    is_valid = not timing.reject
    solo = [Spread.of(times) for times in timing.solo_us]
    narrow = [Spread.of(times) for times in timing.narrow_us]
    ops: list[OperatorRecord] = []
    for stream, chain in enumerate(job.chains):
        for position, op in enumerate(chain):
            at = len(ops)
            ops.append(
                describe_operator(
                    graph,
                    op,
                    stream,
                    position,
                    solo[at] if solo else None,
                    narrow[at] if narrow else None,
                )
            )
    return GroupRecord(
        schema=SCHEMA,
        group_id=group_id(ops, answer.order, facts.mode, facts.cache),
        ops=tuple(ops),
        streams=len(job.chains),
        order=answer.order,
        widths=answer.widths,
        mode=facts.mode,
        cache=facts.cache,
        serial_us=Spread.of(timing.serial_us) if timing.serial_us else None,
        group_us=Spread.of(timing.group_us) if timing.group_us else None,
        device=facts.device,
        target=facts.target,
        env=facts.env,
        source=Source(models[job.model], tuple(tuple(chain) for chain in job.chains)),
        date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        session=session,
        drift=round(timing.drift, 5),
        valid=is_valid,
        reject=timing.reject,
    )


def record_identity(graph: OpGraph, chains: Chains, facts: ServiceFacts) -> tuple[str, str, int]:
    """Return what a record is known by: the group, and the kind and size of the device.

    Groups launched in an order of their own are told apart by their streams alone: one order is
    measured for each.
    """
    ops = [
        describe_operator(graph, op, stream, position)
        for stream, chain in enumerate(chains)
        for position, op in enumerate(chain)
    ]
    return group_id(ops, (), facts.mode, facts.cache), facts.device.name, facts.device.units


def repeat_some(
    graphs: Sequence[OpGraph],
    models: Sequence[str],
    records: Iterable[GroupRecord],
    lane: Lane,
    store: RecordStore,
    options: CollectOptions,
    progress: Progress | None = None,
) -> int:
    """Measure again, in another process, the groups for which that is due.

    Parameters
    ----------
    graphs, models, store, options, progress
        As in `collect`.
    records
        All records there are; groups that were measured in two sessions are done.
    lane
        Of a process that measured none of them.

    Returns
    -------
    int
        Number of groups that were measured again and are valid.
    """
    session = new_session()
    number = {name: index for index, name in enumerate(models)}
    sessions: dict[tuple[str, str, int], set[str]] = {}
    due: dict[tuple[str, str, int], GroupRecord] = {}
    for record in records:
        if wants_repeat(record) and record.source.model in number:
            place = (record.group_id, record.device.name, record.device.units)
            sessions.setdefault(place, set()).add(record.session)
            due[place] = record
    todo = [record for place, record in due.items() if len(sessions[place]) == 1]
    started = time.monotonic()
    count = 0
    for index, record in enumerate(todo):
        if options.budget_s is not None and time.monotonic() - started >= options.budget_s:
            break
        if progress is not None:
            progress(f"again in another process: {index} of {len(todo)}", index / len(todo))
        chains = tuple(tuple(OpId(op) for op in chain) for chain in record.source.groups)
        job = Job(number[record.source.model], chains)
        facts = lane.facts(job.model)
        if (facts.device.name, facts.device.units) != (record.device.name, record.device.units):
            continue
        answer = lane.measure(job, options.measuring)
        again = make_record(graphs, models, job, facts, answer, session)
        if again.group_id != record.group_id:
            continue  # the graph has changed since
        store.append(again)
        count += again.valid
    return count


def wants_repeat(record: GroupRecord) -> bool:
    """Return whether a group is one of those that are measured again in another process."""
    return record.valid and int(record.group_id, 16) % _REPEATED_ONE_IN == 0


def new_session() -> str:
    """Return a name for this process that no other one has."""
    return f"{os.getpid()}-{secrets.token_hex(4)}"


def noise_floor(records: Iterable[GroupRecord]) -> NoiseFloor | None:
    """Return how much two sessions differ about the same groups; None where nothing repeats."""
    first: dict[tuple[str, str, int], GroupRecord] = {}
    errors = []
    for record in records:
        if not record.valid:
            continue
        place = (record.group_id, record.device.name, record.device.units)
        known = first.setdefault(place, record)
        if known.session != record.session:
            errors.append(abs(_ratio(record) / _ratio(known) - 1) / np.sqrt(2.0))
    if not errors:
        return None
    return NoiseFloor(len(errors), float(np.median(errors)), float(np.quantile(errors, 0.9)))


def _ratio(record: GroupRecord) -> float:
    together = record.group_us.p50 if record.group_us else np.nan
    return together / sum(op.solo_us.p50 for op in record.ops if op.solo_us)


def _known(store: RecordStore) -> dict[tuple[str, str, int], bool]:
    """Return the groups that need no measurement, and whether each is valid.

    What was rejected because the machine changed meanwhile is not among them.
    """
    known: dict[tuple[str, str, int], bool] = {}
    for record in store.found.records:
        plain = group_id(record.ops, (), record.mode, record.cache)
        place = (plain, record.device.name, record.device.units)
        if record.valid:
            known[place] = True
        elif not record.reject.startswith(_DRIFTED):
            known.setdefault(place, False)
    return known


def _kind_of(reject: str) -> str:
    if reject.startswith(_DRIFTED):
        return "the machine changed meanwhile"
    return reject.partition(":")[0]
