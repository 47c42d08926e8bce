"""Cuts, blocks, width and longest paths, against brute force on small graphs."""

import itertools

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hios.errors import CyclicGraph
from hios.structure import (
    block_facts,
    blocks,
    cut_nodes,
    ios_transition_bound,
    largest_block,
    longest_path,
    width,
)

DIAMOND = nx.DiGraph([("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("d", "e")])


@st.composite
def random_dags(draw: st.DrawFn) -> "nx.DiGraph[int]":
    n = draw(st.integers(1, 8))
    pairs = list(itertools.combinations(range(n), 2))
    graph: nx.DiGraph[int] = nx.DiGraph()
    # Inserted backwards, so that insertion order is no topological order.
    graph.add_nodes_from(reversed(range(n)))
    if pairs:
        graph.add_edges_from(draw(st.lists(st.sampled_from(pairs), unique=True)))
    return graph


def all_paths(graph: "nx.DiGraph[int]") -> list[list[int]]:
    sources = [v for v in graph if graph.in_degree(v) == 0]
    sinks = [v for v in graph if graph.out_degree(v) == 0]
    found: list[list[int]] = [[v] for v in sources if v in sinks]
    for source, sink in itertools.product(sources, sinks):
        if source != sink:
            found.extend(nx.all_simple_paths(graph, source, sink))
    return found


@settings(max_examples=60, deadline=None)
@given(random_dags())
def test_cut_nodes_lie_on_every_path(graph: "nx.DiGraph[int]") -> None:
    paths = all_paths(graph)
    expected = {v for v in graph if all(v in path for path in paths)}
    found = cut_nodes(graph)
    assert set(found) == expected
    assert found == [v for v in nx.topological_sort(graph) if v in expected]


@settings(max_examples=60, deadline=None)
@given(random_dags())
def test_width_is_the_largest_antichain(graph: "nx.DiGraph[int]") -> None:
    closure = nx.transitive_closure_dag(graph)
    antichains = (
        size
        for size in range(len(graph), 0, -1)
        for chosen in itertools.combinations(graph, size)
        if not closure.subgraph(chosen).edges
    )
    assert width(graph) == next(antichains)


@settings(max_examples=60, deadline=None)
@given(random_dags())
def test_blocks_partition_and_follow_each_other(graph: "nx.DiGraph[int]") -> None:
    found = blocks(graph)
    assert sorted(v for block in found for v in block) == sorted(graph)
    place = {v: index for index, block in enumerate(found) for v in block}
    assert all(place[u] <= place[v] for u, v in graph.edges)
    ends = set(cut_nodes(graph))
    for block in found:
        assert not ends & set(block[:-1])


@settings(max_examples=60, deadline=None)
@given(random_dags(), st.lists(st.integers(0, 9), min_size=8, max_size=8))
def test_longest_path_beats_all_others(graph: "nx.DiGraph[int]", weights: list[int]) -> None:
    length, path = longest_path(graph, lambda v: float(weights[v]))
    assert length == max(sum(weights[v] for v in p) for p in all_paths(graph))
    assert length == sum(weights[v] for v in path)
    assert all(graph.has_edge(u, v) for u, v in itertools.pairwise(path))


def test_blocks_of_a_diamond_end_at_their_cut() -> None:
    assert blocks(DIAMOND)[0] == ["a"]
    assert sorted(blocks(DIAMOND)[1]) == ["b", "c", "d"]
    assert blocks(DIAMOND)[2] == ["e"]


def test_empty_graph_has_no_structure() -> None:
    empty: nx.DiGraph[int] = nx.DiGraph()
    assert (cut_nodes(empty), blocks(empty), width(empty)) == ([], [], 0)
    assert longest_path(empty) == (0.0, [])


@pytest.mark.parametrize("function", [cut_nodes, blocks, width, longest_path])
def test_a_cycle_is_named(function: object) -> None:
    assert callable(function)
    with pytest.raises(CyclicGraph, match=r"has a cycle: .*->"):
        function(nx.DiGraph([("a", "b"), ("b", "a")]))


@pytest.mark.parametrize(
    ("n", "d", "bound"),
    [(11, 6, 2.6e4), (33, 8, 3.7e9), (18, 8, 5.2e6), (6, 3, 2.2e2)],
    ids=["inception-v3", "randwire", "nasnet", "squeezenet"],
)
def test_bounds_of_the_ios_paper(n: int, d: int, bound: float) -> None:
    """IOS, MLSys 2021, table 1."""
    assert ios_transition_bound(n, d) == pytest.approx(bound, rel=0.03)


def test_largest_block_prefers_width_over_length() -> None:
    chain = nx.path_graph(30, create_using=nx.DiGraph)
    wide = nx.DiGraph([(29, "x"), (29, "y"), ("x", "z"), ("y", "z")])
    facts = largest_block(nx.compose(chain, wide))
    assert (facts.operators, facts.width) == (3, 2)
    assert block_facts(chain, [3, 4, 5]).width == 1
    assert largest_block(chain, [range(10), range(10, 30)]).operators == 20
