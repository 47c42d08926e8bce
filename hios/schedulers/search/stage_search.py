"""Local search over stages, for devices that run several streams at once.

A state is a list of stages in a topological order of all of them, over all devices. Moves: take
an operator out of its stage and put it into another one (a group of its own, or the end of a group
that it depends on, or a full stage's shortest group) or into a stage of its own; put two stages of
a device together; take a group out of its stage; send a whole stage elsewhere. A move never passes
what it depends on, so that stages cannot wait for each other in a circle. Acceptance is that of
annealing.

Costs of stages are remembered, and asked for in batches: a handful of moves is drawn from one
state, the first acceptable one is made, and the rest is forgotten.
"""

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hios.ir.ids import DeviceId, OpId, StageId, StreamId
from hios.ir.schedule import Placement, Schedule
from hios.problem import Problem
from hios.schedulers.search.annealing import Effort
from hios.schedulers.search.arrays import make_instance, make_state
from hios.schedulers.search.stage_timing import time_stages

__all__ = ["StageResult", "has_one_stage_each", "search_stages"]

_HOT, _COLD = 0.02, 0.001
_BATCH = 8
_CRITICAL, _NEAR = 0.6, 12

Groups = tuple[tuple[int, ...], ...]
"""Nodes of a stage, by group."""


@dataclass(frozen=True, slots=True)
class _Stage:
    device: int
    groups: Groups
    time_us: float = 0.0

    def nodes(self) -> list[int]:
        return [v for group in self.groups for v in group]


@dataclass(frozen=True, slots=True)
class StageResult:
    """What the search found.

    Attributes
    ----------
    schedule
        Staged on every device on which some stage has several groups.
    makespan_us
        As the search reckons: copies are served in the order of their first readers.
    evaluations
        Moves tried.
    is_truncated
        Whether the deadline cut the search short.
    """

    schedule: Schedule
    makespan_us: float
    evaluations: int
    is_truncated: bool


def has_one_stage_each(schedule: Schedule) -> bool:
    """Return whether a schedule can be read as stages: staged, or one stream on each device."""
    streams: dict[DeviceId, set[StreamId]] = {}
    for placement in schedule.placements:
        if placement.stage is None:
            streams.setdefault(placement.device, set()).add(placement.stream)
    return all(len(used) == 1 for used in streams.values())


def search_stages(
    problem: Problem, start: Schedule, target_us: float, effort: Effort
) -> StageResult:
    """Improve the stages of a schedule.

    Parameters
    ----------
    problem
        What is scheduled; at least one operator.
    start
        A schedule for which `has_one_stage_each` holds.
    target_us
        Stop at this makespan.
    effort
        How long to try.

    Returns
    -------
    StageResult
        Never worse than the start, as the search reckons.
    """
    return _Search(problem, start, effort).run(target_us)


