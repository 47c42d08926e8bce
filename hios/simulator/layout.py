"""A schedule taken apart into tasks, their dependencies, and the queues that they stand in.

A task is an operator (on a device without stages), a whole stage, or a copy. A task may start
when all the tasks it waits for have ended and it heads its queue. Queues are the streams of a
device without stages, a staged device as a whole, and each directed link that carries one copy
at a time. Copies that occupy their destination stand in that device's queue:

* on a staged device, before the first stage that needs them;
* on a device without stages, on the stream of their first reader, before it;
* copies of graph outputs after everything else on the first device.
"""

from dataclasses import dataclass, field

from hios.costs.protocol import Costs
from hios.errors import InfeasibleSchedule
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId, OpId, StageId, StreamId, TensorId
from hios.ir.machine import Machine
from hios.ir.schedule import Copy, Placement, Schedule, required_copies

__all__ = ["Layout", "Queue", "Task", "build_layout"]

NO_QUEUE = -1


@dataclass(slots=True)
class Task:
    """One thing that runs.

    Attributes
    ----------
    duration_us
        Time alone; an operator on a shared device may take longer.
    queue
        Position in `Layout.queues`, or `NO_QUEUE` for a copy on a link without contention.
    op
        Of an operator task.
    groups
        Of a stage task.
    copy
        Of a copy task.
    device, stream, stage
        Where it runs; stream None for a copy on a link of its own.
    is_shared
        Whether its speed depends on what else runs on the device.
    n_waits
        Number of entries that name it in `followers` of other tasks.
    followers
        Tasks that wait for it.
    """

    duration_us: float
    device: DeviceId
    queue: int = NO_QUEUE
    op: OpId | None = None
    groups: tuple[tuple[OpId, ...], ...] = ()
    copy: Copy | None = None
    stream: StreamId | None = None
    stage: StageId | None = None
    is_shared: bool = False
    n_waits: int = 0
    followers: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Queue:
    """Tasks that run one after another.

    Attributes
    ----------
    tasks
        In order; of a link whose order is undecided, in any order.
    is_decided
        False for a link that serves whichever copy is ready first.
    """

    tasks: list[int] = field(default_factory=list)
    is_decided: bool = True


@dataclass(slots=True)
class Layout:
    """Tasks and queues of one schedule."""

    tasks: list[Task]
    queues: list[Queue]


def build_layout(graph: OpGraph, machine: Machine, costs: Costs, schedule: Schedule) -> Layout:
    """Take a schedule apart.

    Raises
    ------
    InfeasibleSchedule
        When an operator is missing or twice, a device or stream does not exist, or links are
        given but are not exactly the copies that are needed.
    """
    return _Builder(graph, machine, costs, schedule).build()


