"""Is a schedule possible at all?

The check recomputes everything from the placements and the link orders alone: it shares no code
with the simulator. What it promises: a schedule that passes never waits for itself, under the
meaning stated in `hios.ir.schedule`.
"""

from collections import deque
from itertools import pairwise

from hios.errors import CyclicGraph, InfeasibleSchedule
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId, OpId, TensorId
from hios.ir.machine import Machine
from hios.ir.schedule import Copy, Placement, Schedule, required_copies

__all__ = ["memory_needed", "validate_schedule"]

# What waits for what: stages, operators of devices without stages, and copies, by label.
_Node = tuple[str, int, int]


def validate_schedule(graph: OpGraph, machine: Machine, schedule: Schedule) -> None:
    """Check a schedule against its graph and machine.

    Parameters
    ----------
    graph, machine
        Both valid in themselves.
    schedule
        Links may still be undecided (empty).

    Raises
    ------
    InfeasibleSchedule
        An operator is missing or twice; a device, stream or alternative does not exist; the
        issue order breaks a dependency; stage ids of a device go down, or only some of its
        operators have one; operators of different groups of one stage depend on each other;
        the links do not carry just the copies needed; a device runs out of memory.
    CyclicGraph
        Stages, copies and streams wait for each other in a circle.

    Notes
    -----
    O(V + E) for V operators and copies and E dependencies.
    """
    placements = _check_operators(graph, machine, schedule)
    _check_issue_order(graph, schedule)
    _check_stages(schedule)
    copies = required_copies(graph, schedule)
    _check_groups(graph, placements)
    if schedule.links:
        _check_links(copies, schedule)
    known = {alternative.name for alternative in graph.alternatives}
    for name in schedule.alternatives:
        if name not in known:
            raise InfeasibleSchedule(
                f"schedule chooses alternative {name!r}, which graph {graph.name!r} does not offer"
            )
    _check_no_circle(graph, machine, schedule, placements, copies)
    _check_memory(graph, machine, schedule)


def memory_needed(graph: OpGraph, schedule: Schedule) -> dict[DeviceId, int]:
    """Return a lower estimate of the bytes that each used device has to hold.

    Weights of the operators on the device, once each, plus the largest working set (inputs
    and outputs that are no weights) of any one operator.
    """
    weights: dict[DeviceId, set[TensorId]] = {}
    working: dict[DeviceId, int] = {}
    inputs = set(graph.inputs)
    for placement in schedule.placements:
        op = graph.operators[placement.op]
        held = weights.setdefault(placement.device, set())
        size = 0
        for tensor in {graph.root(t) for t in (*op.inputs, *op.outputs)}:
            described = graph.tensors[tensor]
            if described.producer is None and tensor not in inputs:
                held.add(tensor)
            else:
                size += described.bytes
        working[placement.device] = max(size, working.get(placement.device, 0))
    return {
        device: sum(graph.tensors[t].bytes for t in held) + working[device]
        for device, held in weights.items()
    }


def _check_operators(graph: OpGraph, machine: Machine, schedule: Schedule) -> dict[OpId, Placement]:
    placements: dict[OpId, Placement] = {}
    for placement in schedule.placements:
        op, device = placement.op, placement.device
        if not 0 <= op < len(graph.operators):
            raise InfeasibleSchedule(
                f"schedule places operator {op}; graph {graph.name!r} has "
                f"{len(graph.operators)} operators"
            )
        if op in placements:
            raise InfeasibleSchedule(f"schedule places operator {_name(graph, op)} twice")
        if not 0 <= device < len(machine.devices):
            raise InfeasibleSchedule(
                f"schedule places operator {_name(graph, op)} on device {device}; machine "
                f"{machine.name!r} has devices 0 to {len(machine.devices) - 1}"
            )
        streams = machine.devices[device].streams
        if not 0 <= placement.stream < streams:
            raise InfeasibleSchedule(
                f"schedule places operator {_name(graph, op)} on stream {placement.stream} of "
                f"device {machine.devices[device].name}, which has {streams}"
            )
        placements[op] = placement
    missing = [op.id for op in graph.operators if op.id not in placements]
    if missing:
        raise InfeasibleSchedule(
            f"schedule misses {len(missing)} operators, the first is {_name(graph, missing[0])}"
        )
    return placements


