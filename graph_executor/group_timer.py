"""Times of operators that run together: what is asked of a device, and how often.

A *group measurement* compares four things on one device, over and over in turn: each operator
alone at the device's full width, each alone on one core (on a CPU), all of them one after
another, and the groups at once as a stage of a plan runs them. `GroupTimer` is what a kind of
device implements; `graph_executor.group_measure` does it for CPU devices. `time_group` is the
rest, the same for every device: warm up, take rounds until there are enough samples, compare the
results with the serial run bit for bit, and watch a *sentinel*, one piece of work that never
changes. Where the sentinel took longer after a group than before it, the machine was not the
same during the group, which is then measured again, and in the end kept as rejected.
"""

import math
import time
from dataclasses import dataclass
from typing import Protocol

from graph_executor.timed_device import Cache, Mode, TimedDevice
from hios.costs.protocol import Stage
from hios.errors import ArtifactMismatch, ExecutionError, InvalidOption, UnsupportedModel
from hios.statistics import Samples

__all__ = [
    "GroupOptions",
    "GroupRun",
    "GroupTimer",
    "GroupTiming",
    "Round",
    "time_group",
]


@dataclass(frozen=True, slots=True)
class Round:
    """One sample of everything, in microseconds.

    Attributes
    ----------
    solo_us
        Each operator alone at the device's full width, in the order of the groups.
    narrow_us
        Each operator alone on one core of a CPU; empty on other devices.
    serial_us
        All operators one after another, in the same order.
    group_us
        The groups at once: what a plan loses between the operator before the stage and the
        one after it.
    """

    solo_us: tuple[float, ...]
    narrow_us: tuple[float, ...]
    serial_us: float
    group_us: float


class GroupRun(Protocol):
    """Some groups made ready: memory allocated and filled, kernels bound."""

    def rounds(self, count: int) -> list[Round]:
        """Run everything `count` times and return the samples.

        Raises
        ------
        ExecutionError
            When a kernel fails.
        """
        ...

    def difference(self) -> str:
        """Compare the results of the groups, run at once, with those of the serial run.

        Returns
        -------
        str
            Empty when they are equal bit for bit, else what differs.
        """
        ...

    def close(self) -> None:
        """Give everything back; may be called twice."""
        ...


class GroupTimer(Protocol):
    """A device on which groups of operators of one compiled graph are measured.

    One thread at a time calls it.
    """

    @property
    def device(self) -> TimedDevice:
        """The device."""
        ...

    @property
    def mode(self) -> Mode:
        """How groups are launched: call after call, or as one replayed graph."""
        ...

    @property
    def cache(self) -> Cache:
        """What the last-level cache holds when a round starts."""
        ...

    def widths(self, groups: Stage) -> tuple[int, ...]:
        """Return the cores that each group gets; empty where cores are not shared out."""
        ...

    def order(self, groups: Stage) -> tuple[int, ...]:
        """Return the launch order, as indices into the operators group after group.

        Empty where groups have threads of their own and start at once.
        """
        ...

    def open(self, groups: Stage) -> GroupRun:
        """Make groups ready; the caller closes them.

        Raises
        ------
        ExecutionError
            When there is not enough memory.
        """
        ...

    def sentinel(self, count: int) -> list[float]:
        """Run the sentinel `count` times and return its times in microseconds."""
        ...

    def close(self) -> None:
        """Give everything back; may be called twice."""
        ...


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """How much is measured.

    Attributes
    ----------
    rounds
        Least number of samples of each thing.
    most_rounds
        Most samples; short operators get more than long ones.
    budget_ms
        How long the samples of one group may take before `rounds` is all it gets.
    longest_s
        Groups whose `rounds` would take longer are not measured (and the reason is kept).
    warmup
        Rounds before the first that counts.
    drift
        Largest change of the sentinel over a group, as a fraction.
    attempts
        How often a group is measured before it is rejected for drift.
    sentinel
        Runs of the sentinel before and after a group; twice as many before it is rejected.
    """

    rounds: int = 30
    most_rounds: int = 100
    budget_ms: float = 60.0
    longest_s: float = 2.0
    warmup: int = 3
    drift: float = 0.02
    attempts: int = 3
    sentinel: int = 30

    def validate(self) -> None:
        """Check the numbers.

        Raises
        ------
        InvalidOption
            When one is out of range.
        """
        if self.rounds < 1 or self.most_rounds < self.rounds or self.warmup < 1:
            raise InvalidOption(
                f"rounds={self.rounds}, most_rounds={self.most_rounds}, warmup={self.warmup}; "
                "need 1 ≤ rounds ≤ most_rounds and warmup ≥ 1"
            )
        if self.attempts < 1 or self.sentinel < 1:
            raise InvalidOption(
                f"attempts={self.attempts}, sentinel={self.sentinel}; need at least 1"
            )
        if not self.drift > 0 or not self.longest_s > 0:
            raise InvalidOption(
                f"drift={self.drift}, longest_s={self.longest_s}; both must be above 0"
            )


