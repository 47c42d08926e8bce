"""What an artifact foretells of its runs: the simulated timeline and the memory of each device.

It is kept beside the schedule (``prediction.json``) for readers without costs or compiler, and
for comparison with what is measured later. Nothing that runs reads it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from graph_executor.plan import Plan
from graph_executor.planner import make_plan
from hios.errors import ArtifactMismatch
from hios.ir.graph import OpGraph
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.ir.serial import decode_json, encode_json
from hios.ir.timeline import Timeline

__all__ = ["MemoryUse", "Prediction", "memory_of", "memory_of_plan", "predict"]


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """The memory of one device.

    Attributes
    ----------
    device
        Its name.
    arena_bytes
        Inputs, activations and outputs.
    weight_bytes
        Its copy of the weights that it reads.
    lower_bound_bytes
        No arena for this plan can be smaller.
    capacity_bytes
        What the device has; None for unlimited.
    operators
        How many run there.
    """

    device: str
    arena_bytes: int
    weight_bytes: int
    lower_bound_bytes: int
    capacity_bytes: int | None
    operators: int

    @property
    def total_bytes(self) -> int:
        """Arena and weights."""
        return self.arena_bytes + self.weight_bytes


@dataclass(frozen=True, slots=True)
class Prediction:
    """See the module; `timeline` is None where the costs were not known."""

    memory: tuple[MemoryUse, ...]
    timeline: Timeline | None = None

    def to_json(self) -> bytes:
        """Encode as JSON; `from_json` gives an equal one."""
        return encode_json(self, indent=2)

    @staticmethod
    def from_json(data: bytes | str, what: str = "prediction") -> "Prediction":
        """Decode.

        Raises
        ------
        ArtifactMismatch
            When `data` is none.
        """
        return decode_json(data, Prediction, ArtifactMismatch, what)


def predict(
    graph: OpGraph, machine: Machine, schedule: Schedule, timeline: Timeline | None = None
) -> Prediction:
    """Plan the memory of a schedule, and keep its timeline beside it.

    Raises
    ------
    InfeasibleSchedule
        When the schedule cannot be planned.
    """
    return Prediction(memory_of(graph, machine, schedule), timeline)


def memory_of(graph: OpGraph, machine: Machine, schedule: Schedule) -> tuple[MemoryUse, ...]:
    """Return the memory of every device, by planning the schedule.

    Raises
    ------
    InfeasibleSchedule
        When it cannot be planned.
    """
    plan = make_plan(graph, machine, schedule)
    counts = [0] * len(machine.devices)
    for placement in schedule.placements:
        counts[placement.device] += 1
    return memory_of_plan(plan, machine, counts)


def memory_of_plan(plan: Plan, machine: Machine, operators: Sequence[int]) -> tuple[MemoryUse, ...]:
    """Return the memory of every device of a plan; `operators` counts what runs on each."""
    return tuple(
        MemoryUse(
            machine.devices[memory.device].name,
            memory.arena_bytes,
            memory.weight_bytes,
            memory.lower_bound_bytes,
            machine.devices[memory.device].memory_bytes,
            operators[memory.device],
        )
        for memory in plan.memory
    )
