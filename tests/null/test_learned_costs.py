"""Learned costs keep the contract of costs, ask in batches, and remember."""

import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic_groups import HOST, records

from cost_model.dataset import build_dataset
from cost_model.learned import LearnedCosts
from cost_model.model_file import CostModel, describe_model
from cost_model.train import TrainOptions, fit
from hios.bounds import lower_bound
from hios.costs.protocol import BoundedCosts
from hios.costs.table import TableCosts
from hios.errors import CostModelMismatch, InvalidCosts
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId, OpId
from hios.ir.machine import Device, Machine
from hios.ir.validation import validate_schedule
from hios.random_graphs import LayeredGraphOptions, layered_graph
from hios.schedulers import schedule
from hios.simulator import makespan

QUICK = TrainOptions(rounds=60, depth=3, eta=0.1, quantile_rounds=30, calibration_folds=2)
ONE = DeviceId(0)
TARGET = '{"kind":"llvm"}'


@pytest.fixture(scope="module")
def model() -> CostModel:
    data = build_dataset(records(200, seed=2))
    return describe_model(data, fit(data, QUICK))


@pytest.fixture(scope="module")
def graph() -> OpGraph:
    return layered_graph(4, LayeredGraphOptions(operators=30, edges=50, layers=8)).graph


def machine(cores: int = 2, streams: int = 3) -> Machine:
    return Machine("host", (Device("cpu:0", "cpu", streams, cores=tuple(range(cores))),))


def table(graph: OpGraph, where: Machine) -> TableCosts:
    times = [[10.0 + 7.0 * (op.id % 5)] * len(where.devices) for op in graph.operators]
    narrow = [[1.7 * t for t in row] for row in times]
    return TableCosts(graph, where, times, narrow)


def learned(graph: OpGraph, model: CostModel, where: Machine | None = None) -> LearnedCosts:
    where = where or machine()
    return LearnedCosts(table(graph, where), model, [HOST.name] * len(where.devices), TARGET)


STAGES = st.lists(
    st.lists(st.lists(st.integers(0, 29), min_size=1, max_size=3), min_size=1, max_size=4),
    min_size=1,
    max_size=6,
)


@given(stages=STAGES, data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_contract(
    graph: OpGraph, model: CostModel, stages: list[list[list[OpId]]], data: st.DataObject
) -> None:
    costs = learned(graph, model)
    found = costs.stage_us_many(stages, ONE)
    for groups, time in zip(stages, found, strict=True):
        solo = [sum(costs.operator_us(op, ONE) for op in group) for group in groups]
        if len(groups) == 1:
            assert time == solo[0]
        assert time >= max(solo)
        mixed = data.draw(st.permutations(groups))
        assert costs.stage_us(mixed, ONE) == time
        assert learned(graph, model).stage_us(groups, ONE) == time
        interval = costs.interval(groups, ONE)
        assert interval.low_us <= time == interval.time_us <= interval.high_us
        for group in groups:
            for op in group:
                assert costs.least_work_us(op, ONE, True) <= costs.operator_us(op, ONE)


def test_stages_are_predicted_once(graph: OpGraph, model: CostModel) -> None:
    costs = learned(graph, model)
    first = costs.stage_us_many([[[0], [1]], [[1], [0]], [[0], [2]], [[3]], [[], [4]]], ONE)
    assert first[0] == first[1]
    assert first[3:] == [costs.operator_us(OpId(op), ONE) for op in (3, 4)]
    predicted = costs.stages_predicted
    assert costs.stage_us_many([[[1], [0]], [[2], [0]]], ONE) == [first[0], first[2]]
    assert costs.stages_predicted == predicted


def test_one_core_takes_turns(graph: OpGraph, model: CostModel) -> None:
    costs = learned(graph, model, machine(cores=1))
    stage = [[OpId(0), OpId(1)], [OpId(2)]]
    total = sum(costs.operator_us(op, ONE) for op in (0, 1, 2))
    assert costs.stage_us(stage, ONE) == total
    assert costs.least_work_us(OpId(0), ONE, False) == costs.operator_us(OpId(0), ONE)


@pytest.mark.parametrize("name", ["ios", "hios-lp", "heft", "sequential", "opara"])
def test_schedulers_and_bounds_take_them(graph: OpGraph, model: CostModel, name: str) -> None:
    costs = learned(graph, model)
    assert isinstance(costs, BoundedCosts)
    decided = schedule(name, graph, costs.machine, costs)
    validate_schedule(graph, costs.machine, decided)
    latency = makespan(graph, costs.machine, costs, decided)
    assert lower_bound(graph, costs.machine, costs) <= latency * (1 + 1e-9)
    assert math.isfinite(latency)
    assert schedule(name, graph, costs.machine, learned(graph, model)) == decided


def test_devices_that_the_model_does_not_know(graph: OpGraph, model: CostModel) -> None:
    with pytest.raises(CostModelMismatch, match="trained on devices of 2 cores"):
        learned(graph, model, machine(cores=8))
    where = machine()
    assert not learned(graph, model).is_foreign
    assert LearnedCosts(table(graph, where), model, ["Other CPU"], TARGET).is_foreign
    with pytest.raises(CostModelMismatch, match="not for cuda on cpu"):
        LearnedCosts(table(graph, where), model, [HOST.name], "cuda")
    with pytest.raises(InvalidCosts, match="one-core time"):
        LearnedCosts(replace(table(graph, where), narrow_us=None), model, [HOST.name], TARGET)


def test_other_solo_times(graph: OpGraph, model: CostModel) -> None:
    costs = learned(graph, model)
    old = costs.table
    double = replace(
        old,
        times_us=[[2 * t for t in row] for row in old.times_us],
        narrow_us=[[2 * t for t in row] for row in old.narrow_us or ()],
    )
    assert costs.with_table(double).operator_us(OpId(0), ONE) == 2 * costs.operator_us(OpId(0), ONE)
    assert costs.transfer_us(graph.operators[0].outputs[0], ONE, ONE) == 0.0
