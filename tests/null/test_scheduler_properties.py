"""What must hold for every registered scheduler, those that come later included."""

from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hios.bounds import lower_bound
from hios.costs import TableCosts
from hios.errors import HiosError
from hios.ir import Machine, OpGraph, Schedule
from hios.ir.presets import abstract_machine
from hios.ir.validation import validate_schedule
from hios.schedulers import list_schedulers, schedule
from hios.simulator import simulate
from hios.testing import (
    TOPOLOGIES,
    Case,
    cases,
    graph_from_edges,
    uniform_costs,
)

ALL = list_schedulers()

# Solvers of the exact optimum are for small graphs, and say so (see their own tests).
ANY_SIZE = tuple(name for name in ALL if name != "exact")

LARGE_SHAPES = ("chain_1000", "fan_out_1000", "deep_5000", "no_time", "disconnected")


@cache
def large_graph(shape: str) -> OpGraph:
    if shape == "chain_1000":
        return graph_from_edges(1000, [(v, v + 1) for v in range(999)])
    if shape == "fan_out_1000":
        return graph_from_edges(1001, [(0, v) for v in range(1, 1001)])
    if shape == "deep_5000":
        # Two strands that touch every fifty operators: deep, but no mere chain.
        edges = [(v, v + 2) for v in range(4998)] + [(v, v + 1) for v in range(0, 4999, 50)]
        return graph_from_edges(5000, edges)
    if shape == "no_time":
        return graph_from_edges(60, [(v, v + 7) for v in range(53)])
    return graph_from_edges(60, [(v, v + 1) for v in range(59) if v % 4])


def check(graph: OpGraph, machine: Machine, costs: TableCosts, decided: Schedule) -> None:
    """Precedence, one at a time on a stream, and no better than the bound."""
    validate_schedule(graph, machine, decided)
    timeline = simulate(graph, machine, costs, decided)
    timeline.validate()
    events = {e.subject: e for e in timeline.events if e.kind == "operator"}
    assert sorted(events) == [op.id for op in graph.operators]
    slack = 1e-9 * timeline.makespan_us + 1e-6
    for u, v in graph.edges():
        assert events[u].end_us <= events[v].start_us + slack
    placement_of = decided.placement_of()
    lanes: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for placement in decided.placements:
        event = events[placement.op]
        assert event.device == placement.device
        lanes.setdefault((placement.device, placement.stream), []).append(
            (event.start_us, event.end_us)
        )
    for lane in lanes.values():
        for (_, end), (start, _) in pairwise(lane):
            assert end <= start + slack
    assert len(placement_of) == len(graph.operators)
    if not decided.alternatives:
        assert timeline.makespan_us >= lower_bound(graph, machine, costs) - slack


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=15, deadline=None)
@given(case=cases(max_operators=9))
def test_random_problems_are_scheduled_validly_and_the_same_way_twice(
    name: str, case: Case
) -> None:
    first = schedule(name, case.graph, case.machine, case.costs)
    check(case.graph, case.machine, case.costs, first)
    again = schedule(name, case.graph, case.machine, case.costs)
    assert again.to_json() == first.to_json()


@pytest.mark.parametrize("topology", sorted(TOPOLOGIES))
@pytest.mark.parametrize("name", ANY_SIZE)
def test_named_topologies_are_scheduled_validly(name: str, topology: str) -> None:
    graph = TOPOLOGIES[topology]()
    machine = abstract_machine(3, streams=2)
    costs = uniform_costs(graph, machine)
    check(graph, machine, costs, schedule(name, graph, machine, costs))


@pytest.mark.parametrize("n_operators", [0, 1])
@pytest.mark.parametrize("name", ALL)
def test_graphs_of_none_and_of_one_operator(name: str, n_operators: int) -> None:
    graph = graph_from_edges(n_operators, [], has_inputs_and_outputs=True)
    machine = abstract_machine(2, streams=2)
    costs = uniform_costs(graph, machine)
    decided = schedule(name, graph, machine, costs)
    assert len(decided.placements) == n_operators
    check(graph, machine, costs, decided)


@pytest.mark.parametrize("shape", LARGE_SHAPES)
@pytest.mark.parametrize("name", ANY_SIZE)
def test_large_and_odd_graphs(name: str, shape: str) -> None:
    graph = large_graph(shape)
    machine = abstract_machine(2, streams=4)
    is_timed = shape != "no_time"
    costs = uniform_costs(graph, machine, 10.0 if is_timed else 0.0, 1.0 if is_timed else 0.0)
    decided = schedule(name, graph, machine, costs)
    timeline = simulate(graph, machine, costs, decided)
    assert timeline.makespan_us >= lower_bound(graph, machine, costs) - 1e-6
    if shape == "no_time":
        assert timeline.makespan_us == 0.0


@pytest.mark.parametrize("name", ALL)
@given(seed=st.integers(0, 2**16))
@settings(max_examples=3, deadline=None)
def test_order_of_operators_in_the_file_does_not_matter_for_validity(name: str, seed: int) -> None:
    """Ids need not be topological."""
    edges = [(9, 3), (9, 5), (3, 1), (5, 1), (1, 0), (8, 2), (2, 0), (7, 0), (6, 7), (4, 7)]
    graph = graph_from_edges(10, edges)
    machine = abstract_machine(2, streams=2)
    times = [(float(1 + (seed >> op & 3)),) * 2 for op in range(10)]
    costs = TableCosts(
        graph,
        machine,
        times,
        utilization=[0.5] * 10,
        transfers_us={t.id: 0.5 for t in graph.tensors},
    )
    check(graph, machine, costs, schedule(name, graph, machine, costs))


@pytest.mark.parametrize("name", ALL)
def test_unknown_options_are_refused_by_name(name: str) -> None:
    graph = graph_from_edges(1, [])
    machine = abstract_machine(1)
    with pytest.raises(HiosError, match="no option 'colour'"):
        schedule(name, graph, machine, uniform_costs(graph, machine), colour="red")
