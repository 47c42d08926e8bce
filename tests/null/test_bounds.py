"""Lower bounds: equal to the reference figures, and never above what some schedule reaches."""

import itertools
import random
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings

from hios.bounds import lower_bound, lower_bounds
from hios.costs import TableCosts
from hios.graph_file import GraphFile
from hios.ir import OpGraph, Placement, Schedule
from hios.ir.presets import abstract_machine
from hios.simulator import makespan
from hios.testing import (
    Case,
    cases,
    chain,
    graph_from_edges,
    random_costs,
    random_graph,
    random_machine,
    uniform_costs,
)


def test_reference_figures(reference_graph: tuple[GraphFile, list[dict[str, Any]]]) -> None:
    file, figures = reference_graph
    for figure in figures:
        machine = abstract_machine(figure["devices"])
        bound = lower_bound(file.graph, machine, file.costs(machine))
        assert bound == pytest.approx(figure["lower_bound_us"], abs=0.06)


@settings(max_examples=300)
@given(cases())
def test_no_schedule_beats_the_bound(case: Case) -> None:
    bounds = lower_bounds(case.graph, case.machine, case.costs)
    span = makespan(case.graph, case.machine, case.costs, case.schedule)
    assert bounds.lower_bound_us <= span * (1 + 1e-9) + 1e-9
    assert bounds.head_tail_us <= bounds.head_tail_staged_us
    streams_of = {}
    for p in case.schedule.placements:
        streams_of.setdefault(p.device, set()).add((p.stream, p.stage is not None))
    is_staged = all(
        len(used) == 1 or (0, True) in used or all(s for _, s in used)
        for used in streams_of.values()
    )
    if is_staged:
        assert bounds.staged_lower_bound_us <= span * (1 + 1e-9) + 1e-9


def best_of_all(graph: OpGraph, costs: TableCosts, n_devices: int) -> float:
    """Try every order and every device, one stream each."""
    best = float("inf")
    for order in nx.all_topological_sorts(graph.to_networkx()):
        for devices in itertools.product(range(n_devices), repeat=len(order)):
            schedule = Schedule("x", tuple(map(Placement, order, devices)))
            best = min(best, makespan(graph, costs.machine, costs, schedule))
    return best


@pytest.mark.parametrize("seed", range(25))
def test_never_above_the_optimum(seed: int) -> None:
    rng = random.Random(seed)
    graph = random_graph(rng, rng.randint(1, 5))
    machine = random_machine(rng, max_devices=2, max_streams=1)
    costs = random_costs(rng, graph, machine)
    order_count = sum(1 for _ in nx.all_topological_sorts(graph.to_networkx()))
    if order_count > 40:
        pytest.skip(f"{order_count} orders are too many to try")
    optimum = best_of_all(graph, costs, len(machine.devices))
    assert lower_bound(graph, machine, costs) <= optimum * (1 + 1e-9)


def test_tight_where_it_is_easy() -> None:
    machine = abstract_machine(2)
    line = chain(7)
    assert lower_bound(line, machine, uniform_costs(line, machine)) == 70.0
    wide = graph_from_edges(6, [])
    assert lower_bound(wide, machine, uniform_costs(wide, machine)) == 30.0


def test_head_tail_beats_work_and_path() -> None:
    # 0 -> {1..4} -> 5 on two devices: 10 + 40/2 + 10.
    edges = [(0, i) for i in range(1, 5)] + [(i, 5) for i in range(1, 5)]
    graph, machine = graph_from_edges(6, edges), abstract_machine(2)
    bounds = lower_bounds(graph, machine, uniform_costs(graph, machine))
    assert bounds.critical_path_us == 30.0
    assert bounds.head_tail_us == 40.0


def test_streams_count_work_at_its_best_concurrency() -> None:
    graph, machine = graph_from_edges(8, []), abstract_machine(1, 4)
    costs = uniform_costs(graph, machine, utilization=0.5)
    bounds = lower_bounds(graph, machine, costs)
    assert bounds.head_tail_us == 40.0
    assert bounds.staged_lower_bound_us == 60.0
    # Two stages of four: each ½·40 + ½·max(20, 10).
    stages = Schedule("x", tuple(Placement(op, 0, op % 4, op // 4) for op in range(8)))
    assert makespan(graph, machine, costs, stages) == 60.0


def test_many_operators_and_none() -> None:
    machine = abstract_machine(2)
    empty = graph_from_edges(0, [])
    assert lower_bound(empty, machine, uniform_costs(empty, machine)) == 0.0
    long = chain(5000)
    assert lower_bound(long, machine, uniform_costs(long, machine)) == 50_000.0
