"""The race detector finds every seeded fault in what streams and links do, and when.

Every mutation must apply to many of the random plans and be caught in each.
"""

from dataclasses import replace

import pytest
from plan_edits import (
    Mutations,
    check_every_mutant_is_caught,
    inserted,
    pick,
    sites,
    swapped_in,
    with_list,
    without,
)

from graph_executor.plan import Copy, Launch, LinkQueue, Record, StreamQueue, Wait
from hios.ir import DeviceId, StageId, StreamId

mutation = Mutations()


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


def test_there_are_many_kinds_of_mutation():
    assert len(mutation) >= 30


@pytest.mark.parametrize("name", sorted(mutation))
def test_every_mutant_is_caught(name):
    check_every_mutant_is_caught(mutation[name])
