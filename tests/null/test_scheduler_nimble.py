"""Nimble: minimum equivalent graph, maximum matching, chains that never hold independents."""

import random
from itertools import combinations, pairwise, permutations

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hios.ir.ids import DeviceId
from hios.ir.presets import abstract_machine
from hios.schedulers import schedule
from hios.schedulers.dag import op_dag
from hios.schedulers.matching import chains_of_matching, maximum_matching
from hios.schedulers.nimble import assign_streams
from hios.testing import graph_from_edges, uniform_costs


def random_edges(seed: int, most: int) -> tuple[int, list[tuple[int, int]]]:
    rng = random.Random(seed)
    n = rng.randint(1, most)
    density = rng.random()
    return n, [(u, v) for v in range(n) for u in range(v) if rng.random() < density]


def partitions(items: list[int]):  # type: ignore[no-untyped-def]
    """Yield all partitions of a list into blocks."""
    if not items:
        yield []
        return
    head, *rest = items
    for partition in partitions(rest):
        yield [[head], *partition]
        for i in range(len(partition)):
            yield [*partition[:i], [head, *partition[i]], *partition[i + 1 :]]


def least_syncs(kept: set[tuple[int, int]], closure: set[tuple[int, int]], n: int) -> int:
    """Try all stream assignments without independents on one stream.

    A kept edge needs no synchronisation when it joins neighbours on one stream.
    """
    best = len(kept)
    for partition in partitions(list(range(n))):
        if any(pair not in closure for block in partition for pair in combinations(block, 2)):
            continue
        neighbours = {pair for block in partition for pair in pairwise(block)}
        best = min(best, len(kept - neighbours))
    return best


@given(seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_streams_and_syncs_against_brute_force(seed: int) -> None:
    n, edges = random_edges(seed, 7)
    graph = graph_from_edges(n, edges)
    whole = graph.to_networkx()
    reduced = set(nx.transitive_reduction(whole).edges)
    closure = set(nx.transitive_closure_dag(whole).edges)

    found = assign_streams(op_dag(graph))
    assert set(found.kept) == reduced
    stream_of = {v: i for i, chain in enumerate(found.chains) for v in chain}
    assert sorted(stream_of) == list(range(n))
    for u, v in combinations(range(n), 2):
        if (u, v) not in closure:
            assert stream_of[u] != stream_of[v]
    joined = {pair for chain in found.chains for pair in pairwise(chain)}
    assert joined <= reduced
    assert found.syncs == len(reduced) - len(joined) == least_syncs(reduced, closure, n)


@given(seed=st.integers(0, 10**6), n_streams=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_folding_keeps_independents_apart_while_it_can(seed: int, n_streams: int) -> None:
    n, edges = random_edges(seed, 10)
    graph = graph_from_edges(n, edges)
    closure = set(nx.transitive_closure_dag(graph.to_networkx()).edges)
    machine = abstract_machine(1, streams=n_streams)
    decided = schedule("nimble", graph, machine, uniform_costs(graph, machine))
    stream_of = {p.op: p.stream for p in decided.placements}
    shares = any(
        stream_of[u] == stream_of[v] and (u, v) not in closure and (v, u) not in closure
        for u, v in combinations(range(n), 2)
    )
    width = max(
        size
        for size in range(1, n + 1)
        if any(
            all((u, v) not in closure for u, v in combinations(some, 2))
            for some in combinations(range(n), size)
        )
    )
    folded = decided.notes["folded"]
    assert (folded == 0) == (decided.notes["chains"] <= n_streams)
    if folded < 2:
        assert not shares
    else:
        assert shares
    # Too few streams are the only reason: chains joined by matching are as few as the width.
    if width <= n_streams and decided.notes["chains"] > n_streams:
        assert folded in (1, 2)


@given(
    neighbours=st.lists(st.sets(st.integers(0, 7), max_size=5), min_size=1, max_size=8),
)
@settings(max_examples=100, deadline=None)
def test_matching_is_as_large_as_that_of_networkx(neighbours: list[set[int]]) -> None:
    ordered = [sorted(some) for some in neighbours]
    partner = maximum_matching(ordered, 8)
    matched = [v for v in partner if v >= 0]
    assert len(matched) == len(set(matched))
    assert all(v < 0 or v in some for v, some in zip(partner, ordered, strict=True))
    pairs = nx.Graph()
    left = [("left", u) for u in range(len(ordered))]
    pairs.add_nodes_from(left)
    pairs.add_edges_from(
        (("left", u), ("right", v)) for u, some in enumerate(ordered) for v in some
    )
    expected = nx.bipartite.hopcroft_karp_matching(pairs, top_nodes=left)
    assert len(matched) == len(expected) // 2


def test_matching_follows_very_long_augmenting_paths() -> None:
    # Greedy choices match left i with right i; the last left vertex has only right 0.
    n = 5000
    neighbours = [[i, i + 1] for i in range(n)] + [[0]]
    partner = maximum_matching(neighbours, n + 1)
    assert sorted(partner) == list(range(n + 1))


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_chains_follow_partners(order: tuple[int, ...]) -> None:
    first, second, third = order
    partner = [-1] * 3
    partner[first], partner[second] = second, third
    assert chains_of_matching(partner) == [[first, second, third]]


def test_an_inception_like_fork_needs_one_sync_for_each_extra_branch() -> None:
    graph = graph_from_edges(6, [(0, 1), (0, 2), (0, 3), (1, 5), (2, 4), (4, 5), (3, 5), (0, 5)])
    machine = abstract_machine(1, streams=8)
    decided = schedule("nimble", graph, machine, uniform_costs(graph, machine))
    # The edge 0 → 5 is implied; of the other seven, two branches fork and join by events.
    assert decided.notes == {
        "chains": 3,
        "syncs": 4,
        "kept_edges": 7,
        "streams": 3,
        "folded": 0,
    }
    assert {p.device for p in decided.placements} == {DeviceId(0)}
