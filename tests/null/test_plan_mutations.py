"""The race detector finds every seeded fault.

Each mutation makes a plan truly wrong, by construction, or returns None where the plan offers
no place for it. Every mutation must apply to many of the random plans and be caught in each.
"""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from plan_cases import random_case

from graph_executor.plan import (
    Buffer,
    Copy,
    Instruction,
    Launch,
    LinkQueue,
    Plan,
    Record,
    StreamQueue,
    Wait,
)
from graph_executor.planner import make_plan
from hios.errors import InvalidPlan
from hios.ir import DeviceId, OpGraph, StageId, StreamId, TensorId

Mutation = Callable[[Plan, OpGraph, random.Random], Plan | None]
MUTATIONS: dict[str, Mutation] = {}


def mutation(function: Mutation) -> Mutation:
    MUTATIONS[function.__name__] = function
    return function


def sites(plan: Plan, kind: type) -> list[tuple[int, int, Instruction]]:
    return [
        (q, i, instruction)
        for q, queue in enumerate(plan.queues)
        for i, instruction in enumerate(queue.instructions)
        if isinstance(instruction, kind)
    ]


def with_list(plan: Plan, q: int, instructions) -> Plan:
    lists = [*plan.queues]
    lists[q] = replace(lists[q], instructions=tuple(instructions))
    n = len(plan.streams)
    return replace(plan, streams=tuple(lists[:n]), links=tuple(lists[n:]))


def without(plan: Plan, q: int, i: int) -> Plan:
    old = plan.queues[q].instructions
    return with_list(plan, q, old[:i] + old[i + 1 :])


def inserted(plan: Plan, q: int, i: int, instruction: Instruction) -> Plan:
    old = plan.queues[q].instructions
    return with_list(plan, q, (*old[:i], instruction, *old[i:]))


def swapped_in(plan: Plan, q: int, i: int, instruction: Instruction) -> Plan:
    return inserted(without(plan, q, i), q, i, instruction)


def pick(rng: random.Random, found: list):
    return rng.choice(found) if found else None


def with_memory(plan: Plan, device: int, **changes) -> Plan:
    memory = [*plan.memory]
    memory[device] = replace(memory[device], **changes)
    return replace(plan, memory=tuple(memory))


def moved(plan: Plan, device: int, tensor: int, offset: int) -> Plan:
    memory = plan.memory[device]
    buffers = tuple(replace(b, offset=offset) if b.tensor == tensor else b for b in memory.buffers)
    size = max(memory.arena_bytes, *(b.end for b in buffers))
    return with_memory(plan, device, buffers=buffers, arena_bytes=size)


def offset_of(plan: Plan, device: int, tensor: int) -> Buffer:
    return next(b for b in plan.memory[device].buffers if b.tensor == tensor)


def live_pairs(plan: Plan, graph: OpGraph) -> list[tuple[int, int, int]]:
    """(device, input, output) of launches: both are in use at once."""
    return [
        (plan.queues[q].device, graph.root(a), b)
        for q, _, launch in sites(plan, Launch)
        for a in graph.operators[launch.op].inputs
        if not graph.is_weight(a)
        for b in graph.operators[launch.op].outputs
    ]


# Events.


@mutation
def drop_a_wait(plan, graph, rng):
    site = pick(rng, sites(plan, Wait))
    return site and without(plan, *site[:2])


@mutation
def drop_a_record(plan, graph, rng):
    site = pick(rng, sites(plan, Record))
    return site and without(plan, *site[:2])


@mutation
def record_an_event_twice(plan, graph, rng):
    site = pick(rng, sites(plan, Record))
    if site is None:
        return None
    q = rng.randrange(len(plan.queues))
    return inserted(plan, q, len(plan.queues[q].instructions), site[2])


@mutation
def reuse_one_event_for_two(plan, graph, rng):
    found = sites(plan, Record)
    if len(found) < 2:
        return None
    (_, _, first), (q, i, second) = rng.sample(found, 2)
    mutant = swapped_in(plan, q, i, first)
    for q, i, wait in sites(mutant, Wait):
        if wait.event == second.event:
            mutant = swapped_in(mutant, q, i, first)
    return mutant


