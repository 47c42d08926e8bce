"""The race detector: proves from the instruction lists alone that a plan is right.

It shares no code with the planner. Vector clocks (Fidge 1988, Mattern 1989), one component a
list, give the happens-before order: a list ticks at each launch and copy, a `Record` stores
its clock, a `Wait` takes the component-wise maximum. Whether the lists can all reach their end
is found on the way, by walking them.

Then every access to memory is listed (launches read and write, copies read on one device and
write on the other, inputs are written before everything and outputs read after everything)
and checked against the memory map.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graph_executor.plan import (
    ALIGNMENT_BYTES,
    Buffer,
    Copy,
    DeviceMemory,
    Instruction,
    Launch,
    LinkQueue,
    Plan,
    Record,
    StreamQueue,
    Wait,
)
from hios.errors import InvalidPlan
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId, OpId, StageId, TensorId

__all__ = ["Moment", "check_plan", "moments"]

_HOME = DeviceId(0)
Place = tuple[DeviceId, TensorId]


@dataclass(frozen=True, slots=True)
class Moment:
    """A launch or copy with its vector clock.

    Attributes
    ----------
    what
        The instruction.
    queue
        Position of its list in `Plan.queues`.
    device
        Where it runs; for a link, its destination.
    clock
        For each list, how many of its launches and copies have happened, this one included.
    """

    what: Launch | Copy
    queue: int
    device: DeviceId
    clock: tuple[int, ...]

    def happens_before(self, other: "Moment") -> bool:
        """Return whether this is done before `other` starts, in every execution."""
        return self is not other and other.clock[self.queue] >= self.clock[self.queue]


def check_plan(plan: Plan, graph: OpGraph) -> None:
    """Prove `plan` right for `graph`, or say what is wrong.

    Raises
    ------
    InvalidPlan
        On the first rule broken (see `graph_executor.plan`).

    Notes
    -----
    O(n·q) for the clocks of n instructions on q lists; O(b²·r) in the worst case for b
    buffers that share bytes with r accesses each.
    """
    _check_lists(plan, graph)
    ordered = moments(plan)
    accesses = _Accesses(plan, graph, ordered)
    _check_reads(graph, accesses)
    _check_overlaps(plan, graph, accesses)
    _check_stages(graph, ordered, accesses)


def moments(plan: Plan) -> tuple[Moment, ...]:
    """Walk all lists and return every launch and copy with its vector clock.

    Raises
    ------
    InvalidPlan
        When some list can never reach its end.
    """
    queues = plan.queues
    position = [0] * len(queues)
    clocks = [[0] * len(queues) for _ in queues]
    recorded: dict[int, tuple[int, ...]] = {}
    found: list[Moment] = []
    moving = True
    while moving:
        moving = False
        for number, queue in enumerate(queues):
            clock = clocks[number]
            while position[number] < len(queue.instructions):
                instruction = queue.instructions[position[number]]
                if isinstance(instruction, Wait):
                    if instruction.event not in recorded:
                        break
                    clock[:] = map(max, clock, recorded[instruction.event])
                elif isinstance(instruction, Record):
                    recorded[instruction.event] = tuple(clock)
                else:
                    clock[number] += 1
                    device = queue.device if isinstance(queue, StreamQueue) else queue.dst
                    found.append(Moment(instruction, number, device, tuple(clock)))
                position[number] += 1
                moving = True
    for number, queue in enumerate(queues):
        if position[number] < len(queue.instructions):
            raise InvalidPlan(
                f"deadlock: {_queue_name(queue)} waits forever at instruction "
                f"{position[number]}, {_show(queue.instructions[position[number]])}"
            )
    return tuple(found)


def _queue_name(queue: StreamQueue | LinkQueue) -> str:
    if isinstance(queue, StreamQueue):
        return f"device {queue.device} stream {queue.stream}"
    return f"link {queue.src}->{queue.dst}"


def _show(instruction: Instruction) -> str:
    match instruction:
        case Launch(op=op):
            return f"launch of operator {op}"
        case Copy(tensor=tensor, src=src, dst=dst):
            return f"copy of tensor {tensor} from device {src} to {dst}"
        case Record(event=event):
            return f"record of event {event}"
        case Wait(event=event):
            return f"wait for event {event}"


def _check_lists(plan: Plan, graph: OpGraph) -> None:
    """Check what needs no order: ids, places, and that everything is there just once."""
    names: set[str] = set()
    launched: set[OpId] = set()
    copied: set[Place] = set()
    recorded: set[int] = set()
    waited: set[int] = set()
    for queue in plan.queues:
        name = _queue_name(queue)
        if name in names:
            raise InvalidPlan(f"two lists for {name}")
        names.add(name)
        ends = (queue.device,) if isinstance(queue, StreamQueue) else (queue.src, queue.dst)
        if not all(0 <= end < plan.devices for end in ends):
            raise InvalidPlan(f"{name}: this plan has {plan.devices} devices")
        for instruction in queue.instructions:
            match instruction:
                case Launch(op=op):
                    if isinstance(queue, LinkQueue):
                        raise InvalidPlan(f"{name} launches operator {op}; links only copy")
                    if not 0 <= op < len(graph.operators):
                        raise InvalidPlan(f"{name} launches operator {op}: no such operator")
                    if op in launched:
                        raise InvalidPlan(f"operator {op} is launched twice")
                    launched.add(op)
                case Copy():
                    _check_copy(plan, graph, queue, instruction)
                    place = (instruction.dst, instruction.tensor)
                    if place in copied:
                        raise InvalidPlan(f"{_show(instruction)} happens twice")
                    copied.add(place)
                case Record(event=event):
                    if event in recorded:
                        raise InvalidPlan(f"event {event} is recorded twice")
                    recorded.add(event)
                case Wait(event=event):
                    waited.add(event)
    if len(launched) < len(graph.operators):
        missing = min(op.id for op in graph.operators if op.id not in launched)
        raise InvalidPlan(f"operator {graph.operators[missing].name!r} is never launched")
    if waited - recorded:
        raise InvalidPlan(f"event {min(waited - recorded)} is waited for but never recorded")
    unknown = [event for event in recorded if not 0 <= event < plan.events]
    if unknown:
        raise InvalidPlan(f"event {min(unknown)}: this plan has {plan.events} events")


def _check_copy(plan: Plan, graph: OpGraph, queue: StreamQueue | LinkQueue, copy: Copy) -> None:
    if not 0 <= copy.tensor < len(graph.tensors) or graph.tensors[copy.tensor].alias_of is not None:
        raise InvalidPlan(f"{_show(copy)}: no such root tensor")
    if not (0 <= copy.src < plan.devices and 0 <= copy.dst < plan.devices):
        raise InvalidPlan(f"{_show(copy)}: this plan has {plan.devices} devices")
    if isinstance(queue, LinkQueue):
        if (copy.src, copy.dst) != (queue.src, queue.dst):
            raise InvalidPlan(f"{_show(copy)} stands on {_queue_name(queue)}")
    elif copy.dst != queue.device:
        raise InvalidPlan(f"{_show(copy)} stands on {_queue_name(queue)}, not its destination")


class _Accesses:
    """Who writes and who reads each buffer of each device.

    `writer` maps a place to the moment that writes it, None for graph inputs on the first
    device. `reads` lists the moments that read it. `kept` are the places read after the end.
    """

    def __init__(self, plan: Plan, graph: OpGraph, ordered: tuple[Moment, ...]) -> None:
        self.writer: dict[Place, Moment | None] = {(_HOME, t): None for t in graph.inputs}
        self.reads: dict[Place, list[Moment]] = {}
        self.weight_reads: dict[Place, Moment | None] = {}
        self.kept: set[Place] = set()
        for moment in ordered:
            for place in _writes(graph, moment):
                if place in self.writer:
                    raise InvalidPlan(
                        f"tensor {place[1]} is written twice on device {place[0]}, the second "
                        f"time by the {_show(moment.what)}"
                    )
                self.writer[place] = moment
            for place in _reads(graph, moment):
                if _is_constant(graph, place[1]):
                    self.weight_reads.setdefault(place, moment)
                else:
                    self.reads.setdefault(place, []).append(moment)
        for tensor in {_owner(graph, t) for t in graph.outputs}:
            if _is_constant(graph, tensor):
                self.weight_reads.setdefault((_HOME, tensor), None)
            else:
                self.kept.add((_HOME, tensor))
        self.buffers = _buffer_map(plan, graph)


def _owner(graph: OpGraph, tensor: TensorId) -> TensorId:
    base = graph.tensors[tensor].alias_of
    return tensor if base is None else _owner(graph, base)


def _is_constant(graph: OpGraph, owner: TensorId) -> bool:
    return graph.tensors[owner].producer is None and owner not in graph.inputs


def _writes(graph: OpGraph, moment: Moment) -> Iterator[Place]:
    if isinstance(moment.what, Copy):
        yield moment.what.dst, moment.what.tensor
    else:
        for tensor in graph.operators[moment.what.op].outputs:
            yield moment.device, tensor


def _reads(graph: OpGraph, moment: Moment) -> Iterator[Place]:
    if isinstance(moment.what, Copy):
        yield moment.what.src, moment.what.tensor
    else:
        for tensor in {_owner(graph, t) for t in graph.operators[moment.what.op].inputs}:
            yield moment.device, tensor


def _buffer_map(plan: Plan, graph: OpGraph) -> dict[Place, Buffer]:
    """Check the memory map by itself and return where everything lies."""
    found: dict[Place, Buffer] = {}
    if [memory.device for memory in plan.memory] != list(range(plan.devices)):
        raise InvalidPlan(f"the memory map must name each of {plan.devices} devices in order")
    for memory in plan.memory:
        for region, size, buffers in (
            ("arena", memory.arena_bytes, memory.buffers),
            ("weight region", memory.weight_bytes, memory.weights),
        ):
            for buffer in buffers:
                _check_buffer(graph, memory, region, size, buffer)
                if (memory.device, buffer.tensor) in found:
                    raise InvalidPlan(
                        f"tensor {buffer.tensor} has two places on device {memory.device}"
                    )
                found[memory.device, buffer.tensor] = buffer
        ends = sorted((buffer.offset, buffer.end, buffer.tensor) for buffer in memory.weights)
        for (_, end, tensor), (start, _, other) in itertools.pairwise(ends):
            if start < end:
                raise InvalidPlan(
                    f"weights {tensor} and {other} share bytes on device {memory.device}"
                )
    return found


def _check_buffer(
    graph: OpGraph, memory: DeviceMemory, region: str, size: int, buffer: Buffer
) -> None:
    where = f"tensor {buffer.tensor} in the {region} of device {memory.device}"
    if not 0 <= buffer.tensor < len(graph.tensors):
        raise InvalidPlan(f"{where}: no such tensor")
    tensor = graph.tensors[buffer.tensor]
    if tensor.alias_of is not None:
        raise InvalidPlan(f"{where} is a view and lies where its root lies")
    if _is_constant(graph, buffer.tensor) != (region == "weight region"):
        raise InvalidPlan(f"{where} belongs into the other region")
    if buffer.bytes != tensor.bytes:
        raise InvalidPlan(f"{where} has {buffer.bytes} bytes, needs {tensor.bytes}")
    if buffer.offset < 0 or buffer.offset % ALIGNMENT_BYTES:
        raise InvalidPlan(f"{where}: offset {buffer.offset} is no multiple of {ALIGNMENT_BYTES}")
    if buffer.end > size:
        raise InvalidPlan(f"{where} ends at {buffer.end}, behind the {size} bytes there are")


def _check_reads(graph: OpGraph, accesses: _Accesses) -> None:
    """Check that whatever is read was written before, there, and lies somewhere."""
    for (device, tensor), reader in accesses.weight_reads.items():
        if (device, tensor) not in accesses.buffers:
            who = "the graph's outputs" if reader is None else _show(reader.what)
            raise InvalidPlan(f"weight {tensor} is not on device {device}; needed by {who}")
    for place, readers in accesses.reads.items():
        device, tensor = place
        if place not in accesses.writer:
            raise InvalidPlan(
                f"{_show(readers[0].what)} reads tensor {tensor}, which never gets to "
                f"device {device}"
            )
        writer = accesses.writer[place]
        for reader in readers:
            if writer is not None and not writer.happens_before(reader):
                raise InvalidPlan(
                    f"race: {_show(reader.what)} may read tensor {tensor} on device {device} "
                    f"before the {_show(writer.what)} has written it"
                )
    for device, tensor in accesses.kept:
        if (device, tensor) not in accesses.writer:
            raise InvalidPlan(
                f"output {graph.tensors[tensor].name!r} never gets to the first device"
            )
    for device, tensor in accesses.writer:
        if (device, tensor) not in accesses.buffers:
            raise InvalidPlan(f"tensor {tensor} has no place in the arena of device {device}")


def _check_overlaps(plan: Plan, graph: OpGraph, accesses: _Accesses) -> None:
    """Check that buffers which share bytes are in use one wholly before the other."""
    for memory in plan.memory:
        used = [b for b in memory.buffers if (memory.device, b.tensor) in accesses.writer]
        active: list[Buffer] = []
        for buffer in sorted(used, key=lambda b: b.offset):
            active = [other for other in active if other.end > buffer.offset]
            if buffer.bytes == 0:
                continue
            for other in active:
                if not (
                    _is_done_before(accesses, (memory.device, other.tensor), buffer.tensor)
                    or _is_done_before(accesses, (memory.device, buffer.tensor), other.tensor)
                ):
                    first, second = sorted((buffer.tensor, other.tensor))
                    raise InvalidPlan(
                        f"race: tensors {first} and {second} share bytes on device "
                        f"{memory.device} and neither is done with before the other is written"
                    )
            active.append(buffer)


def _is_done_before(accesses: _Accesses, place: Place, later: TensorId) -> bool:
    """Return whether every access to `place` happens before `later` is written there."""
    if place in accesses.kept:
        return False
    writer = accesses.writer[place[0], later]
    if writer is None:
        return False
    own = accesses.writer[place]
    return (own is None or own.happens_before(writer)) and all(
        reader.happens_before(writer) for reader in accesses.reads.get(place, ())
    )


def _check_stages(graph: OpGraph, ordered: tuple[Moment, ...], accesses: _Accesses) -> None:
    """Check that stages of a device follow each other and start with all they need."""
    stages: dict[DeviceId, dict[StageId | None, list[Moment]]] = {}
    for moment in ordered:
        if isinstance(moment.what, Launch):
            by_stage = stages.setdefault(moment.device, {})
            by_stage.setdefault(moment.what.stage, []).append(moment)
    for device, by_stage in stages.items():
        if None in by_stage:
            if len(by_stage) > 1:
                raise InvalidPlan(f"device {device} has operators with and without a stage")
            continue
        numbers = sorted(stage for stage in by_stage if stage is not None)
        for earlier, later in itertools.pairwise(numbers):
            for first in by_stage[earlier]:
                for second in by_stage[later]:
                    if not first.happens_before(second):
                        raise InvalidPlan(
                            f"stage {later} of device {device} may start its "
                            f"{_show(second.what)} before the {_show(first.what)} of stage "
                            f"{earlier} has ended"
                        )
        for number in numbers:
            _check_arrivals(graph, accesses, device, number, by_stage[number])


def _check_arrivals(
    graph: OpGraph, accesses: _Accesses, device: DeviceId, number: StageId, members: list[Moment]
) -> None:
    inside = _produced(graph, members)
    needed = {
        place: accesses.writer.get(place)
        for moment in members
        for place in _reads(graph, moment)
        if place[1] not in inside
    }
    for place, writer in needed.items():
        if writer is None:
            continue
        for moment in members:
            if not writer.happens_before(moment):
                raise InvalidPlan(
                    f"stage {number} of device {device} may start its {_show(moment.what)} "
                    f"before tensor {place[1]} has arrived"
                )


def _produced(graph: OpGraph, members: list[Moment]) -> Mapping[TensorId, OpId]:
    return {
        tensor: moment.what.op
        for moment in members
        if isinstance(moment.what, Launch)
        for tensor in graph.operators[moment.what.op].outputs
    }
