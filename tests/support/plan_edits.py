"""Changing a plan in one place: what tests of the race detector make faults of.

A mutation makes a plan truly wrong, by construction, or returns None where the plan offers no
place for it.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
from plan_cases import random_case

from graph_executor.plan import Instruction, Plan
from graph_executor.planner import make_plan
from hios.errors import InvalidPlan
from hios.ir import OpGraph

Mutation = Callable[[Plan, OpGraph, random.Random], Plan | None]


class Mutations(dict[str, Mutation]):
    """Mutations by name; as a decorator it takes one in."""

    def __call__(self, function: Mutation) -> Mutation:
        self[function.__name__] = function
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


def with_memory(plan: Plan, device: int, **changes) -> Plan:
    memory = [*plan.memory]
    memory[device] = replace(memory[device], **changes)
    return replace(plan, memory=tuple(memory))


def moved(plan: Plan, device: int, tensor: int, offset: int) -> Plan:
    memory = plan.memory[device]
    buffers = tuple(replace(b, offset=offset) if b.tensor == tensor else b for b in memory.buffers)
    size = max(memory.arena_bytes, *(b.end for b in buffers))
    return with_memory(plan, device, buffers=buffers, arena_bytes=size)


def pick(rng: random.Random, found: list):
    return rng.choice(found) if found else None


def check_every_mutant_is_caught(mutation: Mutation) -> None:
    """Apply a mutation to many random plans; it must find a place in several of them."""
    applied = 0
    for seed, (graph, plan) in enumerate(_random_plans()):
        mutant = mutation(plan, graph, random.Random(seed))
        if mutant is None:
            continue
        assert mutant != plan
        applied += 1
        with pytest.raises(InvalidPlan):
            mutant.validate(graph)
    assert applied >= 10


@cache
def _random_plans() -> list[tuple[OpGraph, Plan]]:
    cases = [random_case(seed, operators=12) for seed in range(150)]
    return [(case.graph, make_plan(case.graph, case.machine, case.schedule)) for case in cases]
