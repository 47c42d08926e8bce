"""Costs: one group costs its own time, several what the rules say; wrong tables are refused."""

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given

from hios.costs import AnalyticCosts, BoundedCosts, Costs, TableCosts
from hios.errors import InvalidCosts, InvalidMachine
from hios.ir import Machine, Operator
from hios.ir.presets import abstract_machine, cpu_machine, preset
from hios.testing import (
    Case,
    cases,
    chain,
    diamond,
    fan_out,
    grid,
    random_costs,
    random_graph,
    uniform_costs,
)


def check_protocol(costs: Costs) -> None:
    """Let mypy see that these are costs."""


def test_both_are_costs() -> None:
    graph, machine = diamond(), preset("2xA40-NVLink")
    check_protocol(uniform_costs(graph, machine))
    check_protocol(AnalyticCosts(graph, machine))
    assert isinstance(AnalyticCosts(graph, machine), BoundedCosts)


@given(cases())
def test_one_group_costs_its_time_and_several_at_least_the_longest(case: Case) -> None:
    costs, ops = case.costs, [op.id for op in case.graph.operators]
    for d in range(len(case.machine.devices)):
        solo = [costs.operator_us(op, d) for op in ops]
        assert costs.stage_us([ops], d) == sum(solo)
        groups = [ops[i::3] for i in range(3) if ops[i::3]]
        longest = max((sum(costs.operator_us(op, d) for op in g) for g in groups), default=0.0)
        assert costs.stage_us(groups, d) >= longest
        assert costs.stage_us_many([groups, [ops]], d) == [costs.stage_us(groups, d), sum(solo)]


@pytest.mark.parametrize("seed", range(20))
def test_packing_a_chain_into_a_stage_gains_nothing(seed: int) -> None:
    """Two chains run together cost the same whole or, at equal shares, cut into stages."""
    rng = random.Random(seed)
    graph, machine = chain(rng.randint(1, 8)), abstract_machine(1, 4)
    costs = random_costs(rng, graph, machine)
    ops = [op.id for op in graph.operators]
    alone = [costs.stage_us([[op]], 0) for op in ops]
    assert costs.stage_us([ops], 0) == sum(alone)
    cut = rng.randint(0, len(ops))
    parts = [part for part in (ops[:cut], ops[cut:]) if part]
    assert sum(costs.stage_us([part], 0) for part in parts) == sum(alone)


def test_paper_formula() -> None:
    graph, machine = fan_out(2), abstract_machine(1, 3)
    costs = TableCosts(
        graph, machine, [[8.0], [4.0], [2.0]], utilization=[0.25, 0.5, 1.0], transfers_us={}
    )
    # ½·Σ + ½·max(Σ t·u, max): 7 + ½·max(6, 8)
    assert costs.stage_us([[0], [1], [2]], 0) == 11.0
    # ½·6 + ½·max(4, 4)
    assert costs.stage_us([[1], [2]], 0) == 5.0
    # Groups of several operators: T = (12, 2), ū·T = 4 + 2
    assert costs.stage_us([[0, 1], [2]], 0) == 7.0 + 6.0


def test_unknown_utilization_promises_nothing() -> None:
    graph, machine = fan_out(2), abstract_machine(1, 3)
    costs = TableCosts(graph, machine, [[8.0], [4.0], [2.0]])
    assert costs.stage_us([[0], [1], [2]], 0) == 14.0


def cpu_costs(cores: int, wide: list[float], narrow: list[float]) -> TableCosts:
    graph = fan_out(len(wide) - 1)
    machine = cpu_machine(["cpu:0"], cores=range(cores), streams=8)
    return TableCosts(graph, machine, [[t] for t in wide], narrow_us=[[t] for t in narrow])


def test_groups_share_the_cores_of_a_cpu() -> None:
    costs = cpu_costs(4, [10.0, 10.0, 10.0, 10.0], [40.0, 40.0, 20.0, 20.0])
    # Two groups, two cores each: Amdahl between 10 (four cores) and 40 (one): 20.
    assert costs.stage_us([[0], [1]], 0) == pytest.approx(20.0)
    # Four groups, one core each.
    assert costs.stage_us([[0], [1], [2], [3]], 0) == pytest.approx(40.0)
    # A badly scaling operator gains: two of 20 on one core, 10 on four.
    assert costs.stage_us([[2], [3]], 0) == pytest.approx(10.0 + 10.0 / 3)
    assert costs.stage_us([[2], [3]], 0) < 20.0


def test_more_groups_than_cores_take_turns() -> None:
    costs = cpu_costs(2, [5.0, 5.0, 5.0, 5.0], [10.0, 10.0, 10.0, 10.0])
    assert costs.stage_us([[0], [1], [2], [3]], 0) == pytest.approx(20.0)
    # No group is slower than alone on one core: 10, and 10 + 3 · 1 over two cores is less.
    uneven = cpu_costs(2, [8.0, 1.0, 1.0, 1.0], [10.0, 1.0, 1.0, 1.0])
    assert uneven.stage_us([[0], [1], [2], [3]], 0) == pytest.approx(10.0)
    one = cpu_costs(1, [5.0, 5.0], [5.5, 4.5])
    assert one.stage_us([[0], [1]], 0) == 10.0