def _check_issue_order(graph: OpGraph, schedule: Schedule) -> None:
    position = {placement.op: i for i, placement in enumerate(schedule.placements)}
    for u, v in graph.edges():
        if position[u] > position[v]:
            raise InfeasibleSchedule(
                f"schedule issues operator {_name(graph, v)} before {_name(graph, u)}, on which "
                "it depends"
            )


def _check_stages(schedule: Schedule) -> None:
    last: dict[DeviceId, int | None] = {}
    for placement in schedule.placements:
        before = last.setdefault(placement.device, placement.stage)
        if (before is None) != (placement.stage is None):
            raise InfeasibleSchedule(
                f"on device {placement.device} some operators have a stage and some have none; "
                "give all of them one, or none"
            )
        if before is not None and placement.stage is not None and placement.stage < before:
            raise InfeasibleSchedule(
                f"on device {placement.device} stage {placement.stage} comes after stage {before}; "
                "stages must not go down in issue order"
            )
        last[placement.device] = placement.stage


def _check_groups(graph: OpGraph, placements: dict[OpId, Placement]) -> None:
    for u, v in graph.edges():
        first, second = placements[u], placements[v]
        if (
            first.stage is not None
            and (first.device, first.stage) == (second.device, second.stage)
            and first.stream != second.stream
        ):
            raise InfeasibleSchedule(
                f"operator {_name(graph, v)} depends on {_name(graph, u)} in another group of the "
                f"same stage {first.stage} of device {first.device}; put them on one stream or "
                "in two stages"
            )


def _check_links(copies: tuple[Copy, ...], schedule: Schedule) -> None:
    needed = set(copies)
    seen: set[Copy] = set()
    pairs: set[tuple[DeviceId, DeviceId]] = set()
    for link in schedule.links:
        if (link.src, link.dst) in pairs:
            raise InfeasibleSchedule(f"link {link.src} -> {link.dst} has two orders; give one")
        pairs.add((link.src, link.dst))
        for tensor in link.tensors:
            copy = Copy(tensor, link.src, link.dst)
            if copy in seen:
                raise InfeasibleSchedule(
                    f"link {link.src} -> {link.dst} carries tensor {tensor} twice"
                )
            if copy not in needed:
                raise InfeasibleSchedule(
                    f"link {link.src} -> {link.dst} carries tensor {tensor}, which nobody needs "
                    "there"
                )
            seen.add(copy)
    for copy in copies:
        if copy not in seen:
            raise InfeasibleSchedule(
                f"tensor {copy.tensor} is needed on device {copy.dst}, but link {copy.src} -> "
                f"{copy.dst} does not carry it"
            )


