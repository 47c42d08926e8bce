"""The simulator against hand-computed times, against its rules, and against a second opinion."""

import math
import random
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_simulator import reference_makespan

from hios.costs import TableCosts
from hios.ir import LinkOrder, Placement, Schedule, Timeline, TimelineEvent
from hios.ir.presets import abstract_machine, cpu_machine, preset
from hios.simulator import complete_links, makespan, simulate
from hios.simulator.sharing import Sharing
from hios.testing import (
    Case,
    cases,
    diamond,
    fan_out,
    graph_from_edges,
    random_costs,
    random_graph,
    random_machine,
    random_schedule,
)


@settings(max_examples=300)
@given(cases())
def test_agrees_with_the_reference(case: Case) -> None:
    expected = reference_makespan(case.graph, case.machine, case.costs, case.schedule)
    found = makespan(case.graph, case.machine, case.costs, case.schedule)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("seed", range(30))
def test_agrees_with_the_reference_on_larger_cases(seed: int) -> None:
    rng = random.Random(seed)
    graph, machine = random_graph(rng, 25), random_machine(rng, 4, 4)
    costs = random_costs(rng, graph, machine)
    schedule = random_schedule(rng, graph, machine, costs)
    expected = reference_makespan(graph, machine, costs, schedule)
    assert makespan(graph, machine, costs, schedule) == pytest.approx(expected, rel=1e-9)


@given(cases())
def test_rules_hold_in_the_timeline(case: Case) -> None:
    timeline = simulate(case.graph, case.machine, case.costs, case.schedule)
    timeline.validate()
    assert timeline.origin == "predicted"
    latest = max((event.end_us for event in timeline.events), default=0.0)
    assert timeline.makespan_us == pytest.approx(latest)
    check_precedence(case, timeline)
    check_lanes(case, timeline)


def check_precedence(case: Case, timeline: Timeline) -> None:
    ops = {e.subject: e for e in timeline.events if e.kind == "operator"}
    copies = {(e.subject, e.dst): e for e in timeline.events if e.kind == "transfer"}
    assert len(ops) == len(case.graph.operators)
    slack = 1e-6
    for (u, v), tensors in case.graph.edges().items():
        if ops[u].device == ops[v].device:
            assert ops[u].end_us <= ops[v].start_us + slack
            continue
        for tensor in tensors:
            copy = copies[tensor, ops[v].device]
            assert copy.device == ops[u].device
            assert ops[u].end_us <= copy.start_us + slack
            assert copy.end_us <= ops[v].start_us + slack
    for tensor in {case.graph.root(t) for t in case.graph.outputs}:
        producer = case.graph.tensors[tensor].producer
        if producer is not None and ops[producer].device != 0:
            assert (tensor, 0) in copies


def check_lanes(case: Case, timeline: Timeline) -> None:
    """Nothing overlaps on a stream; nothing on a contended link; stages of a device do not."""
    lanes: dict[tuple, list[TimelineEvent]] = defaultdict(list)
    stages: dict[tuple[int, int], list[float]] = {}
    for event in timeline.events:
        if event.kind == "operator":
            lanes["stream", event.device, event.stream].append(event)
            if event.stage is not None:
                span = stages.setdefault((event.device, event.stage), [math.inf, 0.0])
                span[0] = min(span[0], event.start_us)
                span[1] = max(span[1], event.end_us)
        elif event.stream is not None:
            assert event.dst is not None
            lanes["stream", event.dst, event.stream].append(event)
        elif case.machine.is_contended:
            lanes["link", event.device, event.dst].append(event)
    for events in lanes.values():
        events.sort(key=lambda e: (e.start_us, e.end_us))
        for before, after in pairwise(events):
            assert before.end_us <= after.start_us + 1e-6
    for (device, stage), (start, _) in stages.items():
        before = stages.get((device, stage - 1))
        assert before is None or before[1] <= start + 1e-6


@given(cases())
def test_completing_links_changes_no_time(case: Case) -> None:
    """The order that is stored, replayed, gives the times from which it was predicted."""
    bare = replace(case.schedule, links=())
    completed = complete_links(case.graph, case.machine, case.costs, bare)
    assert complete_links(case.graph, case.machine, case.costs, completed) == completed
    assert simulate(case.graph, case.machine, case.costs, completed) == simulate(
        case.graph, case.machine, case.costs, bare
    )


def one_stage_both_ways(costs: TableCosts, count: int) -> tuple[float, float]:
    graph, machine = costs.graph, costs.machine
    staged = Schedule("s", tuple(Placement(op, 0, op, 0) for op in range(count)))
    free = Schedule("f", tuple(Placement(op, 0, op) for op in range(count)))
    return makespan(graph, machine, costs, staged), makespan(graph, machine, costs, free)


