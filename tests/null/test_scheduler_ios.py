"""IOS: complete endings, the optimum of small graphs, the published counts, merges, big blocks."""

import random
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hios.costs import TableCosts
from hios.errors import InvalidOption, UnknownDevice
from hios.graph_file import read_graph_file
from hios.ir import Alternative, OpGraph, OpId
from hios.ir.ids import DeviceId
from hios.ir.presets import abstract_machine
from hios.schedulers import schedule
from hios.schedulers.blocks import blocks, crossing, halves
from hios.schedulers.endings import Endings, n_states
from hios.schedulers.ios import search_part
from hios.simulator import makespan
from hios.structure import cut_nodes
from hios.testing import graph_from_edges, uniform_costs

BLOCKS = Path(__file__).parents[1] / "data" / "blocks"

# Squeeze, expand 1×1, expand 3×3, their concatenation, the bypass, the sum.
SQUEEZENET = [[1, 2], [3], [3], [5], [5], []]


def random_edges(rng: random.Random, n: int) -> list[tuple[int, int]]:
    density = rng.random()
    return [(u, v) for v in range(n) for u in range(v) if rng.random() < density]


def successors(n: int, edges: list[tuple[int, int]]) -> list[list[int]]:
    return [[v for u, v in edges if u == w] for w in range(n)]


def random_problem(seed: int) -> tuple[OpGraph, TableCosts, list[tuple[int, int]]]:
    rng = random.Random(seed)
    n = rng.randint(1, 8)
    edges = random_edges(rng, n)
    graph = graph_from_edges(n, edges)
    machine = abstract_machine(1, streams=rng.choice([2, 3, 8]))
    times = [(float(rng.randint(0, 20)),) for _ in range(n)]
    utilization = [rng.randint(0, 8) / 8 for _ in range(n)]
    return graph, TableCosts(graph, machine, times, utilization=utilization), edges


def components(members: tuple[int, ...], edges: list[tuple[int, int]]) -> list[list[int]]:
    found: list[set[int]] = []
    for v in members:
        near = {v} | {u for e in edges if v in e for u in e if u in members}
        touched = [group for group in found if group & near]
        found = [g for g in found if g not in touched] + [near.union(*touched)]
    return [sorted(group) for group in found]


def brute_force_us(
    n: int, edges: list[tuple[int, int]], costs: TableCosts, r: int, s: int
) -> float:
    """Try every ordered partition into stages: any subset whose outside readers come later."""
    succ = successors(n, edges)

    @cache
    def stage_us(members: tuple[int, ...]) -> float | None:
        groups = components(members, edges)
        if len(groups) > s or any(len(group) > r for group in groups):
            return None
        return costs.stage_us([[OpId(v) for v in g] for g in groups], DeviceId(0))

    @cache
    def best(left: frozenset[int]) -> float:
        """Time of the operators in `left`, which run first."""
        if not left:
            return 0.0
        ordered = sorted(left)
        found = []
        for mask in range(1, 1 << len(ordered)):
            last = tuple(v for i, v in enumerate(ordered) if mask >> i & 1)
            if any(w in left and w not in last for v in last for w in succ[v]):
                continue
            time = stage_us(last)
            if time is not None:
                found.append(best(left - set(last)) + time)
        return min(found)

    return best(frozenset(range(n)))


