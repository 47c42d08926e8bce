"""The plan: what every stream and every link does, instruction by instruction.

A plan is data. It holds one list of instructions for each stream of each device and one for
each directed link that copies on its own, and where every buffer lies. Whoever executes it
(a backend) walks the lists: all lists advance at once, each in its own order, and the only
order between two lists is a `Record` that comes before a `Wait` of the same event.

Invariants, proved for any plan by `Plan.validate`:

* every operator is launched once, on one device; every needed copy is there;
* every event is recorded exactly once, and no circle of waits blocks the lists;
* two accesses to the same bytes, one of them a write, are ordered by program order and
  events, and no value is overwritten before its last reader is done;
* a stage starts after the stage before it on its device has ended and after all its outside
  inputs have arrived;
* before the first instruction the graph inputs lie on the first device; after the last one
  the graph outputs do.
"""

from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from hios.errors import InvalidPlan
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId, OpId, StageId, StreamId, TensorId
from hios.ir.serial import decode_json, encode_json

__all__ = [
    "ALIGNMENT_BYTES",
    "Buffer",
    "Copy",
    "DeviceMemory",
    "EventId",
    "Instruction",
    "Launch",
    "LinkQueue",
    "Plan",
    "Record",
    "StreamQueue",
    "Wait",
]

ALIGNMENT_BYTES = 256
"""Every offset is a multiple of this: what CUDA allocations promise, and four cache lines."""

EventId: TypeAlias = int
"""Events count from zero within a plan."""


class Launch(msgspec.Struct, frozen=True, tag="launch", array_like=True):
    """Run one operator on the device and stream of its list.

    Attributes
    ----------
    op
        The operator.
    stage
        Its stage on a staged device, else None.
    """

    op: OpId
    stage: StageId | None = None


class Copy(msgspec.Struct, frozen=True, tag="copy", array_like=True):
    """Copy one (root) tensor between two devices.

    On a link list the link does it; on a stream list the stream of the destination does.

    Attributes
    ----------
    tensor
        The root tensor.
    src, dst
        Devices.
    """

    tensor: TensorId
    src: DeviceId
    dst: DeviceId


class Record(msgspec.Struct, frozen=True, tag="record", array_like=True):
    """Mark that everything before it in this list is done."""

    event: EventId


class Wait(msgspec.Struct, frozen=True, tag="wait", array_like=True):
    """Go on only when the event is recorded."""

    event: EventId


Instruction: TypeAlias = Launch | Copy | Record | Wait


@dataclass(frozen=True, slots=True)
class StreamQueue:
    """What one stream of one device does, in order."""

    device: DeviceId
    stream: StreamId
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True, slots=True)
class LinkQueue:
    """What one directed link does, in order: copies, records and waits."""

    src: DeviceId
    dst: DeviceId
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True, slots=True)
class Buffer:
    """Where a root tensor lies in the arena, or in the weight region, of a device.

    Views lie where their root lies.
    """

    tensor: TensorId
    offset: int
    bytes: int

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.offset + self.bytes


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """The memory of one device.

    Attributes
    ----------
    device
        The device.
    arena_bytes
        Size of the arena of inputs, activations and outputs.
    buffers
        Their places, by tensor.
    weight_bytes
        Size of the weight region, written once before the first run.
    weights
        The weights that operators of this device read (on the first device also those that
        the graph returns), by tensor.
    lower_bound_bytes
        No arena for this plan can be smaller: the largest sum of buffers alive at once.
    """

    device: DeviceId
    arena_bytes: int = 0
    buffers: tuple[Buffer, ...] = ()
    weight_bytes: int = 0
    weights: tuple[Buffer, ...] = ()
    lower_bound_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """A schedule made explicit (see the module).

    Attributes
    ----------
    graph
        Name of the graph.
    devices
        Number of devices of the machine.
    streams
        One list per stream used, by device and stream.
    links
        One list per link that copies on its own, by source and destination.
    events
        Number of events.
    memory
        One entry per device, in order.
    """

    graph: str
    devices: int
    streams: tuple[StreamQueue, ...]
    links: tuple[LinkQueue, ...]
    events: int
    memory: tuple[DeviceMemory, ...] = ()

    @property
    def queues(self) -> tuple[StreamQueue | LinkQueue, ...]:
        """All lists, streams first."""
        return (*self.streams, *self.links)

    def count(self, kind: type[Instruction]) -> int:
        """Return how many instructions are of `kind`."""
        return sum(
            isinstance(instruction, kind)
            for queue in self.queues
            for instruction in queue.instructions
        )

    def validate(self, graph: OpGraph) -> None:
        """Prove that the plan computes `graph` without a race or a deadlock.

        The proof reads the instruction lists and the memory map alone; see
        `graph_executor.race_detector`.

        Raises
        ------
        InvalidPlan
            On the first rule broken.
        """
        from graph_executor.race_detector import check_plan

        check_plan(self, graph)

    def to_json(self) -> bytes:
        """Encode as JSON; `from_json` gives an equal plan."""
        return encode_json(self)

    @staticmethod
    def from_json(data: bytes | str, what: str = "plan") -> "Plan":
        """Decode; call `validate` to check it against its graph.

        Raises
        ------
        InvalidPlan
            When `data` is no plan.
        """
        return decode_json(data, Plan, InvalidPlan, what)