@given(st.randoms(use_true_random=False), st.integers(1, 7))
def test_one_stage_times_the_same_written_both_ways(rng: random.Random, count: int) -> None:
    graph, machine = graph_from_edges(count, []), abstract_machine(1, 8)
    costs = random_costs(rng, graph, machine)
    staged, free = one_stage_both_ways(costs, count)
    assert free == pytest.approx(staged, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 8])
def test_one_stage_times_the_same_on_a_cpu(cores: int) -> None:
    graph = graph_from_edges(4, [])
    machine = cpu_machine(["cpu:0"], cores=range(cores), streams=4)
    wide = [3.0, 5.0, 0.0, 7.5]
    narrow = [[t * (1 + 0.4 * (cores - 1))] for t in wide]
    costs = TableCosts(graph, machine, [[t] for t in wide], narrow_us=narrow)
    staged, free = one_stage_both_ways(costs, 4)
    assert free == pytest.approx(staged)


def test_equal_operators_slow_down_by_the_ratio_of_the_stage() -> None:
    graph, machine = graph_from_edges(3, []), abstract_machine(1, 3)
    costs = TableCosts(graph, machine, [[4.0]] * 3, utilization=[0.75] * 3)
    together = costs.stage_us([[0], [1], [2]], 0)
    assert Sharing(costs, 0).slowdown(dict.fromkeys(range(3), 4.0)) == pytest.approx(together / 4)
    assert Sharing(costs, 0).slowdown({1: 4.0}) == 1.0


def test_streams_share_a_device_like_a_fluid() -> None:
    # Two operators that take turns (utilisation 1): 10 and 4 µs, the second joined by a third.
    graph, machine = graph_from_edges(3, []), abstract_machine(1, 2)
    costs = TableCosts(graph, machine, [[10.0], [4.0], [2.0]], utilization=[1.0] * 3)
    schedule = Schedule("x", (Placement(0, 0, 0), Placement(1, 0, 1), Placement(2, 0, 1)))
    timeline = simulate(graph, machine, costs, schedule)
    ends = {event.subject: event.end_us for event in timeline.events}
    # Each at half speed until 8, and until 12; then op0 has 10 − 6 = 4 left for itself.
    assert ends == pytest.approx({1: 8.0, 2: 12.0, 0: 16.0})


def test_a_stage_waits_for_all_inputs_of_all_groups_and_ends_as_one() -> None:
    graph = diamond(2)
    graph = replace(graph, inputs=(), outputs=(), tensors=graph.tensors[:4])
    graph = replace(graph, operators=(replace(graph.operators[0], inputs=()), *graph.operators[1:]))
    machine = abstract_machine(2, 2)
    costs = TableCosts(
        graph,
        machine,
        [[2.0, 2.0], [4.0, 4.0], [6.0, 6.0], [1.0, 1.0]],
        utilization=[0.5] * 4,
        transfers_us=dict.fromkeys(range(4), 3.0),
    )
    schedule = Schedule(
        "x",
        (
            Placement(0, 0, 0, 0),
            Placement(1, 1, 0, 0),
            Placement(2, 1, 1, 0),
            Placement(3, 0, 0, 1),
        ),
    )
    timeline = simulate(graph, machine, costs, schedule)
    # 2, copy to 5, stage ½·10 + ½·max(5, 6) = 8 to 13, copies to 16, 17.
    assert timeline.makespan_us == 17.0
    stage = {e.subject: (e.start_us, e.end_us) for e in timeline.events if e.stream is not None}
    assert stage[2] == (5.0, 13.0)
    assert stage[1] == pytest.approx((5.0, 5.0 + 4 * 8 / 6))


def test_a_link_carries_one_copy_at_a_time_in_its_order() -> None:
    graph = graph_from_edges(4, [(0, 2), (1, 3)])
    machine = replace(abstract_machine(2, 1), is_contended=True)
    costs = TableCosts(graph, machine, [[1.0] * 2] * 4, transfers_us={0: 10.0, 1: 5.0})
    placements = (Placement(0, 0), Placement(1, 0), Placement(2, 1), Placement(3, 1))
    first = Schedule("x", placements)
    # Ready at 1 and 2: 1–11, 11–16; the readers 11–12, 16–17.
    assert makespan(graph, machine, costs, first) == 17.0
    assert complete_links(graph, machine, costs, first).links == (LinkOrder(0, 1, (0, 1)),)
    swapped = replace(first, links=(LinkOrder(0, 1, (1, 0)),))
    # 2–7, 7–17; op 3 stands behind op 2 on its stream: 17–18, 18–19.
    assert makespan(graph, machine, costs, swapped) == 19.0
    free = replace(machine, is_contended=False)
    assert makespan(graph, free, TableCosts(graph, free, *_tables(costs)), first) == 13.0


def _tables(costs: TableCosts) -> tuple:
    return costs.times_us, costs.narrow_us, costs.utilization, costs.transfers_us


