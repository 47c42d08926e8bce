"""Arenas: small, aligned, and never below what must be alive at once."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from plan_cases import machine_of, random_case, random_graph

from graph_executor.arena import align, lifetimes, plan_memory
from graph_executor.plan import ALIGNMENT_BYTES, Launch
from graph_executor.planner import make_plan
from hios.ir import DeviceId, Placement, Schedule

seeds = st.integers(0, 2**32 - 1)


def test_sizes_are_rounded_up():
    assert [align(n) for n in (0, 1, 256, 257)] == [256, 256, 256, 512]


@settings(max_examples=150, deadline=None)
@given(seed=seeds)
def test_arena_lies_between_its_lower_bound_and_the_sum_of_its_buffers(seed):
    case = random_case(seed, operators=20)
    plan = make_plan(case.graph, case.machine, case.schedule)
    for memory in plan.memory:
        total = sum(align(b.bytes) for b in memory.buffers)
        assert memory.lower_bound_bytes <= memory.arena_bytes <= total
        assert all(b.offset % ALIGNMENT_BYTES == 0 for b in (*memory.buffers, *memory.weights))
        assert memory.weight_bytes == sum(align(b.bytes) for b in memory.weights)


def test_sequential_arenas_are_tight():
    ratios = []
    for seed in range(40):
        graph = random_graph(random.Random(seed), 40)
        schedule = Schedule(
            "sequential", tuple(Placement(op, DeviceId(0)) for op in graph.topological_order())
        )
        plan = make_plan(graph, machine_of("cpu", 1, 1), schedule)
        ratios.append(plan.memory[0].arena_bytes / plan.memory[0].lower_bound_bytes)
    assert sum(ratios) / len(ratios) < 1.02
    assert max(ratios) < 1.15


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_weights_are_only_where_they_are_read(seed):
    case = random_case(seed)
    plan = make_plan(case.graph, case.machine, case.schedule)
    read = {
        (q.device, case.graph.root(t))
        for q in plan.streams
        for x in q.instructions
        if isinstance(x, Launch)
        for t in case.graph.operators[x.op].inputs
        if case.graph.is_weight(t)
    } | {(0, case.graph.root(t)) for t in case.graph.outputs if case.graph.is_weight(t)}
    assert {(m.device, b.tensor) for m in plan.memory for b in m.weights} == read


def test_lifetimes_follow_the_partial_order_not_the_order_of_the_list():
    # Two independent operators: nothing that either uses may be shared, whatever comes first.
    graph = random_graph(random.Random(3), 6)
    steps = [(Launch(op), DeviceId(0)) for op in graph.topological_order()]
    chain = plan_memory(graph, 1, steps, [(1 << i) - 1 for i in range(len(steps))])
    free = plan_memory(graph, 1, steps, [0] * len(steps))
    assert free[0].arena_bytes == sum(align(b.bytes) for b in free[0].buffers)
    assert chain[0].arena_bytes <= free[0].arena_bytes
    (lives,) = lifetimes(graph, 1, steps, [0] * len(steps))
    assert not any(a.ends_before(b) for a in lives for b in lives)
