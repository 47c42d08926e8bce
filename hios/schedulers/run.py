"""Run a scheduler by name, and trust nothing that it returns."""

from hios.costs.protocol import Costs
from hios.ir.graph import OpGraph
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.ir.validation import validate_schedule
from hios.schedulers.registry import get_scheduler
from hios.simulator import complete_links

__all__ = ["schedule"]


def schedule(
    name: str, graph: OpGraph, machine: Machine, costs: Costs, **options: object
) -> Schedule:
    """Decide with the scheduler called `name`.

    Parameters
    ----------
    name
        See `list_schedulers`.
    graph, machine, costs
        What to run, where, and how long it takes.
    **options
        Of that scheduler.

    Returns
    -------
    Schedule
        Valid, with the order of every link decided.

    Raises
    ------
    UnknownScheduler
        When there is none of that name.
    InvalidOption
        When it has no such option, or the value is not allowed.
    InfeasibleSchedule
        When what it decided cannot run on this machine, for example for want of memory.
    """
    scheduler = get_scheduler(name)
    scheduler.check_options(options)
    decided = scheduler.function(graph, machine, costs, **options)
    validate_schedule(graph, machine, decided)
    # Links that the simulator has just served are right by construction.
    return decided if decided.links else complete_links(graph, machine, costs, decided)
