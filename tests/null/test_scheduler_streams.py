"""The stream schedulers: LIOS, Graphi, Opara, wavefront, AutoGraph; union and multi-tenant."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hios.costs import TableCosts
from hios.errors import InvalidGraph, InvalidOption, UnknownDevice
from hios.ir import OpGraph, OpId, Schedule
from hios.ir.ids import DeviceId
from hios.ir.presets import abstract_machine
from hios.ir.union import union
from hios.ir.validation import validate_schedule
from hios.schedulers import schedule
from hios.schedulers.dag import op_dag
from hios.schedulers.wavefront import waves
from hios.simulator import makespan
from hios.testing import chain, fan_out, graph_from_edges, inception_block, op_graphs, uniform_costs

SINGLE_DEVICE = (
    "autograph", "graphi", "ios", "lios", "multi-tenant", "nimble", "opara", "wavefront"
)  # fmt: skip


def problem(
    edges: list[tuple[int, int]], times: list[float], streams: int, utilization: float = 0.0
) -> tuple[OpGraph, TableCosts]:
    graph = graph_from_edges(len(times), edges)
    machine = abstract_machine(1, streams=streams)
    costs = TableCosts(
        graph, machine, [(time,) for time in times], utilization=[utilization] * len(times)
    )
    return graph, costs


def run(name: str, graph: OpGraph, costs: TableCosts, **options: object) -> Schedule:
    return schedule(name, graph, costs.machine, costs, **options)


def streams(decided: Schedule) -> list[list[int]]:
    return [list(map(int, ops)) for ops in decided.stream_orders().values()]


@pytest.mark.parametrize("name", SINGLE_DEVICE)
def test_everything_runs_on_the_device_asked_for(name: str) -> None:
    graph = inception_block()
    machine = abstract_machine(3, streams=2)
    costs = uniform_costs(graph, machine)
    assert schedule(name, graph, machine, costs).devices_used() == (DeviceId(0),)
    assert schedule(name, graph, machine, costs, device=2).devices_used() == (DeviceId(2),)
    with pytest.raises(UnknownDevice, match="no device 3"):
        schedule(name, graph, machine, costs, device=3)


def test_lios_takes_the_highest_rank_first_and_the_stream_that_finishes_first() -> None:
    # Ranks: 0 → 9, 1 → 8, 2 → 3, 3 → 7, 4 → 2; two streams.
    edges = [(0, 3), (1, 3), (2, 4)]
    graph, costs = problem(edges, [2.0, 1.0, 1.0, 7.0, 2.0], streams=2)
    assert streams(run("lios", graph, costs)) == [[0, 3], [1, 2, 4]]


def test_lios_pays_for_synchronisation() -> None:
    # A fork: beside the long branch, the short one is worth a stream only below the sync cost.
    edges = [(0, 1), (0, 2)]
    graph, costs = problem(edges, [1.0, 4.0, 3.0], streams=2)
    assert streams(run("lios", graph, costs)) == [[0, 1], [2]]
    assert streams(run("lios", graph, costs, sync_us=3.5)) == [[0, 1], [2]]
    assert streams(run("lios", graph, costs, sync_us=4.5)) == [[0, 1, 2]]
    with pytest.raises(InvalidOption, match="sync_us is -1"):
        run("lios", graph, costs, sync_us=-1.0)


def test_graphi_gives_a_free_stream_the_longest_path() -> None:
    # 0 and 1 start; at 2 the stream of 0 is free and takes 3 (path 9), not 2 (path 1).
    edges = [(3, 4)]
    graph, costs = problem(edges, [10.0, 10.0, 1.0, 3.0, 6.0], streams=2)
    decided = run("graphi", graph, costs)
    assert [int(p.op) for p in decided.placements] == [0, 1, 3, 2, 4]
    assert decided.notes["list_makespan_us"] == 19.0


@given(graph=op_graphs(10), n_streams=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_graphi_is_never_idle_beside_a_ready_operator(
    graph: OpGraph, n_streams: int, seed: int
) -> None:
    """Graham's bound for any greedy list schedule: work / m + (1 − 1 / m) · critical path."""
    rng = random.Random(seed)
    machine = abstract_machine(1, streams=n_streams)
    times = [(float(rng.randint(0, 9)),) for _ in graph.operators]
    costs = TableCosts(graph, machine, times)
    decided = run("graphi", graph, costs)
    work = sum(row[0] for row in times)
    dag = op_dag(graph)
    path = max(dag.longest_to_exit(dag.times_us(costs, DeviceId(0))), default=0.0)
    bound = work / n_streams + (1.0 - 1.0 / n_streams) * path
    assert max(path, work / n_streams) <= decided.notes["list_makespan_us"] + 1e-9
    assert decided.notes["list_makespan_us"] <= bound + 1e-9