@mutation
def record_before_the_work_is_done(plan, graph, rng):
    site = pick(rng, sites(plan, Record))
    if site is None:
        return None
    q, i, record = site  # it stands right behind the launch or copy that it tells of
    return inserted(without(plan, q, i), q, i - 1, record)


@mutation
def wait_after_the_work_it_guards(plan, graph, rng):
    site = pick(rng, sites(plan, Wait))
    if site is None:
        return None
    q, i, wait = site
    after = without(plan, q, i)
    behind = next(
        k
        for k in range(i, len(after.queues[q].instructions))
        if isinstance(after.queues[q].instructions[k], Launch | Copy)
    )
    return inserted(after, q, behind + 1, wait)


@mutation
def wait_before_its_record_on_the_same_stream(plan, graph, rng):
    site = pick(rng, sites(plan, Record))
    return site and inserted(plan, site[0], 0, Wait(site[2].event))


@mutation
def two_streams_wait_for_each_other(plan, graph, rng):
    if len(plan.queues) < 2:
        return None
    a, b = rng.sample(range(len(plan.queues)), 2)
    first, second = plan.events, plan.events + 1
    mutant = replace(plan, events=plan.events + 2)
    for q, waited, recorded in ((a, first, second), (b, second, first)):
        mutant = inserted(mutant, q, 0, Wait(waited))
        mutant = inserted(mutant, q, 1, Record(recorded))
    return mutant


@mutation
def wait_for_an_event_that_nobody_records(plan, graph, rng):
    q = rng.randrange(len(plan.queues))
    return inserted(replace(plan, events=plan.events + 1), q, 0, Wait(plan.events))


@mutation
def event_number_out_of_range(plan, graph, rng):
    return replace(plan, events=plan.events - 1) if plan.events else None


@mutation
def wait_for_another_event(plan, graph, rng):
    site = pick(rng, sites(plan, Wait))
    # No wait can be spared, so an event that is recorded at the very start is too early.
    return site and swapped_in(
        inserted(replace(plan, events=plan.events + 1), site[0], 0, Record(plan.events)),
        site[0],
        site[1] + 1,
        Wait(plan.events),
    )


# Launches.


@mutation
def drop_a_launch(plan, graph, rng):
    return without(plan, *pick(rng, sites(plan, Launch))[:2])


@mutation
def launch_twice(plan, graph, rng):
    q, i, launch = pick(rng, sites(plan, Launch))
    return inserted(plan, q, i, launch)


@mutation
def launch_an_unknown_operator(plan, graph, rng):
    q, i, launch = pick(rng, sites(plan, Launch))
    return inserted(plan, q, i, Launch(len(graph.operators), launch.stage))


@mutation
def swap_dependent_launches(plan, graph, rng):
    found = []
    for q, queue in enumerate(plan.streams):
        writer = {}
        for i, x in enumerate(queue.instructions):
            if isinstance(x, Launch):
                reads = [graph.root(t) for t in graph.operators[x.op].inputs]
                found += [(q, writer[t], i) for t in reads if t in writer]
                writer |= dict.fromkeys(graph.operators[x.op].outputs, i)
    site = pick(rng, found)
    if site is None:
        return None
    q, i, k = site
    instructions = [*plan.queues[q].instructions]
    instructions[i], instructions[k] = instructions[k], instructions[i]
    return with_list(plan, q, instructions)


@mutation
def launch_on_another_device(plan, graph, rng):
    others = [q for q in plan.streams if q.device != plan.streams[0].device]
    if not others:
        return None
    launch = pick(rng, [s for s in sites(plan, Launch) if s[0] == 0])
    target = plan.queues.index(rng.choice(others))
    if launch is None:
        return None
    end = len(plan.queues[target].instructions)
    return inserted(without(plan, *launch[:2]), target, end, launch[2])


@mutation
def launch_on_a_new_stream_without_waiting(plan, graph, rng):
    dependent = [
        (q, i, x)
        for q, i, x in sites(plan, Launch)
        if any(graph.producer(t) is not None for t in graph.operators[x.op].inputs)
    ]
    site = pick(rng, dependent)
    if site is None:
        return None
    q, i, launch = site
    mutant = without(plan, q, i)
    fresh = StreamQueue(plan.queues[q].device, StreamId(99), (launch,))
    return replace(mutant, streams=(*mutant.streams, fresh))