@dataclass(frozen=True, slots=True)
class GroupTiming:
    """What was measured of one stage.

    Attributes
    ----------
    solo_us, narrow_us
        Samples (µs) of each operator, in the order of the groups; empty when nothing was
        measured, `narrow_us` also where the device does not have it.
    serial_us, group_us
        Samples (µs); empty when nothing was measured.
    drift
        Change of the sentinel over the measurement, as a fraction.
    reject
        Why the times may not be used; empty when they may.
    attempts
        How often it was measured.
    """

    solo_us: tuple[tuple[float, ...], ...] = ()
    narrow_us: tuple[tuple[float, ...], ...] = ()
    serial_us: tuple[float, ...] = ()
    group_us: tuple[float, ...] = ()
    drift: float = 0.0
    reject: str = ""
    attempts: int = 1


_FAILURES = (ArtifactMismatch, ExecutionError, UnsupportedModel)

_SENTINEL_PERCENT = 10.0
"""Of the sentinel's times: interruptions by others make some longer, never shorter."""


def time_group(
    timer: GroupTimer, groups: Stage, options: GroupOptions | None = None
) -> GroupTiming:
    """Measure groups that run at once.

    Parameters
    ----------
    timer
        The device.
    groups
        Independent of each other; each a chain in order.
    options
        See `GroupOptions`.

    Returns
    -------
    GroupTiming
        Rejected, with the reason, when a kernel failed, results differ, the machine changed
        meanwhile in every attempt, or it would take too long.

    Raises
    ------
    InvalidOption
        When an option is out of range, or there is a group without operators.
    """
    options = options or GroupOptions()
    options.validate()
    if not groups or any(len(group) == 0 for group in groups):
        raise InvalidOption("a stage to measure has no operators")
    try:
        run = timer.open(groups)
    except _FAILURES as problem:
        return GroupTiming(reject=str(problem))
    try:
        return _measure(timer, run, options)
    except _FAILURES as problem:
        return GroupTiming(reject=str(problem))
    finally:
        run.close()


def _measure(timer: GroupTimer, run: GroupRun, options: GroupOptions) -> GroupTiming:
    started = time.perf_counter()
    run.rounds(options.warmup)
    round_s = (time.perf_counter() - started) / options.warmup
    if round_s * options.rounds > options.longest_s:
        # The first rounds touch memory for the first time: look once more.
        started = time.perf_counter()
        run.rounds(1)
        round_s = time.perf_counter() - started
        if round_s * options.rounds > options.longest_s:
            return GroupTiming(
                reject=f"too long: {options.rounds} rounds would take "
                f"{round_s * options.rounds:.1f} s, more than {options.longest_s:g} s"
            )
    if difference := run.difference():
        return GroupTiming(reject=f"results differ from the serial run: {difference}")
    count = round(options.budget_ms / 1e3 / round_s)
    count = min(max(count, options.rounds), options.most_rounds)
    timing = GroupTiming()
    for attempt in range(1, options.attempts + 1):
        before = timer.sentinel(options.sentinel)
        run.rounds(1)  # the sentinel has taken the caches
        samples = run.rounds(count)
        after = timer.sentinel(options.sentinel)
        drift = _drift(before, after)
        if abs(drift) > options.drift:
            # A few samples may be off by chance: ask for enough to be sure.
            drift = _drift(before, timer.sentinel(2 * options.sentinel))
        timing = GroupTiming(
            tuple(zip(*(sample.solo_us for sample in samples), strict=True)),
            tuple(zip(*(sample.narrow_us for sample in samples), strict=True)),
            tuple(sample.serial_us for sample in samples),
            tuple(sample.group_us for sample in samples),
            drift,
            "",
            attempt,
        )
        if abs(drift) <= options.drift:
            break
    else:
        reason = f"the sentinel changed by {timing.drift:+.1%}, more than {options.drift:.1%}"
        return GroupTiming(
            timing.solo_us,
            timing.narrow_us,
            timing.serial_us,
            timing.group_us,
            timing.drift,
            reason,
            timing.attempts,
        )
    if difference := run.difference():
        return GroupTiming(reject=f"results differ from the serial run: {difference}")
    return timing


def _drift(before: list[float], after: list[float]) -> float:
    one, other = (Samples.of(times).percentile_us(_SENTINEL_PERCENT) for times in (before, after))
    change = other / one - 1
    return change if math.isfinite(change) else math.inf