@given(seed=st.integers(0, 10**6), r=st.integers(1, 8), s=st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_ios_finds_the_optimum_of_small_graphs(seed: int, r: int, s: int) -> None:
    graph, costs, edges = random_problem(seed)
    decided = schedule("ios", graph, costs.machine, costs, r=r, s=s)
    s = min(s, costs.machine.devices[0].streams)
    expected = brute_force_us(len(graph.operators), edges, costs, r, s)
    assert makespan(graph, costs.machine, costs, decided) == pytest.approx(expected, abs=1e-9)
    assert decided.notes["cut_blocks"] == 0


def all_endings(succ: list[list[int]], state: int) -> set[int]:
    def is_closed(part: int) -> bool:
        return all(
            not (state >> w & 1) or part >> w & 1
            for v, after in enumerate(succ)
            if part >> v & 1
            for w in after
        )

    found, part = set(), state
    while part:
        if is_closed(part):
            found.add(part)
        part = (part - 1) & state
    return found


@given(seed=st.integers(0, 10**6), r=st.integers(1, 8), s=st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_no_ending_is_missed_and_none_comes_twice(seed: int, r: int, s: int) -> None:
    rng = random.Random(seed)
    n = rng.randint(1, 8)
    edges = random_edges(rng, n)
    succ = successors(n, edges)
    endings = Endings(succ, r, s)
    states, level = 0, {endings.full}
    while level:
        below = set()
        for state in level:
            states += 1
            found = endings.of(state)
            assert len(set(found)) == len(found)
            expected = set()
            for ending in all_endings(succ, state):
                assert endings.is_ending(ending, state)
                groups = components(tuple(v for v in range(n) if ending >> v & 1), edges)
                if len(groups) <= s and all(len(group) <= r for group in groups):
                    expected.add(ending)
            assert set(found) == expected
            below |= {state ^ ending for ending in found}
        level = below - {0}
        # Levels mix sizes here; a state may come again, which only costs time.
        if states > 400:
            break


def count_paths(succ: list[list[int]], endings_of) -> tuple[int, int]:  # type: ignore[no-untyped-def]
    """Return the pairs (state, ending) and the schedules of a block."""
    full = (1 << len(succ)) - 1
    ways = {full: 1}
    pairs = schedules = 0
    for state in range(full, 0, -1):
        if state in ways:
            for ending in endings_of(state):
                pairs += 1
                left = state ^ ending
                if left:
                    ways[left] = ways.get(left, 0) + ways[state]
                else:
                    schedules += ways[state]
    return pairs, schedules


def cone_endings(succ: list[list[int]], state: int) -> set[int]:
    """Return unions of disjoint descendant cones: the endings of the published enumerator."""

    def cone(head: int) -> int:
        members, border = 1 << head, [head]
        for v in border:
            for w in succ[v]:
                if state >> w & 1 and not members >> w & 1:
                    members |= 1 << w
                    border.append(w)
        return members

    cones = sorted({cone(v) for v in range(len(succ)) if state >> v & 1})
    found = set(cones)
    level = set(cones)
    while level:
        level = {u | c for u in level for c in cones if not u & c} - found
        found |= level
    return found


def test_squeezenets_block_has_the_published_counts() -> None:
    endings = Endings(SQUEEZENET, 6, 6)
    assert count_paths(SQUEEZENET, endings.of) == (60, 152)
    assert count_paths(SQUEEZENET, lambda state: cone_endings(SQUEEZENET, state)) == (51, 131)


def test_the_counts_of_a_search_are_reported() -> None:
    file = read_graph_file(BLOCKS / "squeezenet_bypass.json")
    machine = abstract_machine(1, streams=8)
    decided = schedule("ios", file.graph, machine, file.costs(machine), r=6, s=6)
    assert decided.notes["pairs"] == 60
    # One of the 13 states is the empty one.
    assert decided.notes["states"] == 12
    # Every ending is a different stage but those that several states share.
    assert decided.notes["evaluations"] == 37


@pytest.mark.parametrize(
    ("name", "states", "pairs"), [("nasnet_large", 2128, 232144), ("randwire_large", 4894, 616133)]
)
def test_the_biggest_published_blocks_are_solved_whole(name: str, states: int, pairs: int) -> None:
    file = read_graph_file(BLOCKS / f"{name}.json")
    machine = abstract_machine(1, streams=8)
    costs = file.costs(machine)
    decided = schedule("ios", file.graph, machine, costs, r=3, s=8)
    assert decided.notes["cut_blocks"] == 0
    assert (decided.notes["states"], decided.notes["pairs"]) == (states, pairs)
    pruned = schedule("ios", file.graph, machine, costs, r=1, s=3)
    best, less = (makespan(file.graph, machine, costs, one) for one in (decided, pruned))
    assert best <= less < sum(file.times_us)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_blocks_end_at_the_operators_on_every_path(seed: int) -> None:
    rng = random.Random(seed)
    n = rng.randint(1, 14)
    edges = [(u, v) for v in range(n) for u in range(max(0, v - 4), v) if rng.random() < 0.4]
    graph = graph_from_edges(n, edges)
    preds = [sorted(u for u, w in edges if w == v) for v in range(n)]
    found = blocks(preds)
    assert [v for block in found for v in block] == list(range(n))
    cuts = set(cut_nodes(graph.to_networkx()))
    ends = {block[-1] for block in found}
    assert cuts <= ends <= cuts | {n - 1}


@given(seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_halves_cut_where_the_fewest_values_cross(seed: int) -> None:
    rng = random.Random(seed)
    n = rng.randint(2, 24)
    edges = random_edges(rng, n)
    preds = [sorted(u for u, w in edges if w == v) for v in range(n)]
    part = range(n)
    first, second = halves(preds, part)
    assert (first.start, first.stop, second.stop) == (0, second.start, n)
    assert first
    assert second
    counts = [len({u for u, v in edges if u <= cut < v}) for cut in range(n)]
    assert crossing(preds, part) == counts
    middle = counts[max(0, n // 4 - 1) : max(1, n - n // 4 - 1)]
    assert counts[len(first) - 1] == min(middle)


def test_states_are_counted_up_to_a_limit() -> None:
    independent: list[list[int]] = [[] for _ in range(10)]
    assert n_states(independent, 2000) == 1024
    assert n_states(independent, 1000) == 1001
    assert n_states([], 5) == 1


def test_a_block_too_wide_is_cut_and_the_notes_say_so() -> None:
    graph = graph_from_edges(40, [])
    machine = abstract_machine(1, streams=4)
    costs = uniform_costs(graph, machine, utilization=0.25)
    decided = schedule("ios", graph, machine, costs, max_states=400)
    assert decided.notes["cut_blocks"] > 0
    found = makespan(graph, machine, costs, decided)
    four_at_once = costs.stage_us([[OpId(v)] for v in range(4)], DeviceId(0))
    assert 10 * four_at_once <= found < 40 * 10.0
    # With more room to search it gets no worse; half of the operators' states are enough here.
    wider = schedule("ios", graph, machine, costs, max_states=20_000)
    assert 10 * four_at_once <= makespan(graph, machine, costs, wider) <= found


def merge_problem(time_us: float | None) -> tuple[OpGraph, TableCosts]:
    """Return two convolutions of one input between a head and a tail, and their merge."""
    plain = graph_from_edges(4, [(0, 1), (0, 2), (1, 3), (2, 3)])
    attrs = {} if time_us is None else {"time_us": time_us}
    offer = Alternative("both", (OpId(1), OpId(2)), "merge", "merged_kernel", attrs)
    graph = OpGraph(plain.name, plain.operators, plain.tensors, alternatives=(offer,))
    machine = abstract_machine(1, streams=2)
    times = [(10.0,), (10.0,), (10.0,), (10.0,)]
    return graph, TableCosts(graph, machine, times, utilization=[0.5] * 4)


@pytest.mark.parametrize("name", ["ios", "autograph"])
@pytest.mark.parametrize(
    ("merged_us", "is_chosen", "expected_us"),
    [
        (14.0, True, 34.0),  # cheaper than side by side (15) and than one by one (20)
        (16.0, False, 35.0),
        (None, False, 35.0),  # nobody knows its time
    ],
)
def test_merges_are_chosen_by_cost(
    name: str, merged_us: float | None, is_chosen: bool, expected_us: float
) -> None:
    graph, costs = merge_problem(merged_us)
    decided = schedule(name, graph, costs.machine, costs)
    assert decided.alternatives == (("both",) if is_chosen else ())
    assert makespan(graph, costs.machine, costs, decided) == pytest.approx(expected_us)
    without = schedule(name, graph, costs.machine, costs, merge=False)
    assert without.alternatives == ()
    assert makespan(graph, costs.machine, costs, without) == pytest.approx(35.0)


def test_a_merge_of_more_operators_than_streams_needs_one_stream() -> None:
    graph, costs = merge_problem(12.0)
    machine = costs.machine.with_streams(1)
    decided = schedule("ios", graph, machine, costs)
    assert decided.alternatives == ("both",)
    stages = decided.stages()[DeviceId(0)]
    assert stages[1] == ((OpId(1), OpId(2)),)


def test_stages_are_asked_for_in_batches_and_once_each() -> None:
    batches: list[list[frozenset[tuple[int, ...]]]] = []

    class Counting(TableCosts):
        def stage_us_many(self, stages, device):  # type: ignore[no-untyped-def]
            batches.append([frozenset(tuple(group) for group in stage) for stage in stages])
            return [self.stage_us(stage, device) for stage in stages]

    graph, table, _ = random_problem(5)
    costs = Counting(graph, table.machine, table.times_us, utilization=table.utilization)
    found = search_part(
        successors(len(graph.operators), sorted(graph.edges())),
        [op.id for op in graph.operators],
        costs,
        DeviceId(0),
        8,
        8,
    )
    asked = [stage for batch in batches for stage in batch]
    assert len(asked) == len(set(asked)) == found.stages_evaluated
    assert len(batches) <= len(graph.operators) + 1


@pytest.mark.parametrize("option", ["r", "s", "max_states"])
def test_options_below_one_are_refused(option: str) -> None:
    graph, costs, _ = random_problem(1)
    with pytest.raises(InvalidOption, match=f"option {option} is 0; need at least 1"):
        schedule("ios", graph, costs.machine, costs, **{option: 0})


def test_an_unknown_device_is_refused() -> None:
    graph, costs, _ = random_problem(1)
    with pytest.raises(UnknownDevice, match="no device 1"):
        schedule("ios", graph, costs.machine, costs, device=1)