@mutation
def launch_on_a_link(plan, graph, rng):
    if not plan.links:
        return None
    q, i, launch = pick(rng, sites(plan, Launch))
    mutant = without(plan, q, i)
    return inserted(mutant, len(plan.queues) - 1, 0, launch)


@mutation
def two_lists_for_one_stream(plan, graph, rng):
    return replace(plan, streams=(*plan.streams, replace(plan.streams[0], instructions=())))


@mutation
def stream_of_an_unknown_device(plan, graph, rng):
    fresh = StreamQueue(DeviceId(plan.devices), StreamId(0), ())
    return replace(plan, streams=(*plan.streams, fresh))


# Copies.


@mutation
def drop_a_copy(plan, graph, rng):
    site = pick(rng, sites(plan, Copy))
    return site and without(plan, *site[:2])


@mutation
def drop_the_copy_of_an_output(plan, graph, rng):
    outputs = {graph.root(t) for t in graph.outputs}
    site = pick(rng, [s for s in sites(plan, Copy) if s[2].dst == 0 and s[2].tensor in outputs])
    return site and without(plan, *site[:2])


@mutation
def copy_twice(plan, graph, rng):
    site = pick(rng, sites(plan, Copy))
    return site and inserted(plan, *site)


@mutation
def copy_on_the_wrong_link(plan, graph, rng):
    found = [s for s in sites(plan, Copy) if isinstance(plan.queues[s[0]], LinkQueue)]
    site = pick(rng, found)
    if site is None:
        return None
    q, i, copy = site
    mutant = without(plan, q, i)
    back = LinkQueue(copy.dst, copy.src, (copy,))
    links = [link for link in mutant.links if (link.src, link.dst) != (copy.dst, copy.src)]
    return replace(mutant, links=(*links, back))


@mutation
def copy_on_a_stream_of_its_source(plan, graph, rng):
    found = [
        (s, q)
        for s in sites(plan, Copy)
        for q, queue in enumerate(plan.streams)
        if queue.device == s[2].src
    ]
    found = pick(rng, found)
    if found is None:
        return None
    (q, i, copy), target = found
    mutant = without(plan, q, i)
    return inserted(mutant, target, len(mutant.queues[target].instructions), copy)


@mutation
def copy_to_the_wrong_device(plan, graph, rng):
    site = pick(rng, sites(plan, Copy))
    if site is None or plan.devices < 3:
        return None
    q, i, copy = site
    wrong = next(d for d in range(plan.devices) if d not in (copy.src, copy.dst))
    return swapped_in(plan, q, i, Copy(copy.tensor, copy.src, DeviceId(wrong)))


@mutation
def copy_from_a_device_without_the_value(plan, graph, rng):
    site = pick(rng, [s for s in sites(plan, Copy) if isinstance(plan.queues[s[0]], StreamQueue)])
    if site is None or plan.devices < 3:
        return None
    q, i, copy = site
    copied = {(s[2].tensor, s[2].dst) for s in sites(plan, Copy)}
    wrong = next(d for d in range(plan.devices) if d not in (copy.src, copy.dst))
    if (copy.tensor, wrong) in copied:
        return None
    return swapped_in(plan, q, i, Copy(copy.tensor, DeviceId(wrong), copy.dst))


@mutation
def copy_another_tensor(plan, graph, rng):
    site = pick(rng, sites(plan, Copy))
    if site is None:
        return None
    q, i, copy = site
    copied = {(s[2].tensor, s[2].dst) for s in sites(plan, Copy)}
    others = [
        t.id for t in graph.tensors if t.producer is not None and (t.id, copy.dst) not in copied
    ]
    return swapped_in(plan, q, i, Copy(rng.choice(others), copy.src, copy.dst)) if others else None


@mutation
def copy_before_its_source_is_written(plan, graph, rng):
    found = [
        s
        for s in sites(plan, Copy)
        if graph.tensors[s[2].tensor].producer is not None
        and any(isinstance(x, Wait) for x in plan.queues[s[0]].instructions[: s[1]])
    ]
    site = pick(rng, found)
    if site is None:
        return None
    q, i, copy = site
    return inserted(without(plan, q, i), q, 0, copy)


