"""A schedule: on which device, in which stream and stage, and in which order operators run.

Placements stand in *issue order*, a topological order of the whole graph; the order on each
stream and the order of the stages of a device follow from it. A device is either staged
(every placement on it has a stage) or not.

Meaning (simulator and executor agree on it):

* Operators on one stream run in order.
* A stage starts when the previous stage of its device has ended and every outside input of
  all its groups is present. A group is the operators of the stage on one stream. Groups run
  at once; the outputs of the stage exist at its end.
* A tensor consumed on another device is copied once per destination device
  (`required_copies`). Graph inputs start on, and graph outputs return to, the first device.
* A directed link carries one copy at a time in the order of `Schedule.links`; where a copy
  occupies its destination (`Machine.copies_occupy`), it runs there immediately before the
  first stage (or operator, on a device without stages) that needs it in issue order, the
  copies of one stage in order of link order, then source device; copies of graph outputs run
  after everything else on the first device.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hios.errors import InfeasibleSchedule
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId, OpId, StageId, StreamId, TensorId
from hios.ir.serial import decode_json, encode_json

__all__ = ["Copy", "LinkOrder", "Placement", "Schedule", "required_copies"]

FIRST_DEVICE = DeviceId(0)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one operator runs.

    Attributes
    ----------
    op, device, stream
        Stream ids count from zero on each device.
    stage
        Counts up along each device; None on a device without stages.
    """

    op: OpId
    device: DeviceId
    stream: StreamId = StreamId(0)
    stage: StageId | None = None


@dataclass(frozen=True, slots=True)
class LinkOrder:
    """The (root) tensors that go over one directed link, in order."""

    src: DeviceId
    dst: DeviceId
    tensors: tuple[TensorId, ...]


@dataclass(frozen=True, slots=True)
class Copy:
    """One value that has to go from one device to another."""

    tensor: TensorId
    src: DeviceId
    dst: DeviceId


@dataclass(frozen=True, slots=True)
class Schedule:
    """A complete decision.

    Attributes
    ----------
    scheduler
        Name of the algorithm.
    placements
        Every operator once, in issue order.
    links
        Copies of each directed link in order; empty means 'not decided yet' where copies are
        needed (`hios.simulator.complete_links` decides).
    alternatives
        Names of the graph's alternatives that were chosen.
    notes
        What the scheduler wants to tell: evaluations, whether a budget truncated it, ...
    """

    scheduler: str
    placements: tuple[Placement, ...]
    links: tuple[LinkOrder, ...] = ()
    alternatives: tuple[str, ...] = ()
    notes: Mapping[str, str | int | float] = field(default_factory=dict)

    def placement_of(self) -> dict[OpId, Placement]:
        """Return the placements by operator."""
        return {placement.op: placement for placement in self.placements}

    def stream_orders(self) -> dict[tuple[DeviceId, StreamId], tuple[OpId, ...]]:
        """Return the operators of each used stream in order."""
        orders: dict[tuple[DeviceId, StreamId], list[OpId]] = {}
        for placement in self.placements:
            orders.setdefault((placement.device, placement.stream), []).append(placement.op)
        return {key: tuple(orders[key]) for key in sorted(orders)}

    def stages(self) -> dict[DeviceId, tuple[tuple[tuple[OpId, ...], ...], ...]]:
        """Return, for each staged device, its stages in order; a stage is a tuple of groups.

        Groups of a stage are ordered by stream.
        """
        found: dict[DeviceId, dict[StageId, dict[StreamId, list[OpId]]]] = {}
        for placement in self.placements:
            if placement.stage is not None:
                groups = found.setdefault(placement.device, {}).setdefault(placement.stage, {})
                groups.setdefault(placement.stream, []).append(placement.op)
        return {
            device: tuple(
                tuple(tuple(groups[stream]) for stream in sorted(groups))
                for _, groups in sorted(stages.items())
            )
            for device, stages in sorted(found.items())
        }

    def devices_used(self) -> tuple[DeviceId, ...]:
        """Return the devices that run at least one operator, ascending."""
        return tuple(sorted({placement.device for placement in self.placements}))

    def to_json(self) -> bytes:
        """Encode as JSON; `from_json` gives an equal schedule."""
        return encode_json(self)

    @staticmethod
    def from_json(data: bytes | str, what: str = "schedule") -> "Schedule":
        """Decode; call `hios.ir.validation.validate_schedule` to check it against a graph.

        Raises
        ------
        InfeasibleSchedule
            When `data` is no schedule.
        """
        return decode_json(data, Schedule, InfeasibleSchedule, what)


def required_copies(graph: OpGraph, schedule: Schedule) -> tuple[Copy, ...]:
    """Return every copy that a schedule needs, each (root tensor, destination) once.

    Weights are resident on each device that reads them and are never copied at run time.

    Returns
    -------
    tuple of Copy
        Sorted by the first reader in issue order, then tensor id; copies of graph outputs to
        the first device last.
    """
    device_of = {placement.op: placement.device for placement in schedule.placements}
    inputs = set(graph.inputs)
    copies: dict[tuple[TensorId, DeviceId], Copy] = {}

    def need(tensor: TensorId, dst: DeviceId) -> None:
        source = graph.tensors[tensor].producer
        if source is None and tensor not in inputs:
            return
        src = FIRST_DEVICE if source is None else device_of[source]
        if src != dst:
            copies.setdefault((tensor, dst), Copy(tensor, src, dst))

    for placement in schedule.placements:
        for tensor in sorted({graph.root(t) for t in graph.operators[placement.op].inputs}):
            need(tensor, placement.device)
    for tensor in sorted({graph.root(t) for t in graph.outputs}):
        need(tensor, FIRST_DEVICE)
    return tuple(copies.values())
