"""HEFT: the reference figures, insertion, and its own prediction."""

import random
from typing import Any

import pytest

from hios.costs import TableCosts
from hios.graph_file import GraphFile
from hios.ir.presets import abstract_machine, cpu_machine
from hios.problem import Problem
from hios.schedulers import schedule
from hios.schedulers.list_schedule import list_schedule
from hios.simulator import makespan, simulate
from hios.testing import graph_from_edges, random_costs, random_graph

TWO = abstract_machine(2)


def test_reference_figures(reference_graph: tuple[GraphFile, list[dict[str, Any]]]) -> None:
    file, figures = reference_graph
    for figure in figures:
        machine = abstract_machine(figure["devices"])
        costs = file.costs(machine)
        span = makespan(file.graph, machine, costs, schedule("heft", file.graph, machine, costs))
        assert span == pytest.approx(figure["heft_insertion_us"], abs=0.06)
        plain = schedule("heft", file.graph, machine, costs, insertion=False)
        span = makespan(file.graph, machine, costs, plain)
        assert span == pytest.approx(figure["heft_us"], rel=0.02)


def test_insertion_fills_a_gap() -> None:
    # op1 (rank 25) waits on device 1 for its input from device 0; op2 (rank 2) fits before it.
    graph, machine = graph_from_edges(3, [(0, 1)], has_inputs_and_outputs=False), TWO
    costs = TableCosts(
        graph, machine, [[3.0, 9.0], [99.0, 20.0], [50.0, 2.0]], transfers_us={0: 4.0}
    )
    spans = {}
    for insertion in (False, True):
        decided = schedule("heft", graph, machine, costs, insertion=insertion)
        timeline = simulate(graph, machine, costs, decided)
        spans[insertion] = {e.subject: e.start_us for e in timeline.events if e.kind == "operator"}
    assert spans[True][1] == spans[False][1] == 7.0
    assert spans[True][2] == 0.0
    assert spans[False][2] == 27.0


@pytest.mark.parametrize("seed", range(40))
def test_predicts_what_the_simulator_says_without_contention(seed: int) -> None:
    rng = random.Random(seed)
    graph, machine = random_graph(rng, 20), abstract_machine(rng.randint(1, 4))
    costs = random_costs(rng, graph, machine)
    decided = schedule("heft", graph, machine, costs)
    # At most: edges of several tensors are charged for one after another.
    assert makespan(graph, machine, costs, decided) <= decided.notes["list_makespan_us"] + 1e-9


@pytest.mark.parametrize("seed", range(40))
def test_list_schedule_on_a_cpu_is_what_the_simulator_says(seed: int) -> None:
    """Copies that occupy their destination are paid once, by the first reader."""
    rng = random.Random(seed)
    edges = [(u, v) for v in range(14) for u in range(v) if rng.random() < 0.15]
    graph = graph_from_edges(14, edges)
    machine = cpu_machine(["cpu:0", "cpu:1"], cores=[0, 1])
    costs = random_costs(rng, graph, machine)
    problem = Problem(graph, machine, costs)
    decided = schedule("hios-lp-inter", graph, machine, costs)
    where = decided.placement_of()
    device = [int(where[problem.op(v)].device) for v in problem.nodes()]
    order = [problem.node_of[p.op] for p in decided.placements]
    times = list_schedule(problem, order, device)
    assert times.makespan_us == decided.notes["list_makespan_us"]
    assert makespan(graph, machine, costs, decided) == pytest.approx(times.makespan_us)