def test_opara_continues_the_stream_of_the_first_unclaimed_predecessor() -> None:
    # 1 takes the stream of 0, so 2 opens one; 3 joins 1's; 4 finds 2's unclaimed.
    edges = [(0, 1), (0, 2), (1, 3), (2, 3), (2, 4)]
    graph, costs = problem(edges, [1.0] * 5, streams=4)
    decided = run("opara", graph, costs)
    assert streams(decided) == [[0, 1, 3], [2, 4]]
    assert decided.notes == {"chains": 2, "streams": 2}


def test_opara_alternates_memory_and_compute_bound_launches_the_least_hungry_first() -> None:
    graph, costs = problem([], [1.0] * 6, streams=6)
    # 0 – 2 are compute-bound (much work a byte), 3 – 5 memory-bound; threads differ.
    flops = [1e6, 1e6, 1e6, 1e2, 1e2, 1e2]
    grid = [30, 10, 20, 6, 5, 4]
    operators = tuple(
        replace(op, flops=f, bytes_read=1000, launch={"grid": g, "block": 128})
        for op, f, g in zip(graph.operators, flops, grid, strict=True)
    )
    graph = replace(graph, operators=operators)
    device = replace(costs.machine.devices[0], peak_gflops=1000.0, bandwidth_gb_s=100.0)
    machine = replace(costs.machine, devices=(device,))
    decided = schedule("opara", graph, machine, costs)
    assert [int(p.op) for p in decided.placements] == [5, 1, 4, 2, 3, 0]


def test_wavefront_runs_chains_until_they_fork_or_join() -> None:
    dag = op_dag(graph_from_edges(8, [(0, 1), (1, 2), (1, 3), (2, 4), (3, 5), (5, 6), (4, 7),
                                      (6, 7)]))  # fmt: skip
    assert waves(dag) == [[[0, 1]], [[2, 4], [3, 5, 6]], [[7]]]


def test_wavefront_packs_a_wide_wave_evenly() -> None:
    graph, costs = problem([], [5.0, 4.0, 3.0, 3.0, 3.0], streams=2)
    decided = run("wavefront", graph, costs)
    loads = sorted(sum(costs.times_us[op][0] for op in ops) for ops in streams(decided))
    assert loads == [8.0, 10.0]