@mutation
def copy_after_its_reader(plan, graph, rng):
    found = []
    for q, i, copy in sites(plan, Copy):
        for k in range(i + 1, len(plan.queues[q].instructions)):
            x = plan.queues[q].instructions[k]
            if isinstance(x, Launch) and copy.tensor in {
                graph.root(t) for t in graph.operators[x.op].inputs
            }:
                found.append((q, i, k, copy))
    site = pick(rng, found)
    if site is None:
        return None
    q, i, k, copy = site
    return inserted(without(plan, q, i), q, k, copy)


@mutation
def copy_of_a_view(plan, graph, rng):
    views = [t.id for t in graph.tensors if t.alias_of is not None]
    site = pick(rng, sites(plan, Copy))
    if site is None or not views:
        return None
    q, i, copy = site
    return swapped_in(plan, q, i, Copy(rng.choice(views), copy.src, copy.dst))


# Stages.


@mutation
def stage_number_missing(plan, graph, rng):
    numbered = [s for s in sites(plan, Launch) if s[2].stage is not None]
    crowded = [
        s
        for s in numbered
        if any(
            plan.queues[o[0]].device == plan.queues[s[0]].device and o[2].op != s[2].op
            for o in numbered
        )
    ]
    site = pick(rng, crowded)
    return site and swapped_in(plan, site[0], site[1], Launch(site[2].op, None))


@mutation
def stage_order_reversed(plan, graph, rng):
    devices = {
        q.device
        for q in plan.streams
        if len({x.stage for x in q.instructions if isinstance(x, Launch)} - {None}) > 1
    }
    if not devices:
        return None
    device = rng.choice(sorted(devices))
    mutant = plan
    for q, i, launch in sites(plan, Launch):
        if plan.queues[q].device == device:
            mutant = swapped_in(mutant, q, i, Launch(launch.op, StageId(1000 - launch.stage)))
    return mutant


@mutation
def stage_joined_too_early(plan, graph, rng):
    """Drop the waits that stand before the first launch of a stage on a stream."""
    found = []
    for q, queue in enumerate(plan.streams):
        started = None
        for i, x in enumerate(queue.instructions):
            if isinstance(x, Launch) and x.stage is not None and x.stage != started:
                started = x.stage
                if i and isinstance(queue.instructions[i - 1], Wait):
                    found.append((q, i - 1))
    site = pick(rng, found)
    return site and without(plan, *site)


# Memory.


@mutation
def output_on_top_of_an_input(plan, graph, rng):
    site = pick(rng, list(live_pairs(plan, graph)))
    if site is None:
        return None
    device, a, b = site
    return moved(plan, device, b, offset_of(plan, device, a).offset)


@mutation
def offset_off_by_one_line(plan, graph, rng):
    found = []
    for device, a, b in live_pairs(plan, graph):
        first, second = offset_of(plan, device, a), offset_of(plan, device, b)
        if first.offset < second.offset and second.offset - first.end < 256:
            found.append((device, b, second.offset - 256))
        elif second.offset < first.offset and first.offset - second.end < 256:
            found.append((device, a, first.offset - 256))
    site = pick(rng, found)
    return site and moved(plan, *site)


@mutation
def offset_unaligned(plan, graph, rng):
    buffers = [(m.device, b) for m in plan.memory for b in m.buffers]
    device, b = rng.choice(buffers)
    return moved(plan, device, b.tensor, b.offset + 64)


@mutation
def offset_negative(plan, graph, rng):
    buffers = [(m.device, b) for m in plan.memory for b in m.buffers]
    device, b = rng.choice(buffers)
    return moved(plan, device, b.tensor, -256)


@mutation
def swapped_offsets(plan, graph, rng):
    """Swap the places of a large and a small buffer so that the large one runs into another."""
    found = []
    for device, a, b in live_pairs(plan, graph):
        first, second = offset_of(plan, device, a), offset_of(plan, device, b)
        low, high = sorted((first, second), key=lambda x: x.offset)
        if high.bytes > high.offset - low.offset:
            found.append((device, low, high))
    site = pick(rng, found)
    if site is None:
        return None
    device, low, high = site
    return moved(moved(plan, device, high.tensor, low.offset), device, low.tensor, high.offset)


