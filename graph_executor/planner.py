"""From a schedule to a plan: the fewest events that keep every dependency.

The planner first lists the *actions* (launches and copies) of every stream and link in order,
then the actions that each one must follow:

* the writers of what it reads (on its own device: the operator, or the copy that brings it);
* for the first operator of each group of a stage, the last operator of every group of the
  stage before it on that device, and the arrival of every outside input of the whole stage.

Dependencies that follow from program order and from other dependencies are dropped (the
transitive reduction of a directed acyclic graph is unique: Aho, Garey and Ullman, 1972). What
remains costs one wait each, and one record for each action that anybody waits for.

A copy waits for the operator that writes its tensor, not for the rest of that operator's
stage: it may run earlier than the simulator says, never later.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from graph_executor.arena import plan_memory
from graph_executor.plan import (
    Copy,
    Instruction,
    Launch,
    LinkQueue,
    Plan,
    Record,
    StreamQueue,
    Wait,
)
from hios.errors import InfeasibleSchedule
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId, OpId, StageId, StreamId, TensorId
from hios.ir.machine import Machine
from hios.ir.schedule import FIRST_DEVICE, Schedule, required_copies

__all__ = ["Action", "ActionGraph", "make_plan", "order_actions"]

StreamKey = tuple[DeviceId, StreamId]
LinkKey = tuple[DeviceId, DeviceId]
Arrival = tuple[TensorId, DeviceId]


@dataclass(frozen=True, slots=True)
class Action:
    """One launch or copy in a list.

    Attributes
    ----------
    what
        The instruction.
    queue
        Position of its list in `ActionGraph.queues`.
    """

    what: Launch | Copy
    queue: int


@dataclass(frozen=True, slots=True)
class ActionGraph:
    """Actions, their lists, and what each must follow.

    Attributes
    ----------
    actions
        In a topological order.
    queues
        For each list its key and its actions in order; stream keys first.
    stream_count
        How many of the lists are streams.
    waits
        For each action, the actions of other lists that it waits for: the transitive
        reduction.
    before
        For each action, the bit set of all actions that happen before it.
    """

    actions: tuple[Action, ...]
    queues: tuple[tuple[tuple[int, int], tuple[int, ...]], ...]
    stream_count: int
    waits: tuple[tuple[int, ...], ...]
    before: tuple[int, ...]


def make_plan(graph: OpGraph, machine: Machine, schedule: Schedule) -> Plan:
    """Turn a schedule into a plan.

    Parameters
    ----------
    graph
        The operator graph.
    machine
        Its devices say whether copies occupy their destination.
    schedule
        A valid schedule. Where `Schedule.links` is empty, copies go in the order of their
        first reader.

    Returns
    -------
    Plan
        With its memory map.

    Raises
    ------
    InfeasibleSchedule
        When the schedule orders actions in a circle, lists other copies than it needs, or
        chooses alternatives.

    Notes
    -----
    O(n·e/w) for n actions, e dependencies and machine words of w bits: a few milliseconds
    for 400 operators; packing the arenas costs more.
    """
    ordered = order_actions(graph, machine, schedule)
    event_of: dict[int, int] = {}
    for waits in ordered.waits:
        for action in waits:
            event_of.setdefault(action, len(event_of))
    lists = []
    for _, members in ordered.queues:
        instructions: list[Instruction] = []
        for member in members:
            instructions += [Wait(event_of[action]) for action in ordered.waits[member]]
            instructions.append(ordered.actions[member].what)
            if member in event_of:
                instructions.append(Record(event_of[member]))
        lists.append(tuple(instructions))
    streams = []
    links = []
    for position, ((first, second), _) in enumerate(ordered.queues):
        if position < ordered.stream_count:
            streams.append(StreamQueue(DeviceId(first), StreamId(second), lists[position]))
        else:
            links.append(LinkQueue(DeviceId(first), DeviceId(second), lists[position]))
    return Plan(
        graph=graph.name,
        devices=len(machine.devices),
        streams=tuple(streams),
        links=tuple(links),
        events=len(event_of),
        memory=plan_memory(graph, len(machine.devices), _steps(ordered), ordered.before),
    )


def order_actions(graph: OpGraph, machine: Machine, schedule: Schedule) -> ActionGraph:
    """List the actions of a schedule and reduce what each must wait for.

    Raises
    ------
    InfeasibleSchedule
        As `make_plan`.
    """
    if schedule.alternatives:
        raise InfeasibleSchedule(
            f"schedule chooses the merged operator {schedule.alternatives[0]!r}, which the "
            "executor cannot run; schedule without alternatives"
        )
    if sorted(placement.op for placement in schedule.placements) != list(
        range(len(graph.operators))
    ):
        raise InfeasibleSchedule(
            f"schedule places {len(schedule.placements)} operators, not each of the "
            f"{len(graph.operators)} operators of graph {graph.name!r} once"
        )
    lists = _Lists(graph, machine, schedule)
    keys = [*sorted(lists.streams), *sorted(lists.links)]
    queues = [lists.streams[key] for key in sorted(lists.streams)] + [
        lists.links[key] for key in sorted(lists.links)
    ]
    actions = [Action(what, position) for position, queue in enumerate(queues) for what in queue]
    index: dict[Launch | Copy, int] = {action.what: i for i, action in enumerate(actions)}
    previous: list[int | None] = []
    for queue in queues:
        start = len(previous)
        previous += [None if i == 0 else start + i - 1 for i in range(len(queue))]
    needs = _dependencies(graph, schedule, lists, actions, index)
    order = _topological_order(graph, actions, previous, needs)
    rank = {old: new for new, old in enumerate(order)}
    before: list[int] = []
    waits: list[tuple[int, ...]] = []
    for old in order:
        last = previous[old]
        before_mask, kept = _reduce(
            {rank[need] for need in needs[old]}, None if last is None else rank[last], before
        )
        before.append(before_mask)
        waits.append(kept)
    grouped: list[list[int]] = [[] for _ in queues]
    for new, old in enumerate(order):
        grouped[actions[old].queue].append(new)
    return ActionGraph(
        actions=tuple(actions[old] for old in order),
        queues=tuple((key, tuple(members)) for key, members in zip(keys, grouped, strict=True)),
        stream_count=len(lists.streams),
        waits=tuple(waits),
        before=tuple(before),
    )


class _Lists:
    """The launches and copies of every stream and link, in order."""

    def __init__(self, graph: OpGraph, machine: Machine, schedule: Schedule) -> None:
        self.streams: dict[StreamKey, list[Launch | Copy]] = {}
        self.links: dict[LinkKey, list[Launch | Copy]] = {}
        self.copies: dict[Arrival, Copy] = {}
        placement_of = schedule.placement_of()
        rank: dict[Arrival, int] = {}
        for link in _link_orders(graph, schedule):
            for position, tensor in enumerate(link[1]):
                copy = Copy(tensor, *link[0])
                self.copies[tensor, copy.dst] = copy
                rank[tensor, copy.dst] = position
                if not machine.copies_occupy(copy.dst):
                    self.links.setdefault(link[0], []).append(copy)
        # Copies that occupy their destination: found by the first placement that reads them.
        waiting = {
            arrival for arrival, copy in self.copies.items() if machine.copies_occupy(copy.dst)
        }
        stage_streams: dict[tuple[DeviceId, StageId], StreamId] = {}
        needed: dict[tuple[DeviceId, StageId] | OpId, list[Arrival]] = {}
        for placement in schedule.placements:
            if placement.stage is not None:
                key = (placement.device, placement.stage)
                stage_streams[key] = min(placement.stream, stage_streams.get(key, placement.stream))
        readers = sorted(
            schedule.placements, key=lambda p: (p.device, -1 if p.stage is None else p.stage)
        )
        for placement in readers:
            operator = graph.operators[placement.op]
            for tensor in sorted({graph.root(t) for t in operator.inputs}):
                arrival = (tensor, placement.device)
                if arrival in waiting:
                    waiting.remove(arrival)
                    where = (
                        placement.op
                        if placement.stage is None
                        else (placement.device, placement.stage)
                    )
                    needed.setdefault(where, []).append(arrival)
        brought: set[tuple[DeviceId, StageId]] = set()
        for placement in sorted(
            schedule.placements, key=lambda p: -1 if p.stage is None else p.stage
        ):
            own = self.streams.setdefault((placement.device, placement.stream), [])
            place: tuple[DeviceId, StageId] | OpId = placement.op
            target = own
            if placement.stage is not None:
                place = (placement.device, placement.stage)
                target = self.streams.setdefault((placement.device, stage_streams[place]), [])
            if placement.stage is None or place not in brought:
                for arrival in self._by_link(needed.get(place, ()), rank):
                    target.append(self.copies[arrival])
                if placement.stage is not None:
                    brought.add((placement.device, placement.stage))
            own.append(Launch(placement.op, placement.stage))
        if waiting:
            first = min(
                (key for key in self.streams if key[0] == FIRST_DEVICE),
                default=(FIRST_DEVICE, StreamId(0)),
            )
            home = self.streams.setdefault(first, [])
            home.extend(self.copies[arrival] for arrival in self._by_link(waiting, rank))
        self.placement_of = placement_of

    def _by_link(self, arrivals: Iterable[Arrival], rank: dict[Arrival, int]) -> list[Arrival]:
        return sorted(arrivals, key=lambda a: (rank[a], self.copies[a].src, a[0]))


def _link_orders(graph: OpGraph, schedule: Schedule) -> list[tuple[LinkKey, tuple[TensorId, ...]]]:
    required = required_copies(graph, schedule)
    if not schedule.links:
        orders: dict[LinkKey, list[TensorId]] = {}
        for copy in required:
            orders.setdefault((copy.src, copy.dst), []).append(copy.tensor)
        return [(key, tuple(orders[key])) for key in sorted(orders)]
    given = [((link.src, link.dst), link.tensors) for link in schedule.links]
    listed = sorted((t, *key) for key, tensors in given for t in tensors)
    if listed != sorted((c.tensor, c.src, c.dst) for c in required):
        raise InfeasibleSchedule(
            f"schedule lists {len(listed)} copies on its links, not just the {len(required)} "
            "that its placements need; leave the links empty to have them ordered"
        )
    return sorted(given)


def _dependencies(
    graph: OpGraph,
    schedule: Schedule,
    lists: _Lists,
    actions: list[Action],
    index: dict[Launch | Copy, int],
) -> list[set[int]]:
    launch_of = {
        action.what.op: i for i, action in enumerate(actions) if isinstance(action.what, Launch)
    }

    def writer(tensor: TensorId, device: DeviceId) -> int | None:
        """Return the action that brings a root tensor to a device; None: it is there."""
        if (copy := lists.copies.get((tensor, device))) is not None:
            return index[copy]
        producer = graph.tensors[tensor].producer
        return None if producer is None else launch_of[producer]

    needs: list[set[int]] = [set() for _ in actions]
    for i, action in enumerate(actions):
        if isinstance(action.what, Copy):
            producer = graph.tensors[action.what.tensor].producer
            if producer is not None:
                needs[i].add(launch_of[producer])
            continue
        device = lists.placement_of[action.what.op].device
        for tensor in {graph.root(t) for t in graph.operators[action.what.op].inputs}:
            if (source := writer(tensor, device)) is not None:
                needs[i].add(source)
    for device, stages in schedule.stages().items():
        lasts: list[int] = []
        for groups in stages:
            inside = {op for group in groups for op in group}
            outside = {
                source
                for op in inside
                for tensor in {graph.root(t) for t in graph.operators[op].inputs}
                if graph.tensors[tensor].producer not in inside
                and (source := writer(tensor, device)) is not None
            }
            for group in groups:
                needs[launch_of[group[0]]].update(lasts, outside)
            lasts = [launch_of[group[-1]] for group in groups]
    return needs


def _topological_order(
    graph: OpGraph, actions: list[Action], previous: list[int | None], needs: list[set[int]]
) -> list[int]:
    followers: list[list[int]] = [[] for _ in actions]
    missing = [0] * len(actions)
    for i, before in enumerate(previous):
        for source in needs[i] if before is None else needs[i] | {before}:
            followers[source].append(i)
            missing[i] += 1
    ready = [i for i, count in enumerate(missing) if count == 0]
    order = []
    while ready:
        current = ready.pop()
        order.append(current)
        for follower in followers[current]:
            missing[follower] -= 1
            if missing[follower] == 0:
                ready.append(follower)
    if len(order) < len(actions):
        stuck = next(
            action.what
            for i, action in enumerate(actions)
            if missing[i] and isinstance(action.what, Launch)
        )
        raise InfeasibleSchedule(
            f"schedule makes operator {graph.operators[stuck.op].name!r} wait for itself, "
            "through its streams, stages and links; reorder them"
        )
    return order


def _reduce(
    needs: set[int], previous: int | None, before: list[int]
) -> tuple[int, tuple[int, ...]]:
    """Return what happens before an action, and the waits that program order does not imply."""
    known = 0 if previous is None else before[previous] | 1 << previous
    kept = []
    # A later action (in topological order) can imply an earlier one, never the reverse.
    for need in sorted(needs, reverse=True):
        if not known >> need & 1:
            known |= before[need] | 1 << need
            kept.append(need)
    return known, tuple(sorted(kept))


def _steps(ordered: ActionGraph) -> tuple[tuple[Launch | Copy, DeviceId], ...]:
    """Return every action with the device on which it runs (a link's copy: its destination)."""
    steps = []
    for action in ordered.actions:
        key = ordered.queues[action.queue][0]
        is_stream = action.queue < ordered.stream_count
        steps.append((action.what, DeviceId(key[0] if is_stream else key[1])))
    return tuple(steps)
