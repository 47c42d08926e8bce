"""Validation accepts every valid schedule and names what is wrong with a broken one."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given

from hios.errors import CyclicGraph, HiosError, InfeasibleSchedule
from hios.ir import Device, LinkOrder, Machine, OpGraph, Placement, Schedule, required_copies
from hios.ir.presets import abstract_machine, cpu_machine, preset
from hios.ir.validation import memory_needed, validate_schedule
from hios.simulator import complete_links, makespan
from hios.testing import (
    Case,
    cases,
    chain,
    diamond,
    graph_from_edges,
    random_costs,
    random_graph,
    random_machine,
    random_schedule,
    uniform_costs,
)


@given(cases())
def test_random_schedules_are_valid(case: Case) -> None:
    validate_schedule(case.graph, case.machine, case.schedule)
    validate_schedule(case.graph, case.machine, replace(case.schedule, links=()))


# diamond(2): 0 -> 1, 2 -> 3
GRAPH = diamond(2)
MACHINE = replace(preset("2xA40-NVLink", streams=2), name="two")
GOOD = Schedule(
    "hand",
    (Placement(0, 0, 0, 0), Placement(1, 0, 0, 1), Placement(2, 1, 1), Placement(3, 0, 1, 2)),
    (LinkOrder(0, 1, (0,)), LinkOrder(1, 0, (2,))),
)


def placed(**changes: Placement) -> Schedule:
    kept = [changes.get(f"op{p.op}", p) for p in GOOD.placements]
    return replace(GOOD, placements=tuple(kept))


def test_the_good_one_is_good() -> None:
    validate_schedule(GRAPH, MACHINE, GOOD)


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (replace(GOOD, placements=GOOD.placements[:-1]), "misses 1 operators"),
        (replace(GOOD, placements=(*GOOD.placements, GOOD.placements[0])), "'op0' twice"),
        (replace(GOOD, placements=(*GOOD.placements, Placement(9, 0))), "places operator 9"),
        (placed(op2=Placement(2, 2)), "on device 2; machine 'two'"),
        (placed(op2=Placement(2, -1)), "on device -1"),
        (placed(op2=Placement(2, 1, 2)), "stream 2 of device cuda:1, which has 2"),
        (placed(op2=Placement(2, 1, -1)), "stream -1"),
        (replace(GOOD, placements=GOOD.placements[::-1]), "before"),
        (placed(op1=Placement(1, 0, 0)), "some operators have a stage"),
        (placed(op3=Placement(3, 0, 1, 0)), "stage 0 comes after stage 1"),
        (placed(op1=Placement(1, 0, 1, 0)), "another group"),
        (replace(GOOD, links=GOOD.links[:1]), "needed on device 0"),
        (replace(GOOD, links=(LinkOrder(0, 1, (0, 0)), GOOD.links[1])), "tensor 0 twice"),
        (replace(GOOD, links=(LinkOrder(0, 1, (0, 3)), GOOD.links[1])), "nobody needs"),
        (replace(GOOD, links=(*GOOD.links, LinkOrder(0, 1, ()))), "two orders"),
        (replace(GOOD, links=(LinkOrder(1, 0, (0, 2)),)), "nobody needs"),
        (replace(GOOD, alternatives=("merged",)), "'merged'"),
    ],
)
def test_broken_schedules(schedule: Schedule, said: str) -> None:
    with pytest.raises(InfeasibleSchedule) as caught:
        validate_schedule(GRAPH, MACHINE, schedule)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_stages_may_not_wait_for_each_other() -> None:
    # a0 -> b1 on the other device, and b0 -> a1: one stage a device holds both.
    graph = graph_from_edges(4, [(0, 2), (1, 3)])
    crossing = Schedule(
        "x",
        (
            Placement(0, 0, 0, 0),
            Placement(1, 1, 0, 0),
            Placement(3, 0, 1, 0),
            Placement(2, 1, 1, 0),
        ),
    )
    machine = abstract_machine(2, 2)
    with pytest.raises(CyclicGraph, match="stage 0 of device 0") as caught:
        validate_schedule(graph, machine, crossing)
    assert "\n" not in str(caught.value)
    with pytest.raises(InfeasibleSchedule, match="wait for each other"):
        makespan(graph, machine, uniform_costs(graph, machine), crossing)


def test_link_orders_may_not_make_a_circle() -> None:
    # op0's value returns through device 1; a link order that sends the second first waits.
    graph = chain(3)
    graph = replace(graph, inputs=(), outputs=())
    tensors = list(graph.tensors[:3])
    operators = [replace(graph.operators[0], inputs=()), *graph.operators[1:]]
    graph = replace(graph, tensors=tuple(tensors), operators=tuple(operators))
    more = graph_from_edges(4, [(0, 1), (1, 2), (2, 3)])
    schedule = Schedule("x", (Placement(0, 0), Placement(1, 1), Placement(2, 0), Placement(3, 1)))
    backwards = (LinkOrder(0, 1, (2, 0)), LinkOrder(1, 0, (1,)))
    with pytest.raises(CyclicGraph, match="copy of tensor 0"):
        validate_schedule(more, preset("2xA40-NVLink"), replace(schedule, links=backwards))
    # Without contention the order of a link means nothing.
    validate_schedule(more, abstract_machine(2), replace(schedule, links=backwards))


@pytest.mark.parametrize("seed", range(60))
def test_whatever_validation_passes_the_simulator_can_run(seed: int) -> None:
    """Shuffled stages and links: refused by both, or by neither."""
    rng = random.Random(seed)
    graph, machine = random_graph(rng, rng.randint(2, 9)), random_machine(rng)
    costs = random_costs(rng, graph, machine)
    schedule = random_schedule(rng, graph, machine, costs)
    for _ in range(10):
        shuffled = replace(
            schedule,
            placements=_blur_stages(rng, schedule.placements),
            links=tuple(
                replace(link, tensors=tuple(rng.sample(link.tensors, len(link.tensors))))
                for link in schedule.links
            ),
        )
        try:
            validate_schedule(graph, machine, shuffled)
        except CyclicGraph:
            with pytest.raises(InfeasibleSchedule):
                makespan(graph, machine, costs, shuffled)
        except InfeasibleSchedule:
            continue
        else:
            assert makespan(graph, machine, costs, shuffled) >= 0.0


def _blur_stages(rng: random.Random, placements: tuple[Placement, ...]) -> tuple[Placement, ...]:
    """Join neighbouring stages here and there."""
    width = rng.randint(1, 3)
    return tuple(p if p.stage is None else replace(p, stage=p.stage // width) for p in placements)


def with_memory(machine: Machine, size: int) -> Machine:
    devices = tuple(replace(device, memory_bytes=size) for device in machine.devices)
    return replace(machine, devices=devices)


def test_memory_counts_weights_on_each_device_and_the_largest_operator() -> None:
    graph = _weighted()
    machine = cpu_machine(["cpu:0", "cpu:1"], cores=[0, 1])
    together = Schedule("x", (Placement(0, 0), Placement(1, 0)))
    apart = Schedule("x", (Placement(0, 0), Placement(1, 1)))
    # The weight once a device (1000), and one operator's input and output (100 + 100).
    assert memory_needed(graph, together) == {0: 1200}
    assert memory_needed(graph, apart) == {0: 1200, 1: 1200}
    validate_schedule(graph, with_memory(machine, 1200), apart)
    with pytest.raises(InfeasibleSchedule, match="at least 1200 bytes") as caught:
        validate_schedule(graph, with_memory(machine, 1199), apart)
    assert "1199" in str(caught.value)


def _weighted() -> OpGraph:
    graph = chain(2)
    weight = replace(graph.tensors[0], id=3, name="w", bytes=1000, producer=None, consumers=(0, 1))
    tensors = [replace(tensor, bytes=100) for tensor in graph.tensors]
    operators = tuple(replace(op, inputs=(*op.inputs, 3)) for op in graph.operators)
    found = replace(graph, tensors=(*tensors, weight), operators=operators)
    found.validate()
    return found


def test_completed_links_are_just_the_copies_needed() -> None:
    machine = preset("2xA40-NVLink", streams=2)
    bare = replace(GOOD, links=())
    completed = complete_links(GRAPH, machine, uniform_costs(GRAPH, machine), bare)
    carried = {(t, link.src, link.dst) for link in completed.links for t in link.tensors}
    assert carried == {(c.tensor, c.src, c.dst) for c in required_copies(GRAPH, bare)}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Schedule("x", (Placement(0, 5),)),
        lambda: Schedule("x", (Placement(3, 0),)),
        lambda: Schedule("x", (Placement(0, 0), Placement(0, 0))),
        lambda: Schedule("x", ()),
        lambda: Schedule("x", (Placement(0, 0),), (LinkOrder(0, 1, (0,)),)),
    ],
)
def test_the_simulator_refuses_what_it_cannot_time(make: Callable[[], Schedule]) -> None:
    graph = graph_from_edges(1, [])
    machine = Machine("m", (Device("a"),))
    with pytest.raises(HiosError) as caught:
        makespan(graph, machine, uniform_costs(graph, machine), make())
    assert "\n" not in str(caught.value)
