"""Measure several engines in one run, interleaved: A B C A B C ...

Machines are shared and drift; a ratio is only told of samples taken side by side. Each turn is
a short burst whose first run is not counted: it finds the caches of another engine.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hios.errors import InvalidOption
from hios.statistics import Ratio, Samples, ratio_of_medians
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
    """

    name: str
    samples: Samples
    ratio: Ratio


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows in the order of the engines; the first is the baseline of every ratio."""

    rows: tuple[Row, ...]


def compare_engines(
    engines: Sequence[Engine],
    inputs: Arrays,
    *,
    warmup: int = 2,
    repeat: int = 30,
    burst: int = 3,
    budget_s: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Time each engine `repeat` times in bursts, taking turns.

    Parameters
    ----------
    engines
        The first is the baseline.
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
    progress
        Called with (rounds done, rounds in all).

    Raises
    ------
    InvalidOption
        When `repeat` or `burst` is below 1, or `warmup` below 0.
    """
    if repeat < 1 or burst < 1 or warmup < 0:
        raise InvalidOption(
            f"comparing with repeat={repeat}, burst={burst}, warmup={warmup}; need repeat and "
            "burst ≥ 1, warmup ≥ 0"
        )
    rounds = warmup + -(-repeat // burst)
    samples: list[list[float]] = [[] for _ in engines]
    end = None if budget_s is None else time.perf_counter() + budget_s
    for turn in range(rounds):
        if end is not None and turn >= warmup + 2 and time.perf_counter() > end:
            break
        for engine, taken in zip(engines, samples, strict=True):
            engine.run(inputs)
            if turn < warmup:
                continue
            for _ in range(burst):
                start = time.perf_counter_ns()
                engine.run(inputs)
                taken.append((time.perf_counter_ns() - start) / 1e3)
        if progress is not None:
            progress(turn + 1, rounds)
    return Comparison(
        tuple(
            Row(engine.name, Samples.of(taken), ratio_of_medians(samples[0], taken))
            for engine, taken in zip(engines, samples, strict=True)
        )
    )
