"""Which cores each thread uses, for every launch of a plan.

A device owns cores. An operator that runs alone on its device (the only group of its stage, or
on the only stream used) is *wide*: it takes all of them. The groups of one stage share them,
and so do the streams of a device without stages.

A thread that waits may spin without harm only while nobody else uses its core; `may_spin` says
so for each wait of a plan, from the stages that pass during it.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from graph_executor.plan import Launch, Plan, StreamQueue, Wait
from hios.errors import DeviceUnavailable
from hios.ir.ids import DeviceId, StageId, StreamId
from hios.ir.machine import Machine

__all__ = ["Cores", "assign_cores", "device_cores", "may_spin", "split_cores"]

Cores = tuple[int, ...]


def device_cores(machine: Machine) -> tuple[Cores, ...]:
    """Return the cores of every device.

    Raises
    ------
    DeviceUnavailable
        When a device is no CPU, names no cores, or names one that this process may not use.
    """
    allowed = os.sched_getaffinity(0)
    for device in machine.devices:
        if device.kind != "cpu":
            raise DeviceUnavailable(
                f"device {device.name!r} is of kind {device.kind!r}; the CPU backend runs cpu "
                "devices only, for example --devices cpu:0,cpu:1"
            )
        if not device.cores:
            raise DeviceUnavailable(
                f"device {device.name!r} names no cores; give it some of {_show(allowed)}"
            )
        if missing := set(device.cores) - allowed:
            raise DeviceUnavailable(
                f"device {device.name!r} needs core {min(missing)}; this process may use "
                f"{_show(allowed)}"
            )
    return tuple(device.cores for device in machine.devices)


def _show(cores: set[int]) -> str:
    return "cores " + ", ".join(map(str, sorted(cores)))


def split_cores(cores: Cores, parts: int) -> list[Cores]:
    """Share `cores` among `parts` threads; with more threads than cores some share one.

    Examples
    --------
    >>> split_cores((0, 1, 2, 3), 2)
    [(0, 1), (2, 3)]
    >>> split_cores((0, 1), 3)
    [(0,), (1,), (0,)]
    """
    count = len(cores)
    if parts >= count:
        return [(cores[part % count],) for part in range(parts)]
    return [cores[part * count // parts : (part + 1) * count // parts] for part in range(parts)]


@dataclass(frozen=True, slots=True)
class _Stages:
    """Which streams each stage of a device uses; stage None stands for 'no stages'."""

    streams: dict[StageId | None, tuple[StreamId, ...]]
    order: dict[StageId | None, int]


def _stages(plan: Plan, device: DeviceId) -> _Stages:
    found: dict[StageId | None, set[StreamId]] = {}
    for queue in plan.streams:
        if queue.device == device:
            for instruction in queue.instructions:
                if isinstance(instruction, Launch):
                    found.setdefault(instruction.stage, set()).add(queue.stream)
    ordered = sorted(found, key=lambda stage: -1 if stage is None else stage)
    return _Stages(
        {stage: tuple(sorted(streams)) for stage, streams in found.items()},
        {stage: position for position, stage in enumerate(ordered)},
    )


def assign_cores(plan: Plan, cores: Sequence[Cores]) -> list[list[Cores]]:
    """Return, for each stream list and each of its instructions, the cores it may use.

    What is no launch inherits the cores of the launch before it.
    """
    stages = [_stages(plan, DeviceId(device)) for device in range(plan.devices)]
    assigned = []
    for queue in plan.streams:
        current = cores[queue.device]
        own = []
        for instruction in queue.instructions:
            if isinstance(instruction, Launch):
                streams = stages[queue.device].streams[instruction.stage]
                parts = split_cores(cores[queue.device], len(streams))
                current = parts[streams.index(queue.stream)]
            own.append(current)
        assigned.append(own)
    return assigned


def may_spin(
    plan: Plan, cores: Sequence[Cores], assigned: Sequence[Sequence[Cores]]
) -> set[tuple[int, int]]:
    """Return the waits, as (stream list, place), during which nobody else uses their core.

    A wait on a device that shares no core with another device is safe when the device uses one
    stream, or when its stages leave the waiting thread's core alone: the wait stands between
    two consecutive stages of its list, and the earlier one gave that core to nobody else.
    """
    owners: dict[int, int] = {}
    for device in {queue.device for queue in plan.streams}:
        for core in cores[device]:
            owners[core] = owners.get(core, 0) + 1
    safe: set[tuple[int, int]] = set()
    for number, (queue, own) in enumerate(zip(plan.streams, assigned, strict=True)):
        stages = _stages(plan, queue.device)
        alone = sum(other.device == queue.device for other in plan.streams) == 1
        shared = any(owners[core] > 1 for core in cores[queue.device])
        last = -1
        for position, instruction in enumerate(queue.instructions):
            if isinstance(instruction, Launch):
                last = stages.order[instruction.stage]
            if not isinstance(instruction, Wait):
                continue
            if shared:
                continue
            upcoming = _next_launch(queue, position)
            if alone:
                safe.add((number, position))
            elif upcoming is not None and upcoming.stage is not None:
                is_next = stages.order[upcoming.stage] == last + 1
                if is_next and _leaves_core(plan, queue, cores, own, position, last, stages):
                    safe.add((number, position))
    return safe


def _next_launch(queue: StreamQueue, position: int) -> Launch | None:
    for instruction in queue.instructions[position:]:
        if isinstance(instruction, Launch):
            return instruction
    return None


def _leaves_core(
    plan: Plan,
    queue: StreamQueue,
    cores: Sequence[Cores],
    own: Sequence[Cores],
    position: int,
    last: int,
    stages: _Stages,
) -> bool:
    """Return whether the stage at `last` gives the first core of this thread to it alone."""
    if last < 0:
        return True
    stage = next(name for name, place in stages.order.items() if place == last)
    streams = stages.streams[stage]
    parts = split_cores(cores[queue.device], len(streams))
    core = own[position][0]
    return sum(core in part for part in parts) == 1
