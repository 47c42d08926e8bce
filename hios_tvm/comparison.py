"""Measure several engines in one run, interleaved: A B C A B C ...

Machines are shared and drift; a ratio is only told of samples taken side by side.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
    warmup: int = 5,
    repeat: int = 30,
    budget_s: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Time each engine `repeat` times, taking turns.

    Parameters
    ----------
    engines
        The first is the baseline.
    inputs
        The same for all.
    warmup
        Rounds that are not counted.
    repeat
        Rounds that are.
    budget_s
        Stop after this many seconds, but not before 5 rounds.
    progress
        Called with (rounds done, rounds in all).
    """
    samples: list[list[float]] = [[] for _ in engines]
    end = None if budget_s is None else time.perf_counter() + budget_s
    for turn in range(warmup + repeat):
        if end is not None and turn >= warmup + 5 and time.perf_counter() > end:
            break
        for engine, taken in zip(engines, samples, strict=True):
            start = time.perf_counter_ns()
            engine.run(inputs)
            elapsed_us = (time.perf_counter_ns() - start) / 1e3
            if turn >= warmup:
                taken.append(elapsed_us)
        if progress is not None:
            progress(turn + 1, warmup + repeat)
    return Comparison(
        tuple(
            Row(engine.name, Samples.of(taken), ratio_of_medians(samples[0], taken))
            for engine, taken in zip(engines, samples, strict=True)
        )
    )
