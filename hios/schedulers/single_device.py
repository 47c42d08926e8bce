"""What the algorithms for one device have in common: its choice, and the final `Schedule`."""

from collections.abc import Mapping, Sequence

from hios.errors import InvalidOption, UnknownDevice
from hios.ir.ids import DeviceId, OpId, StageId, StreamId
from hios.ir.machine import Machine
from hios.ir.schedule import Placement, Schedule

__all__ = ["chosen_device", "require_at_least", "staged_schedule", "streamed_schedule"]

Notes = Mapping[str, str | int | float]


def chosen_device(machine: Machine, device: int) -> DeviceId:
    """Return a device of the machine by its number.

    Raises
    ------
    UnknownDevice
        When the machine has no such device.
    """
    if not 0 <= device < len(machine.devices):
        raise UnknownDevice(
            f"no device {device} on machine {machine.name!r}; it has devices 0 to "
            f"{len(machine.devices) - 1}"
        )
    return DeviceId(device)


def require_at_least(least: float, **options: float) -> None:
    """Check the lower limit of some options.

    Raises
    ------
    InvalidOption
        With the name of the option that is below `least`, or no number.
    """
    for name, value in options.items():
        if not value >= least:
            raise InvalidOption(f"option {name} is {value}; need at least {least}")


def staged_schedule(
    scheduler: str,
    stages: Sequence[Sequence[Sequence[OpId]]],
    device: DeviceId,
    notes: Notes,
    alternatives: Sequence[str] = (),
) -> Schedule:
    """Return the schedule of some stages, one after another on one device.

    Parameters
    ----------
    scheduler
        Name of the algorithm.
    stages
        Each a list of groups; the i-th group runs on stream i.
    device
        Where.
    notes, alternatives
        For the fields of `Schedule` of that name.
    """
    placements = tuple(
        Placement(op, device, StreamId(stream), StageId(stage))
        for stage, groups in enumerate(stages)
        for stream, group in enumerate(groups)
        for op in group
    )
    return Schedule(
        scheduler, placements, alternatives=tuple(sorted(alternatives)), notes=dict(notes)
    )


def streamed_schedule(
    scheduler: str,
    order: Sequence[tuple[OpId, int]],
    device: DeviceId,
    notes: Notes,
) -> Schedule:
    """Return the schedule without stages that issues operators in order, each on its stream.

    Parameters
    ----------
    scheduler
        Name of the algorithm.
    order
        ``(operator, stream)`` in a topological order.
    device
        Where.
    notes
        For `Schedule.notes`.
    """
    placements = tuple(Placement(op, device, StreamId(stream)) for op, stream in order)
    return Schedule(scheduler, placements, notes=dict(notes))
