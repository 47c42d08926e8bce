"""Plans of random schedules: right, and with no event that could be spared."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_cases import interpret, machine_of, random_case, reference

from graph_executor.plan import Copy, Launch, Plan, Record, Wait
from graph_executor.planner import make_plan
from hios.errors import InfeasibleSchedule, InvalidPlan
from hios.ir import (
    DeviceId,
    LinkOrder,
    Operator,
    OpGraph,
    OpId,
    Placement,
    Schedule,
    StageId,
    StreamId,
    Tensor,
    TensorId,
)
from hios.testing import cases

seeds = st.integers(0, 2**32 - 1)


def chain(length: int) -> OpGraph:
    tensors = [
        Tensor(
            TensorId(i),
            f"t{i}",
            (256,),
            "float32",
            1024,
            OpId(i - 1) if i else None,
            (OpId(i),) if i < length else (),
        )
        for i in range(length + 1)
    ]
    operators = [
        Operator(OpId(i), f"op{i}", "test", "k", (TensorId(i),), (TensorId(i + 1),))
        for i in range(length)
    ]
    graph = OpGraph("chain", tuple(operators), tuple(tensors), (TensorId(0),), (TensorId(length),))
    graph.validate()
    return graph


@settings(max_examples=300, deadline=None)
@given(seed=seeds)
def test_plan_of_any_schedule_passes_the_race_detector_and_computes_the_graph(seed):
    case = random_case(seed)
    plan = make_plan(case.graph, case.machine, case.schedule)
    plan.validate(case.graph)
    expected = reference(case.graph)
    for order in range(3):
        assert interpret(plan, case.graph, order) == expected


@settings(max_examples=100, deadline=None)
@given(case=cases(max_operators=12))
def test_plan_of_a_completed_schedule_keeps_its_links(case):
    plan = make_plan(case.graph, case.machine, case.schedule)
    plan.validate(case.graph)
    assert interpret(plan, case.graph, 0) == reference(case.graph)
    order = {(link.src, link.dst): link.tensors for link in case.schedule.links}
    for link in plan.links:
        copied = tuple(i.tensor for i in link.instructions if isinstance(i, Copy))
        assert copied == order[link.src, link.dst]


@settings(max_examples=100, deadline=None)
@given(seed=seeds)
def test_no_wait_can_be_spared(seed):
    case = random_case(seed)
    plan = make_plan(case.graph, case.machine, case.schedule)
    for q, queue in enumerate(plan.queues):
        for i, instruction in enumerate(queue.instructions):
            if not isinstance(instruction, Wait):
                continue
            shorter = replace(
                queue, instructions=queue.instructions[:i] + queue.instructions[i + 1 :]
            )
            lists = [*plan.queues]
            lists[q] = shorter
            n = len(plan.streams)
            mutant = replace(plan, streams=tuple(lists[:n]), links=tuple(lists[n:]))
            with pytest.raises(InvalidPlan):
                mutant.validate(case.graph)


@settings(max_examples=50, deadline=None)
@given(seed=seeds)
def test_plan_survives_json_and_is_deterministic(seed):
    case = random_case(seed)
    plan = make_plan(case.graph, case.machine, case.schedule)
    assert Plan.from_json(plan.to_json()) == plan
    assert make_plan(case.graph, case.machine, case.schedule).to_json() == plan.to_json()


def test_chain_on_one_stream_needs_no_event():
    graph = chain(5)
    schedule = Schedule("test", tuple(Placement(OpId(i), DeviceId(0)) for i in range(5)))
    plan = make_plan(graph, machine_of("cuda", 1, 1), schedule)
    assert plan.events == 0
    assert [i.op for i in plan.streams[0].instructions] == [0, 1, 2, 3, 4]
    # two buffers in turn are enough for a chain
    assert plan.memory[0].arena_bytes == plan.memory[0].lower_bound_bytes == 2048


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_chain_over_two_devices_copies_there_and_back(kind):
    graph = chain(3)
    placements = tuple(Placement(OpId(i), DeviceId(d)) for i, d in enumerate((0, 1, 0)))
    plan = make_plan(graph, machine_of(kind, 2, 1), Schedule("test", placements))
    plan.validate(graph)
    assert plan.count(Copy) == 2
    if kind == "cpu":  # the destination's worker copies
        assert plan.links == ()
        assert plan.count(Record) == plan.count(Wait) == 2
        assert [type(i) for i in plan.streams[1].instructions] == [Wait, Copy, Launch, Record]
    else:
        assert [(q.src, q.dst) for q in plan.links] == [(0, 1), (1, 0)]
        assert plan.count(Record) == plan.count(Wait) == 4


def test_one_record_serves_several_waits():
    tensors = [Tensor(TensorId(0), "x", (1,), "float32", 4, None, (OpId(0),))]
    tensors.append(Tensor(TensorId(1), "a", (1,), "float32", 4, OpId(0), (OpId(1), OpId(2))))
    operators = [Operator(OpId(0), "a", "t", "k", (TensorId(0),), (TensorId(1),))]
    for i in (1, 2):
        tensors.append(Tensor(TensorId(i + 1), f"t{i}", (1,), "float32", 4, OpId(i)))
        operators.append(Operator(OpId(i), f"b{i}", "t", "k", (TensorId(1),), (TensorId(i + 1),)))
    graph = OpGraph(
        "fan", tuple(operators), tuple(tensors), (TensorId(0),), (TensorId(2), TensorId(3))
    )
    graph.validate()
    placements = tuple(Placement(OpId(i), DeviceId(0), StreamId(i)) for i in range(3))
    plan = make_plan(graph, machine_of("cuda", 1, 3), Schedule("test", placements))
    assert plan.count(Record) == 1
    assert plan.count(Wait) == 2


def test_schedules_that_cannot_be_planned_say_why():
    graph = chain(3)
    machine = machine_of("cuda", 2, 1)
    placements = tuple(Placement(OpId(i), DeviceId(d)) for i, d in enumerate((0, 1, 0)))
    with pytest.raises(InfeasibleSchedule, match="places 2 operators"):
        make_plan(graph, machine, Schedule("test", placements[:2]))
    with pytest.raises(InfeasibleSchedule, match="wait for itself"):
        make_plan(
            graph,
            machine,
            Schedule("test", tuple(Placement(OpId(i), DeviceId(0)) for i in (1, 0, 2))),
        )
    links = (LinkOrder(DeviceId(0), DeviceId(1), (TensorId(1),)),)
    with pytest.raises(InfeasibleSchedule, match="lists 1 copies"):
        make_plan(graph, machine, Schedule("test", placements, links))
    with pytest.raises(InfeasibleSchedule, match="merged operator 'both'"):
        make_plan(graph, machine, Schedule("test", placements, alternatives=("both",)))
    circle = tuple(
        Placement(OpId(op), DeviceId(d), StreamId(0), StageId(s))
        for op, d, s in ((0, 0, 1), (1, 1, 0), (2, 0, 0))
    )
    with pytest.raises(InfeasibleSchedule, match="wait for itself"):
        make_plan(graph, machine, Schedule("test", circle))


def test_link_order_of_the_schedule_is_kept():
    tensors = [Tensor(TensorId(0), "x", (1,), "float32", 4, None, (OpId(0),))]
    tensors += [
        Tensor(TensorId(i), f"t{i}", (1,), "float32", 4, OpId(0), (OpId(1),)) for i in (1, 2)
    ]
    tensors.append(Tensor(TensorId(3), "y", (1,), "float32", 4, OpId(1)))
    operators = (
        Operator(OpId(0), "a", "t", "k", (TensorId(0),), (TensorId(1), TensorId(2))),
        Operator(OpId(1), "b", "t", "k", (TensorId(1), TensorId(2)), (TensorId(3),)),
    )
    graph = OpGraph("two", operators, tuple(tensors), (TensorId(0),), (TensorId(3),))
    graph.validate()
    placements = (Placement(OpId(0), DeviceId(0)), Placement(OpId(1), DeviceId(1)))
    for order in ((1, 2), (2, 1)):
        links = (
            LinkOrder(DeviceId(0), DeviceId(1), tuple(TensorId(t) for t in order)),
            LinkOrder(DeviceId(1), DeviceId(0), (TensorId(3),)),
        )
        for kind in ("cpu", "cuda"):
            plan = make_plan(graph, machine_of(kind, 2, 1), Schedule("t", placements, links))
            plan.validate(graph)
            copies = [
                i.tensor
                for q in plan.queues
                for i in q.instructions
                if isinstance(i, Copy) and i.dst == 1
            ]
            assert copies == list(order)
