"""The parts of measuring that need no device: the cache, the fit of links, the selection."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_cases import machine_of, random_case
from test_executor import NULL, compiled_of

from graph_executor.links import fit_link
from graph_executor.measure import MeasureOptions, measure_costs
from graph_executor.measure_cache import (
    CachedLink,
    CachedTime,
    MeasureCache,
    Setting,
    default_cache_dir,
)
from graph_executor.select import Candidate, SelectOptions, select_fastest
from hios.errors import DeviceUnavailable, InvalidOption, StorageError
from hios.ir import Schedule

SETTING = Setting("cpu", 1, "llvm", "0.27")
TIME = CachedTime(1.5, 0.1, 9)


def test_cache_keeps_times_by_setting(tmp_path):
    cache = MeasureCache(tmp_path / "made" / "when" / "needed")
    assert cache.operator_times(SETTING) == {}
    cache.store_operator_times(SETTING, {"a": TIME})
    cache.store_operator_times(SETTING, {"b": CachedTime(2.0, 0.0, 1)})
    other = Setting("cpu", 2, "llvm", "0.27")
    assert set(cache.operator_times(SETTING)) == {"a", "b"}
    assert cache.operator_times(SETTING)["a"] == TIME
    assert cache.operator_times(other) == {}
    cache.store_links("cpu", {"0->1": CachedLink(10.0, 2.0)})
    assert cache.links("cpu") == {"0->1": CachedLink(10.0, 2.0)}
    assert cache.links("another cpu") == {}
    assert len(list(cache._folder.iterdir())) == 2


@pytest.mark.parametrize("damage", [b"", b"{", b'{"setting": 3}', b"\xff\xfe"])
def test_damaged_cache_counts_as_empty_and_is_written_anew(tmp_path, damage):
    cache = MeasureCache(tmp_path)
    cache.store_operator_times(SETTING, {"a": TIME})
    cache.store_links("cpu", {"0->1": CachedLink(1.0, 1.0)})
    for path in tmp_path.iterdir():
        path.write_bytes(damage)
    assert cache.operator_times(SETTING) == {}
    assert cache.links("cpu") == {}
    cache.store_operator_times(SETTING, {"b": TIME})
    assert cache.operator_times(SETTING) == {"b": TIME}


def test_cache_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="do without a cache"):
        MeasureCache(tmp_path / "file" / "below").store_operator_times(SETTING, {"a": TIME})


def test_cache_lies_where_the_convention_says(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache_dir() == Path("/somewhere/hios-tvm")
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert default_cache_dir() == Path.home() / ".cache" / "hios-tvm"


@given(latency=st.floats(0, 100), bandwidth=st.floats(0.5, 500), noise=st.floats(-0.05, 0.05))
def test_link_fit_finds_latency_and_bandwidth(latency, bandwidth, noise):
    sizes = [1 << 12, 1 << 15, 1 << 17, 1 << 19, 1 << 21]
    clean = [latency + size / (bandwidth * 1e3) for size in sizes]
    times = [t * (1 + noise * (-1) ** i) for i, t in enumerate(clean)]
    link = fit_link(sizes, times)
    assert link.latency_us >= 0
    assert link.bandwidth_gb_s > 0
    for size, time in zip(sizes, clean, strict=True):
        assert link.latency_us + size / (link.bandwidth_gb_s * 1e3) == pytest.approx(time, rel=0.2)


def test_link_fit_survives_nonsense():
    link = fit_link([10, 20, 40], [5.0, 5.0, 1.0])
    assert link.bandwidth_gb_s > 0
    assert link.latency_us >= 0


def test_options_are_checked(tmp_path):
    case = random_case(3)
    compiled = compiled_of(case.graph)
    with pytest.raises(InvalidOption, match="runs=0"):
        measure_costs(compiled, case.machine, MeasureOptions(runs=0))
    with pytest.raises(DeviceUnavailable, match="cuda:0"):
        measure_costs(compiled, machine_of("cuda", 1, 1), MeasureOptions(is_cached=False))
    with pytest.raises(InvalidOption, match="no candidate"):
        select_fastest(compiled, [])
    one = Candidate("one", case.machine, case.schedule)
    with pytest.raises(InvalidOption, match="two candidates are called 'one'"):
        select_fastest(compiled, [one, one])
    with pytest.raises(InvalidOption, match="rounds=0"):
        select_fastest(compiled, [one], SelectOptions(rounds=0))


def test_selection_always_includes_sequential_and_counts_alike():
    case = random_case(3)
    told = []
    selection = select_fastest(
        compiled_of(case.graph),
        [Candidate(name, case.machine, case.schedule) for name in ("b", "a")],
        SelectOptions(rounds=3, burst=2),
        NULL,
        progress=lambda fraction, name: told.append((fraction, name)),
    )
    assert list(selection.samples) == ["sequential", "b", "a"]
    assert {len(s.times_us) for s in selection.samples.values()} == {6}
    best = selection.samples[selection.best.name].median_us
    assert best == min(s.median_us for s in selection.samples.values())
    assert selection.ratio >= 1
    assert told[-1] == (1.0, "done")
    starts = [name for _, name in told[:-1]][::3]
    assert set(starts) == {"sequential", "b", "a"}


def test_a_candidate_called_sequential_is_taken_as_it_is():
    case = random_case(3)
    schedule = Schedule("own", case.schedule.placements)
    selection = select_fastest(
        compiled_of(case.graph),
        [Candidate("sequential", case.machine, schedule)],
        SelectOptions(rounds=1, burst=1),
        NULL,
    )
    assert selection.best.schedule.scheduler == "own"
