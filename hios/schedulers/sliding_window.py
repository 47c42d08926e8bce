"""HIOS, step 2: a sliding window over each device gathers operators into concurrent stages.

"HIOS", IEEE CLUSTER 2023, section on intra-GPU scheduling. Devices are walked in order of the
operators' latest start times in the schedule of step 1. Of the operator that heads what is left
on its device and those in the window behind it, each choice of n pairwise independent ones
(n from min(window, streams) down to 2, the head always among them) is tried as one stage at the
head's place. A stage that takes as long as its operators one after another is not tried, and one
that would make stages wait in a circle over any devices is rejected; of the others, the best that
makes the whole no slower is kept.

The evaluation re-times only what a stage changes (`hios.schedulers.stage_graph`). Contended
links keep the order of step 1 meanwhile; in the end the simulator, with links decided anew,
judges the result against step 1, and the better one is returned.
"""

import heapq
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

from hios.errors import InvalidOption
from hios.ir.ids import DeviceId, OpId, StageId, StreamId
from hios.ir.schedule import Placement, Schedule
from hios.problem import Problem
from hios.schedulers.stage_graph import StageGraph
from hios.simulator import complete_links, makespan

__all__ = ["MAX_WINDOW", "check_window_options", "slide_window"]

MAX_WINDOW = 8
"""Largest window: up to 2^(window − 1) stages are tried for each operator."""


def check_window_options(window: object, streams: object, scheduler: str) -> None:
    """Check the options of the window.

    Raises
    ------
    InvalidOption
        When one of them is out of range.
    """
    if not isinstance(window, int) or isinstance(window, bool) or not 1 <= window <= MAX_WINDOW:
        raise InvalidOption(f"{scheduler}: window is {window!r}; need 1 to {MAX_WINDOW}")
    if streams is not None and (
        not isinstance(streams, int) or isinstance(streams, bool) or streams < 1
    ):
        raise InvalidOption(f"{scheduler}: streams is {streams!r}; need an integer ≥ 1")


def slide_window(
    problem: Problem, schedule: Schedule, window: int = 2, streams: int | None = None
) -> Schedule:
    """Gather operators of a schedule into stages where that makes it no slower.

    Parameters
    ----------
    problem
        Graph, machine and costs.
    schedule
        One stream a device, no stages.
    window
        Operators looked at together.
    streams
        Largest number of groups in a stage; by default (and at most) the device's streams.

    Returns
    -------
    Schedule
        Never slower than `schedule` in the simulator. Devices on which nothing was gathered
        stay without stages. `notes` counts ``stages_tried`` and ``stages_merged``.

    Notes
    -----
    O(V·2^window) trials; each costs the re-timing of what it changes.
    """
    graph, machine, costs = problem.graph, problem.machine, problem.costs
    limits = [
        min(window, device.streams if streams is None else min(streams, device.streams))
        for device in machine.devices
    ]
    if max(limits) < 2:
        return schedule
    slide = _Slide(problem, schedule, window, limits)
    slide.run()
    notes = {
        **schedule.notes,
        "window": window,
        "stages_tried": slide.n_tried,
        "stages_merged": slide.n_merged,
    }
    if slide.n_merged:
        staged = replace(schedule, placements=slide.placements(), links=(), notes=notes)
        if makespan(graph, machine, costs, staged) <= makespan(graph, machine, costs, schedule):
            return staged
        notes["stages_merged"] = 0
    return replace(schedule, notes=notes)


