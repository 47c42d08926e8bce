"""Interleaved comparisons, on engines that only count."""

import itertools

import pytest

from hios.errors import InvalidOption
from hios_tvm.comparison import compare_engines
from hios_tvm.energy import EnergyMeter


class _Clock:
    """Stands in for the clock of the comparison: time passes only while an engine runs."""

    now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s

    def perf_counter_ns(self) -> int:
        return round(self.now_s * 1e9)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr("hios_tvm.comparison.time", clock)
    return clock


class _Engine:
    def __init__(self, name: str, seconds: float, log: list[str], clock: _Clock) -> None:
        self.name = name
        self._seconds = seconds
        self._log = log
        self._clock = clock

    def run(self, inputs: object) -> list[object]:
        self._log.append(self.name)
        self._clock.now_s += self._seconds
        return []

    def close(self) -> None:
        pass


def test_engines_take_turns_in_bursts_with_one_uncounted_run(clock: _Clock) -> None:
    log: list[str] = []
    engines = [_Engine("a", 0.001, log, clock), _Engine("b", 0.001, log, clock)]
    told: list[tuple[int, int]] = []
    result = compare_engines(
        engines, {}, warmup=1, repeat=4, burst=2, progress=lambda *at: told.append(at)
    )
    assert "".join(log) == "ab" + "bbbaaa" + "aaabbb"  # every other round goes backwards
    assert [len(row.samples.times_us) for row in result.rows] == [4, 4]
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_ratio_is_baseline_over_engine(clock: _Clock) -> None:
    log: list[str] = []
    engines = [_Engine("slow", 2e-3, log, clock), _Engine("fast", 5e-4, log, clock)]
    slow, fast = compare_engines(engines, {}, warmup=0, repeat=6).rows
    assert slow.ratio.value == 1
    assert fast.ratio.value == pytest.approx(4)
    assert fast.samples.median_us == pytest.approx(500)


def test_budget_ends_early_but_not_before_two_rounds(clock: _Clock) -> None:
    log: list[str] = []
    compare_engines(
        [_Engine("a", 1e-3, log, clock)], {}, warmup=0, repeat=100, burst=1, budget_s=0.0
    )
    assert len(log) == 4


def test_no_runs_is_an_error() -> None:
    with pytest.raises(InvalidOption, match="repeat=0"):
        compare_engines([], {}, repeat=0)


def test_a_slow_engine_has_few_turns_spread_over_the_run(clock: _Clock) -> None:
    log: list[str] = []
    engines = [_Engine("fast", 1e-3, log, clock), _Engine("slow", 2.0, log, clock)]
    fast, slow = compare_engines(
        engines, {}, warmup=1, repeat=27, burst=3, slow_s=1.0, slow_repeat=3
    ).rows
    assert len(fast.samples.times_us) == 27
    assert slow.samples.times_us == (2e6,) * 3  # each run counts: a warm-up is nothing to it
    turns = [index for index, name in enumerate(log) if name == "slow"]
    gaps = [later - earlier for earlier, later in itertools.pairwise(turns)]
    assert log.count("slow") == 3
    assert min(gaps) > 8  # not one after the other


def test_ratios_are_over_the_baseline_that_is_named(clock: _Clock) -> None:
    log: list[str] = []
    engines = [_Engine("a", 1e-3, log, clock), _Engine("b", 2e-3, log, clock)]
    a, b = compare_engines(engines, {}, warmup=0, repeat=6, baseline=1).rows
    assert (a.ratio.value, b.ratio.value) == (pytest.approx(2), 1)


def test_energy_and_lingering_threads_are_told(clock: _Clock) -> None:
    log: list[str] = []
    engines = [_Engine("a", 1e-3, log, clock), _Engine("b", 3e-3, log, clock)]
    watts = EnergyMeter("10 W", lambda: 10 * clock.now_s)
    lingering = iter([0.0, 1.0, 1.0, 0.0])
    a, b = compare_engines(
        engines, {}, warmup=0, repeat=6, meter=watts, settle=lambda: next(lingering)
    ).rows
    assert (a.energy_j, b.energy_j) == (pytest.approx(0.01), pytest.approx(0.03))
    assert (a.lingering_us, b.lingering_us) == (0, 1)
