"""Measure several engines in one run, interleaved: A B C C B A A B C ...

Machines are shared and drift; a ratio is only told of samples taken side by side. Each turn is
a short burst whose first run is not counted: it finds the caches of another engine. Every other
round goes backwards, so that no engine always follows the same one: on a shared host what an
engine did with all cores can still slow the next.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hios.errors import InvalidOption
from hios.statistics import Ratio, Samples, ratio_of_medians
from hios_tvm.energy import EnergyMeter
from hios_tvm.engines.protocol import Arrays, Engine

__all__ = ["Comparison", "Row", "compare_engines"]


@dataclass(frozen=True, slots=True)
class Row:
    """One engine of a comparison.

    Attributes
    ----------
    name
        Of the engine.
    samples
        In the order measured.
    ratio
        Baseline's time over this one's: above 1 is faster than the baseline.
    energy_j
        Joules of one run, where a meter was given.
    lingering_us
        Median processor time that its threads used after its turns, where `settle` was given.
    """

    name: str
    samples: Samples
    ratio: Ratio
    energy_j: float | None = None
    lingering_us: float | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows in the order of the engines; ratios are over the baseline."""

    rows: tuple[Row, ...]


@dataclass(slots=True)
class _Taken:
    """What was measured of one engine so far."""

    times_us: list[float] = field(default_factory=list)
    lingering_us: list[float] = field(default_factory=list)
    energy_j: float = 0.0
    is_slow: bool = False


def compare_engines(
    engines: Sequence[Engine],
    inputs: Arrays,
    *,
    warmup: int = 2,
    repeat: int = 30,
    burst: int = 3,
    budget_s: float | None = None,
    baseline: int = 0,
    slow_s: float | None = None,
    slow_repeat: int = 3,
    settle: Callable[[], float] | None = None,
    meter: EnergyMeter | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Time each engine `repeat` times in bursts, taking turns.

    Parameters
    ----------
    engines
        At least one.
    inputs
        The same for all.
    warmup
        Rounds that are not counted.
    repeat
        Counted runs of each engine, rounded up to whole bursts.
    burst
        Counted runs in a turn, after one that is not.
    budget_s
        Stop after this many seconds, but not before 2 rounds.
    baseline
        Position of the engine that the ratios are over.
    slow_s, slow_repeat
        An engine that once needs longer than `slow_s` has `slow_repeat` turns only, spread
        over the whole comparison, with one counted run each.
    settle
        Called after every turn; returns the microseconds that the engine's threads still used.
    meter
        Read around every burst.
    progress
        Called with (rounds done, rounds in all).

    Raises
    ------
    InvalidOption
        When `repeat`, `burst` or `slow_repeat` is below 1, or `warmup` below 0.
    """
    if repeat < 1 or burst < 1 or slow_repeat < 1 or warmup < 0:
        raise InvalidOption(
            f"comparing with repeat={repeat}, burst={burst}, slow_repeat={slow_repeat}, "
            f"warmup={warmup}; need warmup ≥ 0 and the others ≥ 1"
        )
    rounds = warmup + -(-repeat // burst)
    taken = [_Taken() for _ in engines]
    pairs = list(zip(engines, taken, strict=True))
    start = time.perf_counter()

    def fraction(turn: int) -> float:
        """Return how far the comparison is, by rounds or by its budget."""
        spent = 0.0 if not budget_s else (time.perf_counter() - start) / budget_s
        return max(turn / rounds, spent)

    for turn in range(rounds):
        is_over = budget_s is not None and time.perf_counter() - start > budget_s
        if is_over and turn >= warmup + 2:
            break
        for engine, own in pairs[:: -1 if turn % 2 else 1]:
            if own.is_slow and len(own.times_us) / slow_repeat > fraction(turn):
                continue
            is_counted = turn >= warmup or own.is_slow
            before = _run_us(engine, inputs)
            own.is_slow = own.is_slow or (slow_s is not None and before > slow_s * 1e6)
            # Caches and sleeping threads are nothing to a run of seconds: its first one counts.
            energy = meter.read_j() if meter is not None else 0.0
            if own.is_slow:
                own.times_us.append(before)
            elif is_counted:
                for _ in range(burst):
                    own.times_us.append(_run_us(engine, inputs))
                if meter is not None:
                    own.energy_j += meter.read_j() - energy
            if settle is not None:
                own.lingering_us.append(settle())
        if progress is not None:
            progress(turn + 1, rounds)
    base = taken[baseline].times_us if taken else []
    return Comparison(
        tuple(
            Row(
                engine.name,
                Samples.of(own.times_us),
                ratio_of_medians(base, own.times_us),
                None if meter is None or own.is_slow else own.energy_j / len(own.times_us),
                Samples.of(own.lingering_us).median_us if own.lingering_us else None,
            )
            for engine, own in pairs
        )
    )


def _run_us(engine: Engine, inputs: Arrays) -> float:
    start = time.perf_counter_ns()
    engine.run(inputs)
    return (time.perf_counter_ns() - start) / 1e3