@given(graph=op_graphs(12), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_autograph_is_never_slower_than_one_after_another(graph: OpGraph, seed: int) -> None:
    rng = random.Random(seed)
    machine = abstract_machine(1, streams=3)
    times = [(float(rng.randint(0, 9)),) for _ in graph.operators]
    utilization = [rng.randint(0, 8) / 8 for _ in graph.operators]
    costs = TableCosts(graph, machine, times, utilization=utilization)
    decided = run("autograph", graph, costs, part=rng.choice([3, 12]))
    ideal = run("ios", graph, costs, r=12, s=3)
    found = makespan(graph, machine, costs, decided)
    assert found <= sum(row[0] for row in times) + 1e-9
    assert makespan(graph, machine, costs, ideal) <= found + 1e-9


@pytest.mark.parametrize("option", ["part", "beta", "keep", "max_candidates"])
def test_autograph_refuses_options_out_of_range(option: str) -> None:
    graph, costs = problem([], [1.0], streams=1)
    with pytest.raises(InvalidOption, match=f"option {option} is 0"):
        run("autograph", graph, costs, **{option: 0})


def test_a_union_keeps_every_graph_as_it_was() -> None:
    first, second = chain(3), fan_out(2)
    both = union([first, second, first])
    both.graph.validate()
    assert both.first_op == (0, 3, 6)
    assert len(both.graph.inputs) == 3
    edges = set(both.graph.edges())
    for begin, part in zip(both.first_op, (first, second, first), strict=True):
        assert {(u + begin, v + begin) for u, v in part.edges()} <= edges
    assert len(edges) == 2 * len(first.edges()) + len(second.edges())
    assert [op.attrs["model"] for op in both.graph.operators] == [0] * 3 + [1] * 3 + [2] * 3
    with pytest.raises(InvalidGraph, match="at least one graph"):
        union([])


def tenants(n_models: int, seed: int, n_streams: int = 8) -> tuple[OpGraph, TableCosts]:
    rng = random.Random(seed)
    graph = union([chain(rng.randint(1, 6)) for _ in range(n_models)]).graph
    machine = abstract_machine(1, streams=n_streams)
    times = [(float(rng.randint(0, 9)),) for _ in graph.operators]
    utilization = [rng.randint(0, 8) / 8 for _ in graph.operators]
    return graph, TableCosts(graph, machine, times, utilization=utilization)


@given(n_models=st.integers(1, 4), seed=st.integers(0, 10**4), n_streams=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_tenants_share_stages_and_are_never_slower_than_in_turn(
    n_models: int, seed: int, n_streams: int
) -> None:
    graph, costs = tenants(n_models, seed, n_streams)
    decided = run("multi-tenant", graph, costs)
    validate_schedule(graph, costs.machine, decided)
    assert decided.notes["models"] == n_models
    assert decided.notes["tenants"] == min(n_models, n_streams)
    in_turn = sum(row[0] for row in costs.times_us)
    assert makespan(graph, costs.machine, costs, decided) <= in_turn + 1e-9
    if n_models <= n_streams:
        model_of = [op.attrs["model"] for op in graph.operators]
        for groups in decided.stages().get(DeviceId(0), ()):
            assert all(len({model_of[op] for op in group}) == 1 for group in groups)


def best_pointers_us(costs: TableCosts, first: int, second: int) -> float:
    """Try all ways to run two chains of `first` and `second` operators in common stages."""
    best = {(0, 0): 0.0}
    for a in range(first + 1):
        for b in range(second + 1):
            found = [best.get((a, b), float("inf"))]
            for i in range(a + 1):
                for j in range(b + 1):
                    if (i, j) != (a, b):
                        groups = [range(i, a), range(first + j, first + b)]
                        stage = [[OpId(v) for v in group] for group in groups if group]
                        found.append(best[i, j] + costs.stage_us(stage, DeviceId(0)))
            best[a, b] = min(found)
    return best[first, second]


@given(seed=st.integers(0, 10**4))
@settings(max_examples=30, deadline=None)
def test_two_tenants_come_close_to_the_best_pointers(seed: int) -> None:
    rng = random.Random(seed)
    lengths = [rng.randint(1, 5), rng.randint(1, 5)]
    graph = union([chain(length) for length in lengths]).graph
    machine = abstract_machine(1, streams=2)
    times = [(float(rng.randint(1, 9)),) for _ in graph.operators]
    utilization = [rng.randint(0, 8) / 8 for _ in graph.operators]
    costs = TableCosts(graph, machine, times, utilization=utilization)
    decided = run("multi-tenant", graph, costs, restarts=4)
    best = best_pointers_us(costs, *lengths)
    found = makespan(graph, machine, costs, decided)
    assert best - 1e-9 <= found <= 1.1 * best


def test_models_without_marks_are_the_connected_components() -> None:
    graph = graph_from_edges(6, [(0, 2), (2, 4), (1, 3), (3, 5)])
    machine = abstract_machine(1, streams=2)
    costs = uniform_costs(graph, machine, utilization=0.0)
    decided = run("multi-tenant", graph, costs)
    assert decided.notes["models"] == 2
    assert makespan(graph, machine, costs, decided) == pytest.approx(
        costs.stage_us([[OpId(0), OpId(2), OpId(4)], [OpId(1), OpId(3), OpId(5)]], DeviceId(0))
    )


def test_a_budget_truncates_and_the_notes_say_so() -> None:
    graph, costs = tenants(3, 1)
    assert run("multi-tenant", graph, costs).notes["truncated"] == 0
    short = run("multi-tenant", graph, costs, max_evaluations=20)
    assert short.notes["truncated"] == 1
    assert makespan(graph, costs.machine, costs, short) <= sum(row[0] for row in costs.times_us)


def test_another_seed_may_change_the_schedule_but_the_same_never_does() -> None:
    graph, costs = tenants(4, 7)
    once = run("multi-tenant", graph, costs, seed=3)
    assert run("multi-tenant", graph, costs, seed=3).to_json() == once.to_json()
