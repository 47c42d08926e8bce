"""Layered random graphs: just the sizes and ranges asked for, the same everywhere."""

from dataclasses import replace

import networkx as nx
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from hios.errors import InvalidOption
from hios.random_graphs import LayeredGraphOptions, layered_graph


@given(
    seed=st.integers(0, 10**6),
    layers=st.integers(2, 9),
    more=st.integers(0, 40),
    dense=st.floats(0, 1),
)
@settings(max_examples=60, deadline=None)
def test_sizes_are_just_those_asked_for(seed: int, layers: int, more: int, dense: float) -> None:
    operators = layers + more
    edges = int(2 * operators + dense * operators)
    options = LayeredGraphOptions(operators, edges, layers)
    try:
        drawn = layered_graph(seed, options)
    except InvalidOption:
        # Too dense or too sparse for the shape drawn; what is refused is tested below.
        reject()
    drawn.graph.validate()
    graph = drawn.graph.to_networkx()
    assert (len(graph), graph.number_of_edges()) == (operators, edges)
    assert nx.dag_longest_path_length(graph) == layers - 1
    assert nx.is_weakly_connected(graph)
    if layers > 2:
        assert [v for v in graph if not graph.in_degree(v)] == [0]
        assert [v for v in graph if not graph.out_degree(v)] == [operators - 1]


def test_times_and_transfers_follow_the_papers_settings() -> None:
    drawn = layered_graph(0)
    assert (len(drawn.graph.operators), len(drawn.transfers_us)) == (200, 400)
    assert all(100.0 <= time <= 4000.0 for time in drawn.times_us)
    assert all(0.6 <= u <= 1.0 for u in drawn.utilization)
    assert sum(drawn.times_us) / 200 == pytest.approx(2050.0, rel=0.15)
    for tensor, transfer in zip(drawn.graph.tensors, drawn.transfers_us, strict=True):
        (reader,) = tensor.consumers
        assert transfer == max(100.0, 0.8 * drawn.times_us[reader])
    assert min(drawn.transfers_us) == 100.0


def test_the_same_seed_draws_the_same_graph_on_every_machine() -> None:
    once = layered_graph(3)
    assert layered_graph(3) == once
    assert layered_graph(4) != once
    # Pinned, so that figures measured on one machine can be repeated on another.
    assert [round(time, 6) for time in once.times_us[:2]] == [3277.726236, 903.351304]
    assert list(once.graph.edges())[100:103] == [(39, 61), (40, 49), (40, 57)]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"layers": 1}, "at least 2 layers"),
        ({"operators": 10}, "one operator in each"),
        ({"edges": -1}, "edges is -1"),
        ({"edges": 150}, "these need"),
        ({"edges": 10**6}, "too many"),
        ({"ratio": float("nan")}, "ratio is nan"),
        ({"least_time_us": -1.0}, "least_time_us is -1"),
        ({"most_time_us": 1.0}, "most_time_us is 1.0"),
        ({"least_utilization": 1.5}, "least_utilization is 1.5"),
    ],
)
def test_wrong_options_are_refused(change: dict[str, float], complaint: str) -> None:
    options = replace(LayeredGraphOptions(), **change)
    with pytest.raises(InvalidOption, match=complaint):
        layered_graph(0, options)
