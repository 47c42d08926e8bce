"""From decided devices and times to a `Schedule`."""

from collections.abc import Mapping, Sequence

from hios.ir.ids import DeviceId
from hios.ir.schedule import Placement, Schedule
from hios.problem import Problem

__all__ = ["assemble"]


def assemble(
    problem: Problem,
    scheduler: str,
    order: Sequence[int],
    device: Sequence[int],
    notes: Mapping[str, str | int | float] | None = None,
) -> Schedule:
    """Return the one-stream schedule that issues nodes in `order`, each on its device.

    Parameters
    ----------
    problem
        Whose nodes are meant.
    scheduler
        Name of the algorithm.
    order
        All nodes, topological; virtual ones are left out of the schedule.
    device
        By node.
    notes
        For `Schedule.notes`.
    """
    placements = tuple(
        Placement(op, DeviceId(device[node]))
        for node in order
        if (op := problem.op_of[node]) is not None
    )
    return Schedule(scheduler, placements, notes=dict(notes or {}))
