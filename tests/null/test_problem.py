"""The dense view: virtual ends, summed transfers, orders that respect every edge."""

import random
from dataclasses import replace

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hios.costs import TableCosts
from hios.errors import CyclicGraph, InvalidMachine
from hios.ir import Machine, Operator, OpGraph, Tensor
from hios.ir.presets import abstract_machine, preset
from hios.problem import Problem
from hios.testing import chain, machines, op_graphs, random_costs, uniform_costs


@given(op_graphs(), machines(), st.randoms(use_true_random=False))
def test_agrees_with_graph_and_costs(graph: OpGraph, machine: Machine, rng: random.Random) -> None:
    costs = random_costs(rng, graph, machine)
    problem = Problem(graph, machine, costs)
    assert [problem.op(v) for v in problem.operators()] == list(graph.topological_order())
    assert all(u < v for u, v in problem.edges)
    real = {
        (problem.op_of[u], problem.op_of[v]): tensors
        for (u, v), tensors in zip(problem.edges, problem.edge_tensors, strict=True)
        if problem.op_of[u] is not None and problem.op_of[v] is not None
    }
    assert real == graph.edges()
    for edge, tensors in enumerate(problem.edge_tensors):
        for src in range(problem.n_devices):
            for dst in range(problem.n_devices):
                expected = sum(costs.transfer_us(t, src, dst) for t in tensors)
                assert problem.transfer_us(edge, src, dst) == expected
    array = problem.time_array()
    for v in problem.operators():
        for d in range(problem.n_devices):
            assert array[v, d] == problem.time[v][d] == costs.operator_us(problem.op(v), d)


@given(op_graphs(), machines(), st.randoms(use_true_random=False))
def test_orders_and_ancestors(graph: OpGraph, machine: Machine, rng: random.Random) -> None:
    problem = Problem(graph, machine, random_costs(rng, graph, machine))
    place = {v: i for i, v in enumerate(problem.priority_order())}
    assert all(place[u] < place[v] for u, v in problem.edges)
    rank = problem.upward_rank()
    plain = problem.upward_rank(with_transfers=False)
    assert all(a >= b for a, b in zip(rank, plain, strict=True))
    nodes: nx.DiGraph[int] = nx.DiGraph()
    nodes.add_nodes_from(problem.nodes())
    nodes.add_edges_from(problem.edges)
    for v, mask in enumerate(problem.ancestors()):
        assert {u for u in problem.nodes() if mask >> u & 1} == nx.ancestors(nodes, v)


def test_inputs_and_outputs_become_pinned_nodes() -> None:
    graph, machine = chain(2), abstract_machine(2)
    problem = Problem(graph, machine, uniform_costs(graph, machine, 10.0, 1.0))
    assert (problem.source, problem.sink, problem.n_nodes) == (0, 3, 4)
    assert problem.pinned == [0, None, None, 0]
    assert problem.edges == [(0, 1), (1, 2), (2, 3)]
    # 0 + 1 + 10 + 1 + 10 + 1 + 0
    assert problem.upward_rank() == [23.0, 22.0, 11.0, 0.0]


def test_cycles_and_missing_links_are_named() -> None:
    graph = OpGraph(
        "ring",
        tuple(Operator(i, f"op{i}", "opaque", "", (1 - i,), (i,)) for i in range(2)),
        tuple(Tensor(i, f"t{i}", (1,), "float32", 4, i, (1 - i,)) for i in range(2)),
    )
    machine = abstract_machine(1)
    costs = TableCosts(graph, machine, [[1.0], [1.0]])
    with pytest.raises(CyclicGraph, match="op0 -> op1 -> op0"):
        Problem(graph, machine, costs)
    two = replace(preset("2xA40-NVLink"), links=())
    line = chain(2)
    with pytest.raises(InvalidMachine, match="no link from cuda:0 to cuda:1"):
        Problem(line, two, TableCosts(line, two, [[1.0, 1.0]] * 2))
