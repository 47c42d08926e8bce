"""Groups worth measuring: independent, distinct, in order, and the same for the same seed."""

import itertools
import random
from dataclasses import replace

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_model.candidates import (
    CandidateOptions,
    candidate_groups,
    identity_of,
    most_uncertain,
    take_turns,
)
from hios.errors import InvalidOption
from hios.ir import OpGraph
from hios.schedulers.endings import Endings, positions
from hios.testing import TOPOLOGIES, random_graph


def some_graph(seed, count):
    return random_graph(random.Random(seed), count)


def keyed(graph, kinds=None):
    """Return the graph with structural keys; operators i and i + kinds share one."""
    operators = tuple(
        replace(op, attrs={**op.attrs, "key": f"{op.id % kinds if kinds else op.id:016x}"})
        for op in graph.operators
    )
    return replace(graph, operators=operators)


def first(graph, count=400, seed=0, options=None):
    return list(itertools.islice(candidate_groups(graph, seed, options), count))


@settings(max_examples=20)
@given(st.integers(0, 30), st.integers(0, 2))
def test_groups_are_independent_chains_in_order_and_distinct(seed, kinds):
    graph = keyed(some_graph(seed, 24), kinds * 7 or None)
    options = CandidateOptions(patience=50)
    found = first(graph, 150, seed, options)
    assert found == first(graph, 150, seed, options)
    closure = nx.transitive_closure_dag(graph.to_networkx())
    rank = {op: i for i, op in enumerate(graph.topological_order())}
    for chains in found:
        assert 2 <= len(chains) <= options.s
        for chain in chains:
            assert 1 <= len(chain) <= options.r
            assert sorted(chain, key=rank.__getitem__) == list(chain)
            part = graph.to_networkx().subgraph(chain)
            assert nx.is_weakly_connected(part)
        for one, other in itertools.combinations(chains, 2):
            assert not any(
                a == b or closure.has_edge(a, b) or closure.has_edge(b, a)
                for a in one
                for b in other
            )
    identities = [identity_of(graph, chains) for chains in found]
    assert len(set(identities)) == len(identities)


def test_all_near_pairs_are_offered():
    graph = keyed(TOPOLOGIES["inception_block"]())
    closure = nx.transitive_closure_dag(graph.to_networkx())
    depth = {
        op: place
        for place, level in enumerate(nx.topological_generations(graph.to_networkx()))
        for op in level
    }
    expected = {
        frozenset((a, b))
        for a, b in itertools.combinations(depth, 2)
        if not closure.has_edge(a, b)
        and not closure.has_edge(b, a)
        and abs(depth[a] - depth[b]) <= 2
    }
    found = first(graph, 10_000, options=CandidateOptions(distance=2))
    pairs = [c for c in found if len(c) == 2 and all(len(chain) == 1 for chain in c)]
    assert {frozenset(op for chain in pair for op in chain) for pair in pairs} == expected
    gaps = [abs(depth[pair[0][0]] - depth[pair[1][0]]) for pair in pairs]
    assert gaps == sorted(gaps)


def test_larger_groups_are_endings_that_ios_tries():
    graph = keyed(TOPOLOGIES["inception_block"]())
    order = graph.topological_order()
    place = {op: i for i, op in enumerate(order)}
    succs = [[] for _ in order]
    for before, after in graph.edges():
        succs[place[before]].append(place[after])
    endings = Endings(succs, 3, 4)
    possible = set()
    states = {endings.full}
    seen = set()
    while states:
        state = states.pop()
        seen.add(state)
        for ending in endings.of(state):
            possible.add(ending)
            if (left := state & ~ending) and left not in seen:
                states.add(left)
    larger = [c for c in first(graph, 2_000) if sum(map(len, c)) > 2]
    assert larger
    for chains in larger:
        mask = sum(1 << place[op] for chain in chains for op in chain)
        assert mask in possible
        groups = {frozenset(positions(group)) for group in endings.groups(mask)}
        assert groups == {frozenset(place[op] for op in chain) for chain in chains}


def test_both_kinds_take_turns():
    graph = keyed(some_graph(3, 40))
    sizes = [sum(map(len, chains)) for chains in first(graph, 40)]
    assert 15 <= sum(size == 2 for size in sizes) <= 25


def test_a_chain_offers_nothing():
    assert first(keyed(TOPOLOGIES["chain"]())) == []


def test_operators_without_a_key_are_left_out():
    graph = some_graph(1, 20)
    bare = replace(graph, operators=tuple(replace(op, attrs={}) for op in graph.operators))
    assert first(bare) == []
    assert list(candidate_groups(OpGraph("empty", (), ()))) == []


def test_models_take_turns_and_share_what_they_have_in_common():
    graphs = [keyed(some_graph(seed, 12), 6) for seed in (1, 2)]
    offers = [[(identity_of(graph, chains), chains) for chains in first(graph)] for graph in graphs]
    merged = list(take_turns(offers))
    assert [number for number, _ in merged[:4]] == [0, 1, 0, 1]
    identities = [identity_of(graphs[number], chains) for number, chains in merged]
    assert len(identities) == len(set(identities))
    assert set(identities) == {identity for offer in offers for identity, _ in offer}


def test_the_most_uncertain_come_first():
    groups = first(keyed(some_graph(5, 30)), 50)
    chosen = most_uncertain(iter(groups), lambda some: [sum(c[0]) for c in some], 30, 5)
    assert chosen == sorted(groups[:30], key=lambda c: (-sum(c[0]), groups.index(c)))[:5]
    assert most_uncertain([], lambda some: [], 10, 5) == []


def test_options_are_checked():
    with pytest.raises(InvalidOption, match="s ≥ 2"):
        candidate_groups(keyed(TOPOLOGIES["chain"]()), options=CandidateOptions(s=1))