class _Search:
    """One search; `stages` is the current state."""

    def __init__(self, problem: Problem, start: Schedule, effort: Effort) -> None:
        self.problem = problem
        self.effort = effort
        self.random = random.Random(effort.seed)
        self.inst = make_instance(problem)
        order = [problem.node_of[p.op] for p in start.placements]
        if problem.source is not None:
            order.insert(0, problem.source)
        if problem.sink is not None:
            order.append(problem.sink)
        device = [0] * problem.n_nodes
        for placement in start.placements:
            device[problem.node_of[placement.op]] = int(placement.device)
        self.state = make_state(self.inst, order, device, effort.seed)
        self.limits = [described.streams for described in problem.machine.devices]
        self.first = self.inst.first_movable
        self.end = self.first + self.inst.n_movable
        self.known: dict[tuple[int, Groups], float] = {}
        self.preds = [[u for u, _ in pairs] for pairs in problem.preds]
        self.succs = [[s for s, _ in pairs] for pairs in problem.succs]
        self.stages = self._timed(_stages_of(problem, start))
        self.where = [0] * problem.n_nodes
        self.critical: list[int] | None = None

    def run(self, target_us: float) -> StageResult:
        effort, draw = self.effort, self.random
        now = self._evaluate(self.stages, float("inf"))
        best, best_stages = now, self.stages
        self._accept(self.stages)
        mean = sum(self.problem.mean_time) / self.inst.n_movable
        done, is_truncated = 0, False
        while done < effort.evaluations and best > target_us:
            if effort.is_over():
                is_truncated = True
                break
            temperature = mean * _HOT * (_COLD / _HOT) ** (done / effort.evaluations)
            size = min(_BATCH, effort.evaluations - done)
            proposals = [p for p in (self._propose() for _ in range(size)) if p is not None]
            done += size - len(proposals)
            for stages in self._timed_many(proposals):
                done += 1
                limit = now + temperature * draw.expovariate(1.0)
                makespan = self._evaluate(stages, limit)
                if makespan <= limit:
                    now = makespan
                    self._accept(stages)
                    if now < best:
                        best, best_stages = now, stages
                    break
            if effort.progress is not None:
                effort.progress(done / effort.evaluations)
        return StageResult(self._schedule(best_stages), best, done, is_truncated)

    def _accept(self, stages: list[_Stage]) -> None:
        self.stages = stages
        self.critical = None
        for index, stage in enumerate(stages):
            for group in stage.groups:
                for v in group:
                    self.where[v] = index

    def _evaluate(self, stages: Sequence[_Stage], limit: float) -> float:
        state = self.state
        order: list[int] = []
        stage_of: list[int] = [0] * self.problem.n_nodes
        device: list[int] = [0] * self.problem.n_nodes
        for index, stage in enumerate(stages):
            where = stage.device
            for group in stage.groups:
                order.extend(group)
                for v in group:
                    stage_of[v] = index
                    device[v] = where
        state.order[:] = order
        state.device[:] = device
        times = np.array([stage.time_us for stage in stages])
        return float(time_stages(self.inst, state, np.array(stage_of), times, limit))

    # Costs

    def _timed(self, stages: list[_Stage]) -> list[_Stage]:
        return next(iter(self._timed_many([stages])))

    def _timed_many(self, proposals: list[list[_Stage]]) -> list[list[_Stage]]:
        """Fill in the times of new stages, which have a negative one."""
        asked: dict[int, dict[Groups, None]] = {}
        for stages in proposals:
            for stage in stages:
                if stage.time_us < 0.0 and (stage.device, stage.groups) not in self.known:
                    asked.setdefault(stage.device, {})[stage.groups] = None
        op_of = self.problem.op_of
        for device, wanted in asked.items():
            batch: list[list[list[OpId]]] = [
                [[op for v in group if (op := op_of[v]) is not None] for group in groups]
                for groups in wanted
            ]
            times = self.problem.costs.stage_us_many(batch, DeviceId(device))
            for groups, time in zip(wanted, times, strict=True):
                self.known[device, groups] = time
        return [
            [
                stage
                if stage.time_us >= 0.0
                else _Stage(stage.device, stage.groups, self.known[stage.device, stage.groups])
                for stage in stages
            ]
            for stages in proposals
        ]

    # Moves

    def _propose(self) -> list[_Stage] | None:
        draw = self.random
        v = draw.randrange(self.first, self.end)
        if draw.random() < _CRITICAL:
            if self.critical is None:
                self.critical = self._critical()
            if self.critical:
                v = draw.choice(self.critical)
        moves: tuple[Callable[[int], list[_Stage] | None], ...] = (
            self._join,
            self._join,
            self._join,
            self._alone,
            self._unite,
            self._split,
            self._send,
        )
        return draw.choice(moves)(v)

    def _device(self, device: int) -> int:
        """Return the same device, or (four times of ten) any."""
        if self.random.random() < 0.6:
            return device
        return self.random.randrange(self.problem.n_devices)

    def _near(self, low: int, high: int, index: int) -> tuple[int, int]:
        return max(low, index - _NEAR), min(high, index + _NEAR)

    def _join(self, v: int) -> list[_Stage] | None:
        """Put v into another stage."""
        where, stages = self.where, self.stages
        index = where[v]
        low = max([where[u] for u in self.preds[v]], default=0)
        high = min([where[s] for s in self.succs[v]], default=len(stages) - 1)
        near_low, near_high = self._near(low, high, index)
        device = self._device(stages[index].device)
        possible = [
            t
            for t in range(near_low, near_high + 1)
            if t != index and stages[t].device == device and self._is_movable(stages[t])
        ]
        if not possible:
            return None
        target = self.random.choice(possible)
        groups = _joined(
            stages[target].groups,
            v,
            {u for u in self.preds[v] if where[u] == target},
            {s for s in self.succs[v] if where[s] == target},
            self.limits[device],
            self.random,
        )
        if groups is None:
            return None
        changed = list(stages)
        changed[target] = _Stage(device, groups, -1.0)
        return _without(changed, index, (v,))

    def _alone(self, v: int) -> list[_Stage] | None:
        """Give v a stage of its own."""
        where, stages = self.where, self.stages
        index = where[v]
        if len(stages[index].nodes()) == 1:
            return self._send(v)
        low = max([where[u] for u in self.preds[v]], default=-1) + 1
        high = min([where[s] for s in self.succs[v]], default=len(stages))
        if low > high:
            return None
        near_low, near_high = self._near(low, high, index)
        if near_low > near_high:
            return None
        place = self.random.randint(near_low, near_high)
        device = self._device(stages[index].device)
        changed = list(stages)
        changed.insert(place, _Stage(device, ((v,),), -1.0))
        return _without(changed, index + (place <= index), (v,))

    def _unite(self, v: int) -> list[_Stage] | None:
        """Put the whole stage of v into another one of the same device."""
        stages = self.stages
        index = self.where[v]
        stage = stages[index]
        room = self.limits[stage.device] - len(stage.groups)
        low, high = self._window(stage)
        near_low, near_high = self._near(low, high, index)
        possible = [
            t
            for t in range(near_low, near_high + 1)
            if t != index
            and stages[t].device == stage.device
            and len(stages[t].groups) <= room
            and self._is_movable(stages[t])
        ]
        if not possible:
            return None
        target = self.random.choice(possible)
        groups = _sorted((*stages[target].groups, *stage.groups))
        changed = list(stages)
        changed[target] = _Stage(stage.device, groups, -1.0)
        del changed[index]
        return changed

    def _split(self, v: int) -> list[_Stage] | None:
        """Take the group of v out of its stage, to run just before or after it."""
        index = self.where[v]
        stage = self.stages[index]
        if len(stage.groups) < 2:
            return None
        own = next(group for group in stage.groups if v in group)
        others = tuple(group for group in stage.groups if group is not own)
        changed = list(self.stages)
        changed[index] = _Stage(stage.device, others, -1.0)
        changed.insert(index + self.random.randrange(2), _Stage(stage.device, (own,), -1.0))
        return changed

    def _send(self, v: int) -> list[_Stage] | None:
        """Move the whole stage of v in the order, or to another device."""
        index = self.where[v]
        stage = self.stages[index]
        device = self._device(stage.device)
        if len(stage.groups) > self.limits[device]:
            return None
        low, high = self._window(stage)
        near_low, near_high = self._near(low, high, index)
        place = self.random.randint(near_low, near_high)
        if place == index and device == stage.device:
            return None
        moved = stage if device == stage.device else _Stage(device, stage.groups, -1.0)
        changed = list(self.stages)
        del changed[index]
        changed.insert(place, moved)
        return changed

    def _window(self, stage: _Stage) -> tuple[int, int]:
        """Return the positions that a stage may have while the others keep their order."""
        where = self.where
        nodes = stage.nodes()
        own = where[nodes[0]]
        low = max([where[u] for v in nodes for u in self.preds[v] if where[u] != own], default=-1)
        high = min(
            [where[s] for v in nodes for s in self.succs[v] if where[s] != own],
            default=len(self.stages),
        )
        return low + 1, high - 1

    def _is_movable(self, stage: _Stage) -> bool:
        return self.first <= stage.groups[0][0] < self.end

    def _critical(self) -> list[int]:
        """Return operators of the stages that the last finish waited for."""
        self._evaluate(self.stages, float("inf"))
        finish = self.state.finish.tolist()
        problem, stages, where = self.problem, self.stages, self.where
        before = _previous_on_device(stages)
        slack = 1e-9 * max(finish)
        index = where[max(range(len(finish)), key=lambda v: (finish[v], v))]
        found: list[int] = []
        while index >= 0:
            stage = stages[index]
            nodes = stage.nodes()
            if self._is_movable(stage):
                found.extend(nodes)
            start = finish[nodes[0]] - stage.time_us
            latest, by_data = -1.0, -1
            for v in nodes:
                for u, edge in problem.preds[v]:
                    if where[u] != index:
                        source = stages[where[u]].device
                        ready = finish[u] + problem.transfer_us(edge, source, stage.device)
                        if ready > latest:
                            latest, by_data = ready, where[u]
            previous = before[index]
            waits_for_device = (
                previous >= 0 and finish[stages[previous].groups[0][0]] >= start - slack
            )
            if by_data >= 0 and (latest >= start - slack or not waits_for_device):
                index = by_data
            else:
                index = previous if start > slack else -1
        return found

    # The result

    def _schedule(self, stages: Sequence[_Stage]) -> Schedule:
        op_of = self.problem.op_of
        staged = {stage.device for stage in stages if len(stage.groups) > 1}
        counts: dict[int, int] = {}
        placements: list[Placement] = []
        for stage in stages:
            if not self._is_movable(stage):
                continue
            device = DeviceId(stage.device)
            name: StageId | None = None
            if device in staged:
                counts[device] = counts.get(device, -1) + 1
                name = StageId(counts[device])
            for stream, group in enumerate(stage.groups):
                for v in group:
                    op = op_of[v]
                    assert op is not None, "stages of virtual nodes are skipped"
                    placements.append(Placement(op, device, StreamId(stream), name))
        return Schedule("stage-search", tuple(placements))


