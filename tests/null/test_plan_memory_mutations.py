"""The race detector finds every seeded fault in where tensors lie.

Every mutation must apply to many of the random plans and be caught in each.
"""

from dataclasses import replace

import pytest
from plan_edits import Mutations, check_every_mutant_is_caught, moved, pick, sites, with_memory

from graph_executor.plan import Buffer, Launch, Plan
from hios.ir import OpGraph, TensorId

mutation = Mutations()


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


def test_there_are_many_kinds_of_mutation():
    assert len(mutation) >= 15


@pytest.mark.parametrize("name", sorted(mutation))
def test_every_mutant_is_caught(name):
    check_every_mutant_is_caught(mutation[name])