def test_ties_on_a_link_go_by_tensor() -> None:
    graph = graph_from_edges(3, [(0, 2), (1, 2)])
    machine = replace(abstract_machine(2, 2), is_contended=True)
    costs = TableCosts(graph, machine, [[1.0] * 2] * 3, transfers_us={0: 2.0, 1: 2.0})
    # Utilisation is unknown, so both end at 2.
    schedule = Schedule("x", (Placement(1, 0, 0), Placement(0, 0, 1), Placement(2, 1)))
    assert complete_links(graph, machine, costs, schedule).links[0].tensors == (0, 1)


def test_a_link_sees_all_that_became_ready_at_one_moment() -> None:
    # op1 ends at 2, and so does op0 behind it, which takes no time: its tensor goes first.
    graph = graph_from_edges(3, [(0, 2), (1, 2)])
    machine = replace(abstract_machine(2), is_contended=True)
    times = [[0.0, 0.0], [2.0, 2.0], [1.0, 1.0]]
    costs = TableCosts(graph, machine, times, transfers_us={0: 2.0, 1: 3.0})
    schedule = Schedule("x", (Placement(1, 0), Placement(0, 0), Placement(2, 1)))
    assert complete_links(graph, machine, costs, schedule).links[0].tensors == (0, 1)


def test_outputs_return_after_all_streams_of_the_first_device() -> None:
    graph = graph_from_edges(3, [], has_inputs_and_outputs=True)
    machine = cpu_machine(["cpu:0", "cpu:1"], cores=[0, 1, 2, 3], streams=2)
    times = [[4.0] * 2, [9.0] * 2, [1.0] * 2]
    costs = TableCosts(
        graph, machine, times, narrow_us=times, transfers_us=dict.fromkeys(range(4), 0.5)
    )
    for short, long in ((0, 1), (1, 0)):
        schedule = Schedule("x", (Placement(0, 0, short), Placement(1, 0, long), Placement(2, 1)))
        # Two cores, two operators that each need one: no slowdown; then the output of op2.
        assert makespan(graph, machine, costs, schedule) == pytest.approx(9.5)


def test_a_value_is_copied_once_per_device() -> None:
    graph = fan_out(4)
    machine = preset("2xA40-NVLink", streams=1)
    schedule = Schedule("x", (Placement(0, 0), *(Placement(i, 1) for i in range(1, 5))))
    costs = TableCosts(graph, machine, [[1.0, 1.0]] * 5)
    timeline = simulate(graph, machine, costs, schedule)
    there = [e for e in timeline.events if e.kind == "transfer" and e.dst == 1]
    assert [e.subject for e in there] == [0]
    # All four outputs return to the first device.
    assert sum(e.dst == 0 for e in timeline.events if e.kind == "transfer") == 4


def test_copies_on_a_cpu_keep_the_destination_busy() -> None:
    graph = graph_from_edges(4, [(0, 2), (1, 3)])
    machine = cpu_machine(["cpu:0", "cpu:1"], cores=[0, 1])
    costs = TableCosts(graph, machine, [[1.0, 1.0]] * 4, transfers_us={0: 10.0, 1: 5.0})
    schedule = Schedule("x", (Placement(0, 0), Placement(1, 0), Placement(2, 1), Placement(3, 1)))
    # Copy 1–11, op2 –12, copy –17, op3 –18.
    timeline = simulate(graph, machine, costs, schedule)
    assert timeline.makespan_us == 18.0
    copies = [e for e in timeline.events if e.kind == "transfer"]
    assert [(e.start_us, e.end_us, e.stream) for e in copies] == [(1.0, 11.0, 0), (12.0, 17.0, 0)]


def test_copies_before_a_stage_and_outputs_last() -> None:
    graph = graph_from_edges(3, [(0, 2), (1, 2)], has_inputs_and_outputs=True)
    machine = cpu_machine(["cpu:0", "cpu:1"], cores=[0, 1], streams=2)
    costs = TableCosts(
        graph, machine, [[4.0, 4.0]] * 3, transfers_us={0: 1.0, 1: 2.0, 2: 3.0, 3: 0.5}
    )
    schedule = Schedule("x", (Placement(0, 0, 0, 0), Placement(1, 0, 1, 0), Placement(2, 1, 0, 0)))
    # Stage 0–8 (one core), copies 8–9 and 9–11, op2 11–15, its output 15–18.
    assert makespan(graph, machine, costs, schedule) == 18.0
    busy = Schedule("x", (Placement(0, 1), Placement(1, 0), Placement(2, 0)))
    timeline = simulate(graph, machine, costs, busy)
    # The input 0–0.5 and op0 on device 1; op1 on device 0 until 4; op0 ends at 4.5.
    assert timeline.makespan_us == pytest.approx(4.5 + 1.0 + 4.0)


def test_zero_operators() -> None:
    graph, machine = graph_from_edges(0, []), abstract_machine(2)
    costs = TableCosts(graph, machine, [])
    timeline = simulate(graph, machine, costs, Schedule("x", ()))
    assert (timeline.makespan_us, timeline.events) == (0.0, ())