def _sorted(groups: Groups) -> Groups:
    return tuple(sorted(groups))


def _without(stages: list[_Stage], index: int, nodes: Sequence[int]) -> list[_Stage]:
    """Take nodes out of a stage, and the stage away when nothing is left."""
    stage = stages[index]
    groups = tuple(
        left for group in stage.groups if (left := tuple(v for v in group if v not in nodes))
    )
    if groups:
        stages[index] = _Stage(stage.device, _sorted(groups), -1.0)
    else:
        del stages[index]
    return stages


def _joined(
    groups: Groups, v: int, preds: set[int], succs: set[int], limit: int, draw: random.Random
) -> Groups | None:
    """Return the groups of a stage with v in it, or None where its neighbours forbid it."""
    if preds and succs:
        return None
    touching = [i for i, group in enumerate(groups) if (preds | succs) & set(group)]
    if len(touching) > 1:
        return None
    if not touching:
        if len(groups) < limit:
            return _sorted((*groups, (v,)))
        i = draw.randrange(len(groups))
        return _sorted((*groups[:i], (*groups[i], v), *groups[i + 1 :]))
    i = touching[0]
    group = (*groups[i], v) if preds else (v, *groups[i])
    return _sorted((*groups[:i], group, *groups[i + 1 :]))


def _previous_on_device(stages: Sequence[_Stage]) -> list[int]:
    last: dict[int, int] = {}
    before = []
    for index, stage in enumerate(stages):
        before.append(last.get(stage.device, -1))
        last[stage.device] = index
    return before


