"""Measured costs: they add up, they are kept, and schedulers can use them."""

import math
import os
from dataclasses import replace

import pytest
from small_kernels import build_kernels, cpu_machine, random_compiled, random_cpu_schedule

from graph_executor.measure import MeasureOptions, measure_costs
from graph_executor.select import Candidate, SelectOptions, select_fastest
from graph_executor.stages import measure_stages
from hios.ir import DeviceId, OpGraph
from hios.ir.operator_key import operator_key
from hios.simulator import simulate

CORES = sorted(os.sched_getaffinity(0))
TWO = cpu_machine([(CORES[0],), (CORES[-1],)], 1)
WIDE = cpu_machine([tuple(dict.fromkeys((CORES[0], CORES[-1])))], 2)


@pytest.fixture(scope="module")
def compiled():
    found = random_compiled(11, build_kernels(), operators=30)
    graph = found.graph
    keyed = tuple(replace(op, attrs={"key": f"structural-{op.kernel}"}) for op in graph.operators)
    return replace(found, graph=OpGraph(**{**_fields(graph), "operators": keyed}))


def _fields(graph):
    names = ("name", "operators", "tensors", "inputs", "outputs", "alternatives")
    return {name: getattr(graph, name) for name in names}


def test_times_are_measured_once_and_then_read(compiled, tmp_path):
    options = MeasureOptions(runs=9, cache_dir=tmp_path)
    told = []
    first = measure_costs(compiled, TWO, options, lambda f, text: told.append(f))
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert set(first.sequential) == {1}
    assert len(first.times) == len(compiled.graph.operators)
    assert not any(time.is_cached for time in first.times)
    second = measure_costs(compiled, TWO, options)
    assert second.sequential == {}
    assert all(time.is_cached for time in second.times)
    assert second.costs.times_us == first.costs.times_us
    assert second.machine == first.machine
    third = measure_costs(compiled, TWO, replace(options, is_cached=False))
    assert set(third.sequential) == {1}


def test_operators_of_one_key_share_one_time(compiled, tmp_path):
    measured = measure_costs(compiled, TWO, MeasureOptions(runs=5, cache_dir=tmp_path))
    by_key = {}
    for time in measured.times:
        by_key.setdefault(operator_key(compiled.graph, time.op), set()).add(time.median_us)
        assert time.median_us > 0
        assert time.spread >= 0
    assert all(len(times) == 1 for times in by_key.values())
    assert len(by_key) == len({op.kernel for op in compiled.graph.operators})


def test_operators_without_a_key_are_measured_but_not_kept(compiled, tmp_path):
    graph = compiled.graph
    plain = tuple(replace(op, attrs={}) for op in graph.operators)
    bare = replace(compiled, graph=OpGraph(**{**_fields(graph), "operators": plain}))
    for _ in range(2):
        measured = measure_costs(bare, TWO, MeasureOptions(runs=3, cache_dir=tmp_path))
        assert set(measured.sequential) == {1}


def test_both_widths_are_measured_where_a_device_has_several_cores(compiled, tmp_path):
    measured = measure_costs(compiled, WIDE, MeasureOptions(runs=3, cache_dir=tmp_path))
    assert {time.cores for time in measured.times} == {1, len(WIDE.devices[0].cores)}
    assert measured.costs.narrow_us is not None


def test_links_are_measured_and_the_simulator_takes_it_all(compiled, tmp_path):
    measured = measure_costs(compiled, TWO, MeasureOptions(runs=3, cache_dir=tmp_path))
    assert {(link.src, link.dst) for link in measured.machine.links} == {(0, 1), (1, 0)}
    for link in measured.machine.links:
        assert 0 <= link.latency_us < 1e5
        assert 0 < link.bandwidth_gb_s < 1e4
        assert "measured between cores" in link.source
    measured.machine.validate()
    schedule = random_cpu_schedule(2, compiled.graph, TWO)
    timeline = simulate(compiled.graph, measured.machine, measured.costs, schedule)
    assert timeline.makespan_us > 0


def test_stages_are_measured(compiled):
    order = compiled.graph.topological_order()
    stages = [(DeviceId(0), ((order[0],), (order[1], order[2]))), (DeviceId(0), ((order[3],),))]
    found = measure_stages(compiled, WIDE, stages, runs=5)
    assert len(found) == 2
    assert all(math.isfinite(samples.median_us) for samples in found)
    assert all(len(samples.times_us) == 5 for samples in found)


def test_fastest_candidate_is_selected(compiled):
    candidates = [
        Candidate(f"random-{seed}", TWO, random_cpu_schedule(seed, compiled.graph, TWO))
        for seed in range(2)
    ]
    selection = select_fastest(compiled, candidates, SelectOptions(rounds=3, burst=2))
    assert list(selection.samples) == ["sequential", "random-0", "random-1"]
    assert selection.ratio >= 1
