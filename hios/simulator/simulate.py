"""From a schedule to a predicted timeline, and to the order of copies on its links."""

from dataclasses import replace

from hios.costs.protocol import Costs
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId, StreamId, TensorId
from hios.ir.machine import Machine
from hios.ir.schedule import LinkOrder, Schedule
from hios.ir.timeline import Timeline, TimelineEvent
from hios.merge import costs_of_schedule
from hios.simulator.engine import run_layout
from hios.simulator.layout import Layout, Task, build_layout

__all__ = ["complete_links", "makespan", "simulate"]


def simulate(graph: OpGraph, machine: Machine, costs: Costs, schedule: Schedule) -> Timeline:
    """Predict when everything runs.

    Copies of a schedule without links are served in the order in which `complete_links`
    would put them.

    Parameters
    ----------
    graph, machine, costs
        What to run, where, and how long it takes.
    schedule
        A valid schedule (`hios.ir.validation.validate_schedule`).

    Returns
    -------
    Timeline
        Predicted. The operators of a stage of several groups are stretched by one common
        factor so that the longest group fills the stage.

    Raises
    ------
    InfeasibleSchedule
        When operators are missing, links do not carry just the copies needed, or stages wait
        for each other.
    InvalidCosts
        When the schedule chose an alternative whose time nobody knows.

    Notes
    -----
    O((V + E) log V) for V operators and copies and E dependencies.
    """
    costs = costs_of_schedule(graph, costs, schedule)
    layout = build_layout(graph, machine, costs, schedule)
    times = run_layout(layout, costs)
    starts, ends = times.start_us, times.end_us
    events: list[TimelineEvent] = []
    for task, start, end in zip(layout.tasks, starts, ends, strict=True):
        if task.copy is not None:
            copy = task.copy
            events.append(
                TimelineEvent(
                    "transfer", copy.tensor, copy.src, start, end, task.stream, None, copy.dst
                )
            )
        elif task.op is not None:
            events.append(TimelineEvent("operator", task.op, task.device, start, end, task.stream))
    events.extend(_stage_events(schedule, layout, starts, ends, costs))
    events.sort(key=lambda e: (e.start_us, e.kind, e.device, e.stream or 0, e.end_us, e.subject))
    return Timeline("predicted", max(ends, default=0.0), tuple(events))


def makespan(graph: OpGraph, machine: Machine, costs: Costs, schedule: Schedule) -> float:
    """Return the predicted time in µs until everything is done; cheaper than `simulate`.

    Raises
    ------
    InfeasibleSchedule
        As `simulate`.
    """
    costs = costs_of_schedule(graph, costs, schedule)
    times = run_layout(build_layout(graph, machine, costs, schedule), costs)
    return max(times.end_us, default=0.0)


def complete_links(graph: OpGraph, machine: Machine, costs: Costs, schedule: Schedule) -> Schedule:
    """Decide the order of the copies on every link.

    On a link, copies go in the order of their predicted ready times, then tensor ids; the
    prediction includes the queueing. Where copies occupy their destination: in the order of
    first use. A decision that is already there is replaced.

    Returns
    -------
    Schedule
        The same placements with `Schedule.links` filled.

    Raises
    ------
    InfeasibleSchedule
        As `simulate`.
    """
    costs = costs_of_schedule(graph, costs, schedule)
    undecided = replace(schedule, links=())
    layout = build_layout(graph, machine, costs, undecided)
    times = run_layout(layout, costs)
    orders: dict[tuple[DeviceId, DeviceId], list[tuple[float, int, TensorId]]] = {}
    for index, task in enumerate(layout.tasks):
        copy = task.copy
        if copy is None:
            continue
        if machine.copies_occupy(copy.dst):
            # By first use: copies were laid out in that order.
            key = (0.0, index, copy.tensor)
        elif machine.is_contended:
            # As they were served: among copies without duration that is more than the time.
            key = (times.start_us[index], times.sequence[index], copy.tensor)
        else:
            key = (times.start_us[index], 0, copy.tensor)
        orders.setdefault((copy.src, copy.dst), []).append(key)
    links = tuple(
        LinkOrder(src, dst, tuple(tensor for _, _, tensor in sorted(keys)))
        for (src, dst), keys in sorted(orders.items())
    )
    return replace(undecided, links=links)


def _stage_events(
    schedule: Schedule, layout: Layout, starts: list[float], ends: list[float], costs: Costs
) -> list[TimelineEvent]:
    stream_of: dict[int, StreamId] = {p.op: p.stream for p in schedule.placements}
    events: list[TimelineEvent] = []
    for task, start, end in zip(layout.tasks, starts, ends, strict=True):
        if task.groups:
            events.extend(_events_of_stage(task, start, end, stream_of, costs))
    return events


def _events_of_stage(
    task: Task, start: float, end: float, stream_of: dict[int, StreamId], costs: Costs
) -> list[TimelineEvent]:
    solo = [[costs.operator_us(op, task.device) for op in group] for group in task.groups]
    longest = max(sum(times) for times in solo)
    stretch = (end - start) / longest if longest > 0.0 else 1.0
    events = []
    for group, times in zip(task.groups, solo, strict=True):
        now = start
        for op, time in zip(group, times, strict=True):
            # Rounding must not push an operator past the end of its stage.
            until = min(now + time * stretch, end)
            events.append(
                TimelineEvent("operator", op, task.device, now, until, stream_of[op], task.stage)
            )
            now = until
    return events