def _stages_of(problem: Problem, schedule: Schedule) -> list[_Stage]:
    """Return the stages of a schedule in a topological order, virtual nodes as stages too."""
    found: dict[tuple[int, int], dict[int, list[int]]] = {}
    singles = 0
    for placement in schedule.placements:
        if placement.stage is None:
            singles -= 1
            key = (int(placement.device), singles)
        else:
            key = (int(placement.device), int(placement.stage))
        node = problem.node_of[placement.op]
        found.setdefault(key, {}).setdefault(int(placement.stream), []).append(node)
    stages = [
        _Stage(device, _sorted(tuple(tuple(group) for group in groups.values())), -1.0)
        for (device, _), groups in found.items()
    ]
    virtual = [
        _Stage(0, ((node,),), 0.0) for node in (problem.source, problem.sink) if node is not None
    ]
    stages.extend(virtual)
    where = {v: index for index, stage in enumerate(stages) for v in stage.nodes()}
    # Order: data, and the stages of each device as they come.
    follows: list[set[int]] = [set() for _ in stages]
    for u, v in problem.edges:
        if where[u] != where[v]:
            follows[where[u]].add(where[v])
    for index, previous in enumerate(_previous_on_device(stages[: len(stages) - len(virtual)])):
        if previous >= 0:
            follows[previous].add(index)
    waits = [0] * len(stages)
    for after in follows:
        for index in after:
            waits[index] += 1
    ready = [(stages[index].groups[0][0], index) for index, count in enumerate(waits) if count == 0]
    heapq.heapify(ready)
    order: list[_Stage] = []
    while ready:
        _, index = heapq.heappop(ready)
        order.append(stages[index])
        for later in follows[index]:
            waits[later] -= 1
            if waits[later] == 0:
                heapq.heappush(ready, (stages[later].groups[0][0], later))
    return order
