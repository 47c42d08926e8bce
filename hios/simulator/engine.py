"""The event loop: when does each task of a layout start and end?

Time jumps from event to event. Events of one moment are handled in a fixed order: first what
ends, then links that choose their next copy, so that a choice sees every copy that became
ready at that moment. Then the devices whose running set changed get their new speed.
"""

import heapq
from dataclasses import dataclass, field

from hios.costs.protocol import Costs
from hios.errors import InfeasibleSchedule
from hios.ir.ids import OpId
from hios.simulator.layout import NO_QUEUE, Layout, Task
from hios.simulator.sharing import Sharing

__all__ = ["Times", "run_layout"]

# Kinds of events, in the order in which those of one moment are handled.
_TASK_ENDS, _SHARED_TASK_ENDS, _LINK_CHOOSES = 0, 1, 2


@dataclass(slots=True)
class _SharedDevice:
    """What runs on a device whose streams share it."""

    sharing: Sharing
    remaining: dict[int, float] = field(default_factory=dict)
    solo: dict[OpId, float] = field(default_factory=dict)
    slowdown: float = 1.0
    since: float = 0.0
    version: int = 0
    next_task: int = -1

    def advance(self, now: float) -> None:
        """Let the running tasks progress until `now`, and forget when the next one ends."""
        progress = (now - self.since) / self.slowdown
        if progress > 0.0:
            for task in self.remaining:
                self.remaining[task] -= progress
        self.since = now
        self.version += 1


@dataclass(frozen=True, slots=True)
class Times:
    """When each task of a layout ran.

    Attributes
    ----------
    start_us, end_us
        By task.
    sequence
        Count of the tasks that began before; tells those apart that began at one moment.
    """

    start_us: list[float]
    end_us: list[float]
    sequence: list[int]


def run_layout(layout: Layout, costs: Costs) -> Times:
    """Return start and end of every task.

    Raises
    ------
    InfeasibleSchedule
        When tasks wait for each other in a circle.

    Notes
    -----
    O((V + E) log V) for V tasks and E waits, and one question to the costs per new running
    set of a shared device.
    """
    return _Engine(layout, costs).run()


class _Engine:
    def __init__(self, layout: Layout, costs: Costs) -> None:
        self.tasks = layout.tasks
        self.queues = layout.queues
        n_tasks = len(self.tasks)
        self.start = [0.0] * n_tasks
        self.end = [0.0] * n_tasks
        self.waits = [task.n_waits for task in self.tasks]
        self.head = [0] * len(self.queues)
        self.is_busy = [False] * len(self.queues)
        self.ready_copies: list[list[tuple[float, int, int]]] = [[] for _ in self.queues]
        self.events: list[tuple[float, int, int, int]] = []
        self.shared: dict[int, _SharedDevice] = {
            task.device: _SharedDevice(Sharing(costs, task.device))
            for task in self.tasks
            if task.is_shared
        }
        self.changed: set[int] = set()
        self.sequence = [0] * n_tasks
        self.n_begun = 0
        self.n_done = 0

    def run(self) -> Times:
        for index, waits in enumerate(self.waits):
            if waits == 0:
                self._on_ready(index, 0.0)
        events = self.events
        now = 0.0
        while events or self.changed:
            if self.changed and (not events or events[0][0] > now):
                for device in sorted(self.changed):
                    self._set_speed(device)
                self.changed.clear()
                continue
            now, kind, which, version = heapq.heappop(events)
            if kind == _TASK_ENDS:
                self._finish(which, now)
            elif kind == _LINK_CHOOSES:
                self._choose(which, now)
            else:
                state = self.shared[which]
                if version == state.version:
                    self._finish_shared(state, which, now)
        if self.n_done < len(self.tasks):
            raise InfeasibleSchedule(_describe_deadlock(self.tasks, self.waits))
        return Times(self.start, self.end, self.sequence)

    def _on_ready(self, index: int, now: float) -> None:
        """All that the task waits for has ended: start it, or have it wait in its queue."""
        task = self.tasks[index]
        if task.queue == NO_QUEUE:
            self._begin(index, now)
            return
        queue = self.queues[task.queue]
        if queue.is_decided:
            self._try_head(task.queue, now)
            return
        assert task.copy is not None, "only links are undecided"
        heapq.heappush(self.ready_copies[task.queue], (now, task.copy.tensor, index))
        heapq.heappush(self.events, (now, _LINK_CHOOSES, task.queue, 0))

    def _try_head(self, which: int, now: float) -> None:
        queue = self.queues[which]
        if self.is_busy[which] or self.head[which] == len(queue.tasks):
            return
        index = queue.tasks[self.head[which]]
        if self.waits[index] == 0:
            self.is_busy[which] = True
            self._begin(index, now)

    def _choose(self, which: int, now: float) -> None:
        if not self.is_busy[which] and self.ready_copies[which]:
            _, _, index = heapq.heappop(self.ready_copies[which])
            self.is_busy[which] = True
            self._begin(index, now)

    def _begin(self, index: int, now: float) -> None:
        task = self.tasks[index]
        self.start[index] = now
        self.sequence[index] = self.n_begun
        self.n_begun += 1
        if task.is_shared and task.duration_us > 0.0:
            assert task.op is not None, "only operators share a device"
            state = self.shared[task.device]
            state.advance(now)
            state.remaining[index] = task.duration_us
            state.solo[task.op] = task.duration_us
            self.changed.add(task.device)
        else:
            heapq.heappush(self.events, (now + task.duration_us, _TASK_ENDS, index, 0))

    def _finish_shared(self, state: _SharedDevice, device: int, now: float) -> None:
        index = state.next_task
        state.advance(now)
        op = self.tasks[index].op
        assert op is not None, "only operators share a device"
        del state.remaining[index]
        del state.solo[op]
        self.changed.add(device)
        self._finish(index, now)

    def _set_speed(self, device: int) -> None:
        state = self.shared[device]
        if not state.remaining:
            return
        state.slowdown = state.sharing.slowdown(state.solo)
        left, _, index = min(
            (left, self.tasks[index].op or 0, index) for index, left in state.remaining.items()
        )
        state.next_task = index
        when = state.since + max(left, 0.0) * state.slowdown
        heapq.heappush(self.events, (when, _SHARED_TASK_ENDS, device, state.version))

    def _finish(self, index: int, now: float) -> None:
        self.end[index] = now
        self.n_done += 1
        which = self.tasks[index].queue
        if which != NO_QUEUE:
            self.is_busy[which] = False
            if self.queues[which].is_decided:
                self.head[which] += 1
            else:
                heapq.heappush(self.events, (now, _LINK_CHOOSES, which, 0))
        for follower in self.tasks[index].followers:
            self.waits[follower] -= 1
            if self.waits[follower] == 0:
                self._on_ready(follower, now)
        if which != NO_QUEUE and self.queues[which].is_decided:
            self._try_head(which, now)


def _describe_deadlock(tasks: list[Task], waits: list[int]) -> str:
    stuck = [task for task, left in zip(tasks, waits, strict=True) if left > 0]
    names = []
    for task in stuck[:3]:
        if task.copy is not None:
            names.append(f"copy of tensor {task.copy.tensor} to device {task.copy.dst}")
        elif task.stage is not None:
            names.append(f"stage {task.stage} of device {task.device}")
        else:
            names.append(f"operator {task.op} on device {task.device}")
    return f"{len(stuck)} tasks wait for each other, among them {', '.join(names)}"