def test_a_stage_is_never_shorter_than_its_longest_group() -> None:
    costs = cpu_costs(2, [5.0, 1.0], [5.0, 1.0])
    assert costs.stage_us([[0], [1]], 0) == 5.0


def test_transfers_follow_the_links() -> None:
    graph, machine = chain(2), preset("2xA40-PCIe4")
    costs = TableCosts(graph, machine, [[1.0, 1.0], [1.0, 1.0]])
    assert costs.transfer_us(0, 0, 1) == pytest.approx(10.0 + 1024 / 31.5e3)
    assert costs.transfer_us(0, 0, 1) == pytest.approx(machine.link(0, 1).transfer_us(1024))
    cut = replace(machine, links=machine.links[:1])
    with pytest.raises(InvalidMachine, match="no link"):
        TableCosts(graph, cut, [[1.0, 1.0]] * 2).transfer_us(0, 1, 0)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -1.0])
def test_wrong_numbers(wrong: float) -> None:
    graph, machine = chain(1), abstract_machine(1)
    with pytest.raises(InvalidCosts, match="operator 0"):
        TableCosts(graph, machine, [[wrong]])
    with pytest.raises(InvalidCosts, match="narrow_us"):
        TableCosts(graph, machine, [[1.0]], narrow_us=[[wrong]])
    with pytest.raises(InvalidCosts, match="utilization"):
        TableCosts(graph, machine, [[1.0]], utilization=[wrong])
    with pytest.raises(InvalidCosts, match="transfer of tensor 0"):
        TableCosts(graph, machine, [[1.0]], transfers_us={0: wrong})
    with pytest.raises(InvalidCosts, match="stage"):
        TableCosts(graph, machine, [[1.0]], stages_us={(0, ((0,),)): wrong})


@pytest.mark.parametrize("times", [[], [[1.0, 2.0]], [[1.0], [2.0]]])
def test_wrong_shapes(times: list[list[float]]) -> None:
    with pytest.raises(InvalidCosts, match="times_us has"):
        TableCosts(chain(1), abstract_machine(1), times)


def busy(op: Operator, flops: float, size: int, **launch: int) -> Operator:
    return replace(op, flops=flops, bytes_read=size, bytes_written=size, launch=launch)


def test_roofline() -> None:
    graph, machine = chain(3), preset("1xA40")
    graph = replace(
        graph,
        operators=(
            busy(graph.operators[0], 37.4e9, 10, grid=84 * 8, block=256),
            busy(graph.operators[1], 1.0, 348_000_000, grid=84 * 8, block=256),
            busy(graph.operators[2], 37.4e6, 10, grid=1, block=2048),
        ),
    )
    costs = AnalyticCosts(graph, machine)
    assert costs.operator_us(0, 0) == pytest.approx(1000.0 + 2.5)
    assert costs.operator_us(1, 0) == pytest.approx(1000.0 + 2.5)
    # One block reaches one of 84 multiprocessors.
    assert costs.operator_us(2, 0) == pytest.approx(84.0 + 2.5)
    assert costs.utilization(0, 0) == 1.0
    assert costs.utilization(2, 0) == pytest.approx(1 / 84)
    slow = AnalyticCosts(graph, machine, peak_fraction=0.5)
    assert slow.operator_us(0, 0) == pytest.approx(2000.0 + 2.5)
    assert costs.stage_us([[0], [2]], 0) < costs.operator_us(0, 0) + costs.operator_us(2, 0)
    assert costs.stage_us([[0, 2]], 0) == costs.operator_us(0, 0) + costs.operator_us(2, 0)


def test_roofline_on_a_cpu_counts_cores() -> None:
    graph = grid(1, 2)
    graph = replace(
        graph,
        operators=(
            busy(graph.operators[0], 80e6, 0, parallel_extent=1),
            busy(graph.operators[1], 80e6, 0, parallel_extent=64),
        ),
    )
    costs = AnalyticCosts(graph, cpu_machine(["cpu:0"], cores=[0, 1]))
    assert costs.operator_us(0, 0) == pytest.approx(2000.0 + 1.0)
    assert costs.operator_us(1, 0) == pytest.approx(1000.0 + 1.0)


def test_analytic_costs_need_figures() -> None:
    graph = random_graph(random.Random(1), 4)
    with pytest.raises(InvalidCosts, match="peak_gflops"):
        AnalyticCosts(graph, abstract_machine(1))
    with pytest.raises(InvalidCosts, match="peak_fraction"):
        AnalyticCosts(graph, preset("1xA40"), peak_fraction=0.0)


def test_a_machine_of_no_links_runs_one_device() -> None:
    graph = chain(2)
    machine = Machine("one", (abstract_machine(1).devices[0],))
    assert uniform_costs(graph, machine).transfer_us(0, 0, 0) == 0.0