class _Builder:
    """Holds the state while tasks and queues are made, first operators, then copies."""

    def __init__(self, graph: OpGraph, machine: Machine, costs: Costs, schedule: Schedule) -> None:
        self.graph = graph
        self.machine = machine
        self.costs = costs
        self.schedule = schedule
        self.tasks: list[Task] = []
        self.queues: list[Queue] = []
        self.task_of: list[int] = [NO_QUEUE] * len(graph.operators)
        self.where: dict[OpId, Placement] = {}
        self.staged: dict[DeviceId, bool] = {}
        self.queue_of: dict[tuple[int, int], int] = {}
        # Copies that run on their destination, by the task before which they run.
        self.before: dict[int, list[int]] = {}

    def build(self) -> Layout:
        self._check_placements()
        self._add_stages()
        self._add_operators()
        copies = required_copies(self.graph, self.schedule)
        positions = self._link_positions(copies)
        copy_task = self._add_copies(copies, positions)
        self._connect(copy_task)
        self._fill_queues(positions)
        self._fill_links(copies, positions)
        return Layout(self.tasks, self.queues)

    def _check_placements(self) -> None:
        devices = self.machine.devices
        n_ops = len(self.graph.operators)
        for placement in self.schedule.placements:
            if not 0 <= placement.op < n_ops:
                raise InfeasibleSchedule(f"operator {placement.op} is placed but does not exist")
            if placement.op in self.where:
                raise InfeasibleSchedule(f"operator {placement.op} is placed twice")
            if not 0 <= placement.device < len(devices):
                raise InfeasibleSchedule(
                    f"operator {placement.op} is placed on device {placement.device}; machine "
                    f"{self.machine.name!r} has {len(devices)}"
                )
            self.where[placement.op] = placement
            self.staged.setdefault(placement.device, placement.stage is not None)
        if len(self.where) != n_ops:
            missing = next(op.id for op in self.graph.operators if op.id not in self.where)
            raise InfeasibleSchedule(
                f"{n_ops - len(self.where)} operators are not placed, the first is {missing}"
            )

    def _queue(self, device: int, stream: int) -> int:
        """Return the queue of a stream, or of a whole staged device (stream -1)."""
        key = (device, stream)
        if key not in self.queue_of:
            self.queue_of[key] = len(self.queues)
            self.queues.append(Queue())
        return self.queue_of[key]

    def _add_stages(self) -> None:
        stage_ids: dict[DeviceId, list[StageId]] = {}
        for placement in self.schedule.placements:
            if placement.stage is not None:
                known = stage_ids.setdefault(placement.device, [])
                if not known or known[-1] != placement.stage:
                    known.append(placement.stage)
        for device, stages in self.schedule.stages().items():
            times = self.costs.stage_us_many(stages, device)
            ids = sorted(set(stage_ids[device]))
            for stage, groups, duration in zip(ids, stages, times, strict=True):
                for group in groups:
                    for op in group:
                        self.task_of[op] = len(self.tasks)
                self.tasks.append(
                    Task(duration, device, self._queue(device, -1), groups=groups, stage=stage)
                )

    def _add_operators(self) -> None:
        streams: dict[DeviceId, set[StreamId]] = {}
        for placement in self.schedule.placements:
            streams.setdefault(placement.device, set()).add(placement.stream)
        for placement in self.schedule.placements:
            if placement.stage is not None:
                continue
            device, op = placement.device, placement.op
            self.task_of[op] = len(self.tasks)
            self.tasks.append(
                Task(
                    self.costs.operator_us(op, device),
                    device,
                    self._queue(device, placement.stream),
                    op=op,
                    stream=placement.stream,
                    is_shared=len(streams[device]) > 1,
                )
            )

    def _link_positions(
        self, copies: tuple[Copy, ...]
    ) -> dict[tuple[DeviceId, DeviceId], dict[TensorId, int]]:
        """Return the order of each link: as stored, else (occupying copies) by first use."""
        positions: dict[tuple[DeviceId, DeviceId], dict[TensorId, int]] = {}
        if not self.schedule.links:
            for copy in copies:
                if self.machine.copies_occupy(copy.dst):
                    order = positions.setdefault((copy.src, copy.dst), {})
                    order[copy.tensor] = len(order)
            return positions
        for link in self.schedule.links:
            order = positions.setdefault((link.src, link.dst), {})
            for tensor in link.tensors:
                order[tensor] = len(order)
        stored = sum(len(link.tensors) for link in self.schedule.links)
        if stored != len(copies) or any(
            copy.tensor not in positions.get((copy.src, copy.dst), {}) for copy in copies
        ):
            raise InfeasibleSchedule(
                f"the links carry {stored} copies that are not the {len(copies)} needed; "
                "leave them out to have them decided"
            )
        return positions

    def _add_copies(
        self,
        copies: tuple[Copy, ...],
        positions: dict[tuple[DeviceId, DeviceId], dict[TensorId, int]],
    ) -> dict[tuple[TensorId, DeviceId], int]:
        found: dict[tuple[TensorId, DeviceId], int] = {}
        for copy in copies:
            task = len(self.tasks)
            found[copy.tensor, copy.dst] = task
            duration = self.costs.transfer_us(copy.tensor, copy.src, copy.dst)
            self.tasks.append(Task(duration, copy.src, copy=copy))
            source = self.graph.tensors[copy.tensor].producer
            if source is not None:
                self._wait(task, self.task_of[source])
        return found

    def _connect(self, copy_task: dict[tuple[TensorId, DeviceId], int]) -> None:
        """Make readers wait for their inputs; find the first reader of occupying copies."""
        graph = self.graph
        first_reader: dict[int, int] = {}
        for placement in self.schedule.placements:
            device, reader = placement.device, self.task_of[placement.op]
            for tensor in {graph.root(t) for t in graph.operators[placement.op].inputs}:
                copy = copy_task.get((tensor, device))
                if copy is not None:
                    self._wait(reader, copy)
                    if self.machine.copies_occupy(device):
                        first_reader.setdefault(copy, reader)
                    continue
                source = graph.tensors[tensor].producer
                if source is not None and self.task_of[source] != reader:
                    self._wait(reader, self.task_of[source])
        for copy, reader in first_reader.items():
            self.before.setdefault(reader, []).append(copy)

    def _fill_queues(self, positions: dict[tuple[DeviceId, DeviceId], dict[TensorId, int]]) -> None:
        """Put stages and operators into their queues, each behind the copies that it brings."""

        def order(task: int) -> tuple[int, int]:
            copy = self.tasks[task].copy
            assert copy is not None, "only copies are sorted"
            return positions[copy.src, copy.dst][copy.tensor], copy.src

        queued: set[int] = set()
        for index, task in enumerate(self.tasks):
            if task.copy is not None:
                break
            queue = self.queues[task.queue]
            for copy in sorted(self.before.get(index, ()), key=order):
                self.tasks[copy].queue = task.queue
                self.tasks[copy].stream = StreamId(0) if task.stream is None else task.stream
                queue.tasks.append(copy)
                queued.add(copy)
            queue.tasks.append(index)

        returning = [
            index
            for index, task in enumerate(self.tasks)
            if task.copy is not None
            and index not in queued
            and self.machine.copies_occupy(task.copy.dst)
        ]
        if not returning:
            return
        # Only graph outputs have no reader on their destination, the first device.
        last = [
            self.queues[queue].tasks[-1]
            for (device, _), queue in self.queue_of.items()
            if device == 0
        ]
        own = len(self.queues)
        self.queues.append(Queue(sorted(returning, key=order)))
        for index in returning:
            self.tasks[index].queue = own
            self.tasks[index].stream = StreamId(0)
        for previous in last:
            self._wait(self.queues[own].tasks[0], previous)

    def _fill_links(
        self,
        copies: tuple[Copy, ...],
        positions: dict[tuple[DeviceId, DeviceId], dict[TensorId, int]],
    ) -> None:
        if not self.machine.is_contended:
            return
        links: dict[tuple[DeviceId, DeviceId], list[int]] = {}
        first_copy = len(self.tasks) - len(copies)
        for offset, copy in enumerate(copies):
            if not self.machine.copies_occupy(copy.dst):
                links.setdefault((copy.src, copy.dst), []).append(first_copy + offset)
        for key, tasks in sorted(links.items()):
            order = positions.get(key)
            ordered = tasks
            if order is not None:
                ordered = [task for _, task in sorted((order[self._tensor(t)], t) for t in tasks)]
            for task in tasks:
                self.tasks[task].queue = len(self.queues)
            self.queues.append(Queue(ordered, is_decided=order is not None))

    def _tensor(self, task: int) -> TensorId:
        copy = self.tasks[task].copy
        assert copy is not None, "only copies stand in the queue of a link"
        return copy.tensor

    def _wait(self, task: int, earlier: int) -> None:
        self.tasks[task].n_waits += 1
        self.tasks[earlier].followers.append(task)