@mutation
def arena_shrunk(plan, graph, rng):
    m = rng.choice([m for m in plan.memory if m.buffers])
    end = max(b.end for b in m.buffers)
    return with_memory(plan, m.device, arena_bytes=end - 1)


@mutation
def buffer_missing(plan, graph, rng):
    m = rng.choice([m for m in plan.memory if m.buffers])
    gone = rng.choice(m.buffers)
    return with_memory(plan, m.device, buffers=tuple(b for b in m.buffers if b is not gone))


@mutation
def buffer_too_small(plan, graph, rng):
    m = rng.choice([m for m in plan.memory if m.buffers])
    small = rng.choice(m.buffers)
    return with_memory(
        plan,
        m.device,
        buffers=tuple(replace(b, bytes=b.bytes - 1) if b is small else b for b in m.buffers),
    )


@mutation
def buffer_with_two_places(plan, graph, rng):
    m = rng.choice([m for m in plan.memory if m.buffers])
    return with_memory(plan, m.device, buffers=(*m.buffers, rng.choice(m.buffers)))


@mutation
def view_with_a_place_of_its_own(plan, graph, rng):
    views = [t for t in graph.tensors if t.alias_of is not None]
    if not views:
        return None
    m = rng.choice(plan.memory)
    view = rng.choice(views)
    extra = Buffer(view.id, 0, view.bytes)
    return with_memory(
        plan,
        m.device,
        buffers=(*m.buffers, extra),
        arena_bytes=max(m.arena_bytes, view.bytes),
    )


@mutation
def weight_missing_on_its_device(plan, graph, rng):
    m = pick(rng, [m for m in plan.memory if m.weights])
    return m and with_memory(plan, m.device, weights=m.weights[1:])


@mutation
def weights_share_bytes(plan, graph, rng):
    m = pick(rng, [m for m in plan.memory if len(m.weights) > 1])
    if m is None:
        return None
    first, second, *rest = m.weights
    return with_memory(
        plan,
        m.device,
        weights=(first, replace(second, offset=first.offset), *rest),
        weight_bytes=m.weight_bytes + 4096,
    )


@mutation
def weight_in_the_arena(plan, graph, rng):
    m = pick(rng, [m for m in plan.memory if m.weights])
    if m is None:
        return None
    weight = replace(m.weights[0], offset=-(-m.arena_bytes // 256) * 256)
    return with_memory(
        plan,
        m.device,
        weights=m.weights[1:],
        buffers=(*m.buffers, weight),
        arena_bytes=weight.end,
    )


@mutation
def activation_among_the_weights(plan, graph, rng):
    m = rng.choice([m for m in plan.memory if m.buffers])
    buffer = replace(m.buffers[0], offset=-(-m.weight_bytes // 256) * 256)
    return with_memory(
        plan,
        m.device,
        buffers=m.buffers[1:],
        weights=(*m.weights, buffer),
        weight_bytes=buffer.end,
    )


@mutation
def memory_of_a_device_missing(plan, graph, rng):
    return replace(plan, memory=plan.memory[:-1])


@mutation
def unknown_tensor_in_memory(plan, graph, rng):
    m = plan.memory[0]
    extra = Buffer(TensorId(len(graph.tensors)), 0, 4)
    return with_memory(plan, 0, buffers=(*m.buffers, extra), arena_bytes=m.arena_bytes + 256)


@pytest.fixture(scope="module")
def plans():
    made = []
    for seed in range(150):
        case = random_case(seed, operators=12)
        made.append((case.graph, make_plan(case.graph, case.machine, case.schedule)))
    return made


def test_there_are_many_kinds_of_mutation():
    assert len(MUTATIONS) >= 40


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_every_mutant_is_caught(plans, name):
    applied = 0
    for seed, (graph, plan) in enumerate(plans):
        mutant = MUTATIONS[name](plan, graph, random.Random(seed))
        if mutant is None:
            continue
        assert mutant != plan
        applied += 1
        with pytest.raises(InvalidPlan):
            mutant.validate(graph)
    assert applied >= 10