def _check_no_circle(
    graph: OpGraph,
    machine: Machine,
    schedule: Schedule,
    placements: dict[OpId, Placement],
    copies: tuple[Copy, ...],
) -> None:
    follows: dict[_Node, list[_Node]] = {_node(placement): [] for placement in placements.values()}
    copy_node: dict[tuple[TensorId, DeviceId], _Node] = {}
    for copy in copies:
        node = ("copy", int(copy.tensor), int(copy.dst))
        copy_node[copy.tensor, copy.dst] = node
        source = graph.tensors[copy.tensor].producer
        follows[node] = []
        if source is not None:
            follows[_node(placements[source])].append(node)

    # Data: a reader waits for the copy, or for the producer on its own device.
    first_reader: dict[_Node, _Node] = {}
    for placement in schedule.placements:
        reader = _node(placement)
        for tensor in sorted({graph.root(t) for t in graph.operators[placement.op].inputs}):
            arriving = copy_node.get((tensor, placement.device))
            source = graph.tensors[tensor].producer
            if arriving is not None:
                follows[arriving].append(reader)
                first_reader.setdefault(arriving, reader)
            elif source is not None and _node(placements[source]) != reader:
                follows[_node(placements[source])].append(reader)

    # Order: streams, staged devices and links serve one after another.
    brought: dict[_Node, list[_Node]] = {}
    for _, arriving in sorted(_occupying_copies(machine, schedule, copies, copy_node)):
        if arriving in first_reader:
            brought.setdefault(first_reader[arriving], []).append(arriving)
    queues: dict[tuple[int, int], dict[_Node, None]] = {}
    for placement in schedule.placements:
        lane = int(placement.stream) if placement.stage is None else -1
        queue = queues.setdefault((placement.device, lane), {})
        reader = _node(placement)
        queue.update(dict.fromkeys((*brought.get(reader, ()), reader)))
    chains: list[list[_Node]] = [list(queue) for queue in queues.values()]
    if machine.is_contended:
        for link in schedule.links:
            if not machine.copies_occupy(link.dst):
                chains.append([copy_node[tensor, link.dst] for tensor in link.tensors])
    for chain in chains:
        for before, after in pairwise(chain):
            follows[before].append(after)
    _raise_on_circle(follows, graph)


def _node(placement: Placement) -> _Node:
    if placement.stage is None:
        return ("operator", placement.op, 0)
    return ("stage", placement.device, placement.stage)


def _occupying_copies(
    machine: Machine,
    schedule: Schedule,
    copies: tuple[Copy, ...],
    copy_node: dict[tuple[TensorId, DeviceId], _Node],
) -> list[tuple[tuple[int, int], _Node]]:
    """Return the copies that run on their destination, with their order before one reader."""
    place = {
        (tensor, link.dst): index
        for link in schedule.links
        for index, tensor in enumerate(link.tensors)
    }
    return [
        ((place.get((copy.tensor, copy.dst), 0), copy.src), copy_node[copy.tensor, copy.dst])
        for copy in copies
        if machine.copies_occupy(copy.dst)
    ]


def _raise_on_circle(follows: dict[_Node, list[_Node]], graph: OpGraph) -> None:
    waits = dict.fromkeys(follows, 0)
    for after in follows.values():
        for node in after:
            waits[node] += 1
    ready = deque(node for node, count in waits.items() if count == 0)
    n_left = len(follows)
    while ready:
        node = ready.popleft()
        n_left -= 1
        for later in follows[node]:
            waits[later] -= 1
            if waits[later] == 0:
                ready.append(later)
    if n_left == 0:
        return
    import networkx as nx  # only here, since it takes longer to load than most checks

    stuck: nx.DiGraph[_Node] = nx.DiGraph()
    stuck.add_edges_from((u, v) for u, after in follows.items() if waits[u] for v in after)
    circle = [edge[0] for edge in nx.find_cycle(stuck)]
    shown = [_describe(node, graph) for node in circle[:6]]
    if len(circle) > len(shown):
        shown.append(f"({len(circle) - len(shown)} more)")
    raise CyclicGraph(
        f"schedule waits for itself: {' -> '.join([*shown, _describe(circle[0], graph)])}"
    )


def _check_memory(graph: OpGraph, machine: Machine, schedule: Schedule) -> None:
    for device, needed in sorted(memory_needed(graph, schedule).items()):
        described = machine.devices[device]
        if described.memory_bytes is not None and needed > described.memory_bytes:
            raise InfeasibleSchedule(
                f"device {described.name} needs at least {needed} bytes (weights and the largest "
                f"operator), but has {described.memory_bytes}; use more devices or a smaller batch"
            )


def _describe(node: _Node, graph: OpGraph) -> str:
    kind, first, second = node
    if kind == "stage":
        return f"stage {second} of device {first}"
    if kind == "copy":
        return f"copy of tensor {first} to device {second}"
    return f"operator {_name(graph, OpId(first))}"


def _name(graph: OpGraph, op: OpId) -> str:
    return repr(graph.operators[op].name)
