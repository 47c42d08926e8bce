"""Stages and copies as a graph of longest paths, re-timed only where a merge changes it.

Nodes are the stages of a schedule and its copies; on a link without contention a copy is a
weight on an edge. Each node knows its start (the longest path to it) and its tail (the longest
path from its end to the end of all). Edges are data dependencies, and the order of the queues
(devices and links; see `hios.simulator.layout`).

Merging stages keeps the node of the earliest; the others become names for it (`_alias`), so that
their neighbours need not be touched and a merge can be taken back. Start times are corrected
from the merged stage downwards, in order of the old start times, until nothing changes.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from hios.costs.protocol import Costs
from hios.ir.graph import OpGraph
from hios.ir.ids import OpId
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.simulator.layout import NO_QUEUE, build_layout

__all__ = ["StageGraph"]


@dataclass(slots=True)
class _Undo:
    """What a merge overwrote."""

    links: list[tuple[int, int, int]] = field(default_factory=list)
    starts: list[tuple[int, float]] = field(default_factory=list)
    edges: tuple[list[tuple[int, float]], list[tuple[int, float]]] = ([], [])
    groups: tuple[tuple[OpId, ...], ...] = ()
    duration: float = 0.0
    kept: int = -1
    absorbed: tuple[int, ...] = ()
    copies: list[int] = field(default_factory=list)


class StageGraph:
    """The timing of a schedule in which every operator is a stage of its own.

    Parameters
    ----------
    graph, machine, costs
        As for the simulator.
    schedule
        Staged on every device, one operator a stage, with links where copies are needed.

    Attributes
    ----------
    groups
        Groups of each stage node.
    """

    def __init__(self, graph: OpGraph, machine: Machine, costs: Costs, schedule: Schedule) -> None:
        layout = build_layout(graph, machine, costs, schedule)
        tasks = layout.tasks
        n_tasks = len(tasks)
        # Behind the tasks: one end for each queue, and one for all.
        n_nodes = n_tasks + len(layout.queues) + 1
        self._sink = n_nodes - 1
        self._duration = [task.duration_us for task in tasks] + [0.0] * (n_nodes - n_tasks)
        self._preds: list[list[tuple[int, float]]] = [[] for _ in range(n_nodes)]
        self._succs: list[list[tuple[int, float]]] = [[] for _ in range(n_nodes)]
        self._before = [-1] * n_nodes
        self._after = [-1] * n_nodes
        self._alias = list(range(n_nodes))
        self._is_final = [False] * n_nodes
        self._copies: dict[int, list[int]] = {}
        self._copy_key: dict[int, tuple[int, int]] = {}
        self.groups: list[tuple[tuple[OpId, ...], ...]] = [task.groups for task in tasks]
        self._node_of = {
            op: node for node, task in enumerate(tasks) for group in task.groups for op in group
        }

        floating = {
            node
            for node, task in enumerate(tasks)
            if task.copy is not None and task.queue == NO_QUEUE
        }
        for node, task in enumerate(tasks):
            if node in floating:
                continue
            for follower in task.followers:
                if follower in floating:
                    copy = tasks[follower]
                    for reader in copy.followers or [self._sink]:
                        self._add_edge(node, reader, copy.duration_us)
                else:
                    self._add_edge(node, follower, 0.0)
        for node in floating:
            if tasks[node].n_waits == 0:  # a graph input: there from the beginning
                for reader in tasks[node].followers or [self._sink]:
                    self._add_edge(-1, reader, tasks[node].duration_us)
        place = {
            (tensor, link.src, link.dst): index
            for link in schedule.links
            for index, tensor in enumerate(link.tensors)
        }
        for index, queue in enumerate(layout.queues):
            end = n_tasks + index
            waiting: list[int] = []
            for node, follower in zip(queue.tasks, [*queue.tasks[1:], end], strict=True):
                self._after[node], self._before[follower] = follower, node
                moved = tasks[node].copy
                if moved is not None and machine.copies_occupy(moved.dst):
                    self._copy_key[node] = (place[moved.tensor, moved.src, moved.dst], moved.src)
                    waiting.append(node)
                elif tasks[node].groups:
                    self._copies[node] = waiting
                    waiting = []
            self._add_edge(end, self._sink, 0.0)

        self.start = [0.0] * n_nodes
        self.tail = [0.0] * n_nodes
        self._time_everything()

    def _add_edge(self, u: int, v: int, cost: float) -> None:
        self._preds[v].append((u, cost))
        if u >= 0:
            self._succs[u].append((v, cost))

    @property
    def makespan_us(self) -> float:
        """The end of everything."""
        return self.start[self._sink]

    def node_of(self, op: OpId) -> int:
        """Return the node of the stage that `op` is in."""
        return self._alias[self._node_of[op]]

    def duration_us(self, node: int) -> float:
        """Return the time of a stage."""
        return self._duration[node]

    def latest_start_us(self, node: int) -> float:
        """Return the latest start that does not delay the end of everything."""
        return self.makespan_us - self.tail[node] - self._duration[node]

    def is_next(self, first: int, second: int) -> bool:
        """Return whether no stage stands between two stages of a device."""
        node = self._after[first]
        while node in self._copy_key:
            node = self._after[node]
        return node == second

    def finish(self, node: int) -> None:
        """Declare that `node` will not be merged any more.

        Once nothing that may still be merged leads to it, its tail is no longer kept.
        """
        sources = list(self._waits_for(node))
        for u in self._waits_for(node):
            if not self.groups_at(u):
                sources.extend(self._alias[p] for p, _ in self._preds[u] if p >= 0)
        self._is_final[node] = all(self._is_final[u] for u in sources if self.groups_at(u))

    def groups_at(self, node: int) -> tuple[tuple[OpId, ...], ...]:
        """Return the groups of a stage node; none for a copy."""
        return self.groups[node] if node < len(self.groups) else ()

    def has_circle(self, members: Sequence[int]) -> bool:
        """Return whether merging `members` (in device order) would make stages wait in a circle.

        Notes
        -----
        Searches backwards from what the later members wait for, no further than the end of
        the first member.
        """
        goal = set(members)
        horizon = self.start[members[0]] + self._duration[members[0]]
        stack: list[int] = []
        for member in members[1:]:
            own = set(self._copies.get(member, ()))
            for u, _ in self._preds[member]:
                if u < 0:
                    continue
                u = self._alias[u]
                if u in own:
                    # Moves before the first member: only its own inputs count.
                    stack.extend(self._alias[p] for p, _ in self._preds[u] if p >= 0)
                else:
                    stack.append(u)
        seen: set[int] = set()
        while stack:
            node = stack.pop()
            if node in goal:
                return True
            if node in seen or self.start[node] < horizon:
                continue
            seen.add(node)
            stack.extend(self._alias[u] for u, _ in self._preds[node] if u >= 0)
            if self._before[node] >= 0:
                stack.append(self._before[node])
        return False

    def merge(self, members: Sequence[int], duration_us: float, limit_us: float) -> _Undo | None:
        """Merge stages of one device into one at the place of the first.

        Parameters
        ----------
        members
            Nodes in device order, pairwise independent; `has_circle` is false for them.
        duration_us
            Time of the merged stage.
        limit_us
            The makespan that must not be exceeded.

        Returns
        -------
        object or None
            What `undo` needs; None when the limit would be exceeded (nothing changed then).
        """
        kept, absorbed = members[0], tuple(members[1:])
        is_adjacent = len(members) == 2 and self.is_next(kept, absorbed[0])
        undo = _Undo(
            edges=(self._preds[kept], self._succs[kept]),
            groups=self.groups[kept],
            duration=self._duration[kept],
            kept=kept,
            absorbed=absorbed,
            copies=self._copies.get(kept, []),
        )
        preds, succs = list(self._preds[kept]), list(self._succs[kept])
        groups, copies = list(self.groups[kept]), list(undo.copies)
        for member in absorbed:
            preds += self._preds[member]
            succs += self._succs[member]
            groups += self.groups[member]
            copies += self._copies.get(member, [])
            self._alias[member] = kept
        self._preds[kept], self._succs[kept] = preds, succs
        self.groups[kept] = tuple(groups)
        self._duration[kept] = duration_us
        copies.sort(key=self._copy_key.__getitem__)
        self._copies[kept] = copies
        seeds = self._relink(kept, absorbed, copies, undo)
        # Between neighbours no tail changes but their own, so the longest path through the
        # merged stage decides, and most bad merges end here.
        if is_adjacent and not self._fits(kept, copies, limit_us):
            self.undo(undo)
            return None
        if not self._correct_starts(seeds, undo, limit_us):
            self.undo(undo)
            return None
        return undo

    def undo(self, undo: _Undo) -> None:
        """Take a merge back; merges are taken back in reverse order."""
        kept = undo.kept
        for member in undo.absorbed:
            self._alias[member] = member
        self._preds[kept], self._succs[kept] = undo.edges
        self.groups[kept] = undo.groups
        self._duration[kept] = undo.duration
        self._copies[kept] = undo.copies
        for node, before, after in reversed(undo.links):
            self._before[node], self._after[node] = before, after
        for node, start in reversed(undo.starts):
            self.start[node] = start

    def correct_tails(self, undo: _Undo) -> None:
        """Bring tails up to date after a merge that stays."""
        touched = {node for node, _, _ in undo.links} | {undo.kept}
        queue = [(-self.start[node], node) for node in touched if self._alias[node] == node]
        heapq.heapify(queue)
        while queue:
            _, node = heapq.heappop(queue)
            tail = self._tail_of(node)
            if tail == self.tail[node] and node not in touched:
                continue
            touched.discard(node)
            self.tail[node] = tail
            for u in self._waits_for(node):
                if not self._is_final[u]:
                    heapq.heappush(queue, (-self.start[u], u))

    def stages_in_order(self) -> list[int]:
        """Return the stage nodes in an order that no dependency or queue contradicts."""
        n_nodes = len(self.start)
        waits = [0] * n_nodes
        for node in range(n_nodes):
            if self._alias[node] == node:
                waits[node] = len(self._waits_for(node))
        ready = [
            (self.start[node], node)
            for node in range(n_nodes)
            if self._alias[node] == node and waits[node] == 0
        ]
        heapq.heapify(ready)
        order = []
        while ready:
            _, node = heapq.heappop(ready)
            if node < len(self.groups) and self.groups[node]:
                order.append(node)
            for later in self._followers(node):
                waits[later] -= 1
                if waits[later] == 0:
                    heapq.heappush(ready, (self.start[later], later))
        return order

    def _waits_for(self, node: int) -> list[int]:
        found = [self._alias[u] for u, _ in self._preds[node] if u >= 0]
        if self._before[node] >= 0:
            found.append(self._before[node])
        return found

    def _followers(self, node: int) -> list[int]:
        found = [self._alias[v] for v, _ in self._succs[node]]
        if self._after[node] >= 0:
            found.append(self._after[node])
        return found

    def _start_of(self, node: int) -> float:
        start, alias, duration = self.start, self._alias, self._duration
        before = self._before[node]
        found = start[before] + duration[before] if before >= 0 else 0.0
        for u, cost in self._preds[node]:
            if u >= 0:
                u = alias[u]
                cost += start[u] + duration[u]
            if cost > found:
                found = cost
        return found

    def _tail_of(self, node: int) -> float:
        tail, alias, duration = self.tail, self._alias, self._duration
        after = self._after[node]
        found = duration[after] + tail[after] if after >= 0 else 0.0
        for v, cost in self._succs[node]:
            v = alias[v]
            cost += duration[v] + tail[v]
            if cost > found:
                found = cost
        return found

    def _fits(self, kept: int, copies: list[int], limit_us: float) -> bool:
        """Return whether the longest path through the merged stage keeps the limit."""
        saved = [(node, self.start[node]) for node in (*copies, kept)]
        for node in (*copies, kept):
            self.start[node] = self._start_of(node)
        through = self.start[kept] + self._duration[kept] + self._tail_of(kept)
        for node, start in saved:
            self.start[node] = start
        return through <= limit_us

    def _relink(
        self, kept: int, absorbed: tuple[int, ...], copies: list[int], undo: _Undo
    ) -> list[int]:
        """Take absorbed stages out of their queue, gather the copies; return what to re-time."""

        def join(before: int, after: int) -> None:
            for node in (before, after):
                if node >= 0:
                    undo.links.append((node, self._before[node], self._after[node]))
            if before >= 0:
                self._after[before] = after
            if after >= 0:
                self._before[after] = before

        seeds = [*copies, kept]
        for member in absorbed:
            own = self._copies.get(member, ())
            first = self._first_of(member, own)
            after = self._after[member]
            join(self._before[first], after)
            seeds.append(after)
        if any(self._copies.get(member) for member in absorbed):
            before = self._before[self._first_of(kept, undo.copies)]
            for node in copies:
                undo.links.append((node, self._before[node], self._after[node]))
            for node in (*copies, kept):
                join(before, node)
                before = node
        return seeds

    def _first_of(self, stage: int, own: Sequence[int]) -> int:
        """Return the first of a stage and its copies in the queue (copies stand before it)."""
        node = stage
        for _ in own:
            node = self._before[node]
        return node

    def _correct_starts(self, seeds: list[int], undo: _Undo, limit_us: float) -> bool:
        """Correct start times from `seeds` downwards; stop once the limit is exceeded."""
        start = self.start
        queue = [(start[node], node) for node in seeds]
        heapq.heapify(queue)
        waiting = set(seeds)
        kept = undo.kept
        while queue:
            _, node = heapq.heappop(queue)
            if node not in waiting:
                continue
            waiting.discard(node)
            found = self._start_of(node)
            # The merged stage also has another duration, so what follows it must look again.
            if found == start[node] and node != kept:
                continue
            if found + self._duration[node] > limit_us:
                return False
            undo.starts.append((node, start[node]))
            start[node] = found
            for later in self._followers(node):
                if later not in waiting:
                    waiting.add(later)
                    heapq.heappush(queue, (start[later], later))
        return True

    def _time_everything(self) -> None:
        n_nodes = len(self.start)
        waits = [len(self._waits_for(node)) for node in range(n_nodes)]
        order = [node for node in range(n_nodes) if waits[node] == 0]
        for node in order:
            self.start[node] = self._start_of(node)
            for later in self._followers(node):
                waits[later] -= 1
                if waits[later] == 0:
                    order.append(later)
        for node in reversed(order):
            self.tail[node] = self._tail_of(node)
