"""Interleaved comparisons, on engines that only count."""

import time

import pytest

from hios.errors import InvalidOption
from hios_tvm.comparison import compare_engines


class _Engine:
    def __init__(self, name: str, seconds: float, log: list[str]) -> None:
        self.name = name
        self._seconds = seconds
        self._log = log

    def run(self, inputs: object) -> list[object]:
        self._log.append(self.name)
        end = time.perf_counter() + self._seconds
        while time.perf_counter() < end:
            pass
        return []

    def close(self) -> None:
        pass


def test_engines_take_turns_in_bursts_with_one_uncounted_run() -> None:
    log: list[str] = []
    engines = [_Engine("a", 0, log), _Engine("b", 0, log)]
    told: list[tuple[int, int]] = []
    result = compare_engines(
        engines, {}, warmup=1, repeat=4, burst=2, progress=lambda *at: told.append(at)
    )
    assert "".join(log) == "ab" + "aaabbb" * 2
    assert [len(row.samples.times_us) for row in result.rows] == [4, 4]
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_ratio_is_baseline_over_engine() -> None:
    log: list[str] = []
    engines = [_Engine("slow", 2e-3, log), _Engine("fast", 5e-4, log)]
    slow, fast = compare_engines(engines, {}, warmup=0, repeat=6).rows
    assert slow.ratio.value == 1
    assert fast.ratio.low > 1.5
    assert fast.samples.median_us < slow.samples.median_us


def test_budget_ends_early_but_not_before_two_rounds() -> None:
    log: list[str] = []
    compare_engines([_Engine("a", 1e-3, log)], {}, warmup=0, repeat=100, burst=1, budget_s=0.0)
    assert len(log) == 4


def test_no_runs_is_an_error() -> None:
    with pytest.raises(InvalidOption, match="repeat=0"):
        compare_engines([], {}, repeat=0)