class _Slide:
    """One walk over all devices."""

    def __init__(
        self, problem: Problem, schedule: Schedule, window: int, limits: Sequence[int]
    ) -> None:
        self.problem = problem
        self.window = window
        self.limits = limits
        counts: dict[DeviceId, int] = {}
        singles = []
        self.lists: dict[DeviceId, list[OpId]] = {}
        for placement in schedule.placements:
            device = placement.device
            stage = counts[device] = counts.get(device, -1) + 1
            singles.append(replace(placement, stream=StreamId(0), stage=StageId(stage)))
            self.lists.setdefault(device, []).append(placement.op)
        graph, machine, costs = problem.graph, problem.machine, problem.costs
        staged = complete_links(
            graph, machine, costs, replace(schedule, placements=tuple(singles), links=())
        )
        self.stages = StageGraph(graph, machine, costs, staged)
        self.device_of = {placement.op: placement.device for placement in singles}
        self.ancestors = problem.ancestors()
        self.n_tried = 0
        self.n_merged = 0

    def run(self) -> None:
        """Walk, and commit every stage that pays."""
        stages, node_of = self.stages, self.problem.node_of
        latest = {op: stages.latest_start_us(stages.node_of(op)) for op in self.device_of}
        best = stages.makespan_us
        heads = [(latest[ops[0]], node_of[ops[0]], device) for device, ops in self.lists.items()]
        heapq.heapify(heads)
        # What is left of each device's list; merged operators leave it before their turn.
        left = {device: ops[::-1] for device, ops in self.lists.items()}
        while heads:
            _, _, device = heapq.heappop(heads)
            ops = left[device]
            merged = self._best_stage(device, ops[-1 : -self.window - 1 : -1], best)
            head = ops.pop()
            stages.finish(stages.node_of(head))
            if merged is not None:
                best = min(best, stages.makespan_us)
                for op in merged:
                    if op != head:
                        ops.remove(op)
            if ops:
                heapq.heappush(heads, (latest[ops[-1]], node_of[ops[-1]], device))

    def placements(self) -> tuple[Placement, ...]:
        """Return the placements with stages, in an issue order that fits all devices."""
        order = self.stages.stages_in_order()
        merged = {
            self.device_of[self.stages.groups[node][0][0]]
            for node in order
            if len(self.stages.groups[node]) > 1
        }
        counts: dict[DeviceId, int] = {}
        placements: list[Placement] = []
        for node in order:
            groups = self.stages.groups[node]
            device = self.device_of[groups[0][0]]
            stage: StageId | None = None
            if device in merged:
                counts[device] = counts.get(device, -1) + 1
                stage = StageId(counts[device])
            for stream, group in enumerate(groups):
                placements.extend(Placement(op, device, StreamId(stream), stage) for op in group)
        return tuple(placements)

    def _best_stage(
        self, device: DeviceId, window: Sequence[OpId], best: float
    ) -> tuple[OpId, ...] | None:
        """Commit the best stage of the window that is no slower than `best`; return it."""
        stages = self.stages
        head, *others = window
        candidates = [
            (head, *chosen)
            for size in range(min(self.limits[device], len(window)), 1, -1)
            for chosen in combinations(others, size - 1)
            if self._is_independent((head, *chosen))
        ]
        nodes = [[stages.node_of(op) for op in chosen] for chosen in candidates]
        possible = [i for i, members in enumerate(nodes) if not stages.has_circle(members)]
        if not possible:
            return None
        times = self.problem.costs.stage_us_many(
            [[(op,) for op in candidates[i]] for i in possible], device
        )
        gains = [
            (i, time)
            for i, time in zip(possible, times, strict=True)
            if time < sum([stages.duration_us(node) for node in nodes[i]])
        ]
        self.n_tried += len(gains)
        found: tuple[float, int, float] | None = None
        for i, time in gains:
            undo = stages.merge(nodes[i], time, best)
            if undo is None:
                continue
            if len(gains) == 1:
                stages.correct_tails(undo)
                self.n_merged += 1
                return candidates[i]
            if found is None or stages.makespan_us < found[0]:
                found = (stages.makespan_us, i, time)
            stages.undo(undo)
        if found is None:
            return None
        _, i, time = found
        undo = stages.merge(nodes[i], time, best)
        assert undo is not None, "it fitted a moment ago"
        stages.correct_tails(undo)
        self.n_merged += 1
        return candidates[i]

    def _is_independent(self, ops: Sequence[OpId]) -> bool:
        nodes = sorted(self.problem.node_of[op] for op in ops)
        return not any(
            (self.ancestors[later] >> earlier) & 1 for earlier, later in combinations(nodes, 2)
        )
