"""AutoGraph: backtracking over parts of the graph, joined by dynamic programming.

Y. Zhao et al., "AutoGraph: Optimizing DNN computation graph for parallel GPU kernel execution",
AAAI 2023. A candidate is judged by the mixed cost of its critical path and its work,

    C = α · Σ over the critical path + Σ over all operators,

the graph is partitioned where few tensors cross, in each part a backtracking search expands the
cheapest candidate and keeps those with C < β · best, and a dynamic program picks one of the top
k candidates of each part. Measured latencies correct α.

Here a candidate is a list of stages, the search begins with one operator a stage and with the
levels of the graph, and the moves are: fuse two neighbouring stages (their
operators run at once where they are independent, else in a chain), move one operator to the
neighbouring stage, swap neighbouring stages, and, where the graph offers it, merge operators
into one. Σ over the critical path is the longest group of each stage. The 'measured' latency is
the sum of the stages' costs, for which (α·critical + work) / (α + 1) is the model. The dynamic
program also fuses the last stage of a part with the first of the next where that pays.
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hios.costs.protocol import Costs
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId, OpId
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.schedulers.blocks import blocks, halves
from hios.schedulers.dag import OpDag, op_dag
from hios.schedulers.endings import Endings, positions
from hios.schedulers.merges import Offers, known_merges
from hios.schedulers.registry import register
from hios.schedulers.single_device import chosen_device, require_at_least, staged_schedule

__all__ = ["autograph"]

# Where α may end up after a correction, and where it begins: path and work weigh the same.
_LEAST_ALPHA, _MOST_ALPHA, _FIRST_ALPHA = 0.05, 20.0, 1.0

# Stages of a part in order, each a bitmask over its positions.
_Stages = tuple[int, ...]

# Of the dynamic program: a candidate, and whether its last stage may still be fused.
_State = tuple[int, bool]

# The time so far, the state before, and whether the stages between the two are fused.
_Reached = tuple[float, _State | None, bool]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One way to run a part.

    Attributes
    ----------
    stages
        Bitmasks over the part.
    latency_us
        Sum of the costs of the stages.
    """

    stages: _Stages
    latency_us: float


@register("autograph", source="AutoGraph, AAAI 2023")
def autograph(
    graph: OpGraph,
    machine: Machine,
    costs: Costs,
    *,
    part: int = 12,
    beta: float = 1.1,
    keep: int = 8,
    max_candidates: int = 500,
    merge: bool = True,
    device: int = 0,
) -> Schedule:
    """Search each part by backtracking on a mixed cost, and join them by dynamic programming.

    Parameters
    ----------
    graph, machine, costs
        What to run, where, and how long it takes.
    part
        Most operators in a part.
    beta
        A candidate is expanded while its cost is below β times the best.
    keep
        Candidates of each part that the dynamic program chooses from.
    max_candidates
        Most candidates looked at in a part.
    merge
        Whether merged operators (`OpGraph.alternatives`) may be chosen.
    device
        Where everything runs.

    Raises
    ------
    InvalidOption
        When an option is out of range.
    UnknownDevice
        When the machine has no such device.

    Notes
    -----
    O(V · max_candidates · part) steps. Notes of the schedule: ``parts``, ``evaluations``
    (candidates), ``alpha`` as corrected in the end, ``merged``.
    """
    require_at_least(1, part=part, beta=beta, keep=keep, max_candidates=max_candidates)
    where = chosen_device(machine, device)
    dag = op_dag(graph)
    parts = _parts(dag, part)
    offers = known_merges(graph, costs, where, dag) if merge else {}
    n_streams = machine.devices[where].streams
    search = _Search(dag, costs, where, n_streams, offers, beta, keep, max_candidates)
    found = [search.candidates(one) for one in parts]
    stages = search.join(parts, found)

    decided = []
    names = []
    for members in stages:
        name = search.merged_name(members)
        if name is not None:
            names.append(name)
            decided.append([[dag.ops[v] for v in members]])
        else:
            decided.append([[dag.ops[v] for v in group] for group in _groups(dag, members)])
    notes = {
        "parts": len(parts),
        "evaluations": search.n_candidates,
        "alpha": search.alpha,
        "merged": len(names),
    }
    return staged_schedule("autograph", decided, where, notes, names)


class _Search:
    """What is known while the parts are searched: α, and the cost of every stage seen."""

    def __init__(
        self,
        dag: OpDag,
        costs: Costs,
        device: DeviceId,
        n_streams: int,
        offers: Offers,
        beta: float,
        keep: int,
        max_candidates: int,
    ) -> None:
        self.dag = dag
        self.costs = costs
        self.device = device
        self.times = dag.times_us(costs, device)
        self.n_streams = n_streams
        self.offers = offers
        self.beta = beta
        self.keep = keep
        self.max_candidates = max_candidates
        self.alpha = _FIRST_ALPHA
        self.n_candidates = 0
        self.stage_us: dict[tuple[int, ...], float] = {}

    def candidates(self, part: range) -> list[_Candidate]:
        """Return the best candidates of a part by latency, after correcting α by them."""
        shape = Endings(
            [[w - part.start for w in self.dag.succs[v] if w in part] for v in part], 1, 1
        )
        critical: dict[int, tuple[float, float]] = {}

        def stage_cost(stage: int) -> tuple[float, float]:
            """Longest group and work of a stage, the cheaper way if it can be merged."""
            known = critical.get(stage)
            if known is None:
                loads = [
                    sum(self.times[part.start + v] for v in positions(group))
                    for group in shape.groups(stage)
                ]
                known = (max(loads), sum(loads))
                offer = self.offers.get(_members(stage, part))
                if offer is not None and offer[0] < known[1]:
                    known = (min(offer[0], known[0]), offer[0])
                critical[stage] = known
            return known

        def mixed(stages: _Stages) -> tuple[float, float, float]:
            each = [stage_cost(stage) for stage in stages]
            path, work = sum(c for c, _ in each), sum(w for _, w in each)
            return self.alpha * path + work, path, work

        def is_allowed(stage: int) -> bool:
            return (
                len(shape.groups(stage)) <= self.n_streams or _members(stage, part) in self.offers
            )

        # One operator a stage, and as many of a level as there are streams.
        starts = (tuple(1 << v for v in range(len(part))), _levels(shape, self.n_streams))
        seen = {start: mixed(start) for start in starts}
        heap = [(judged[0], start) for start, judged in seen.items()]
        heapq.heapify(heap)
        best = heap[0][0]
        while heap and len(seen) < self.max_candidates:
            cost, stages = heapq.heappop(heap)
            if cost > self.beta * best:
                break
            for moved in _moves(stages, shape):
                if moved in seen or not all(map(is_allowed, moved)):
                    continue
                judged = mixed(moved)
                if judged[0] > self.beta * best:
                    continue
                seen[moved] = judged
                best = min(best, judged[0])
                heapq.heappush(heap, (judged[0], moved))
                if len(seen) >= self.max_candidates:
                    break
        self.n_candidates += len(seen)

        # The starts stay in the race, so that no part gets slower by the search.
        top = sorted(seen, key=lambda stages: (seen[stages][0], stages))[: self.keep]
        top += [start for start in dict.fromkeys(starts) if start not in top]
        self._measure([_members(stage, part) for stages in top for stage in stages])
        measured = [
            _Candidate(stages, sum(self.stage_us[_members(s, part)] for s in stages))
            for stages in top
        ]
        self._correct([(one.latency_us, *seen[one.stages][1:]) for one in measured])
        return sorted(measured, key=lambda one: (one.latency_us, one.stages))

    def join(
        self, parts: Sequence[range], found: Sequence[Sequence[_Candidate]]
    ) -> list[tuple[int, ...]]:
        """Pick one candidate of each part; return all stages as positions.

        Dynamic programming over (candidate, whether its last stage may still be fused).
        """
        tables: list[dict[_State, _Reached]] = []
        for index, (part, candidates) in enumerate(zip(parts, found, strict=True)):
            table: dict[_State, _Reached] = {}
            for i, candidate in enumerate(candidates):
                alone, chained = (i, True), (i, len(candidate.stages) > 1)
                if index == 0:
                    table[alone] = (candidate.latency_us, None, False)
                    continue
                first = _members(candidate.stages[0], part)
                for before, (time, _, _) in sorted(tables[-1].items()):
                    total = time + candidate.latency_us
                    if alone not in table or total < table[alone][0]:
                        table[alone] = (total, before, False)
                    if not before[1]:
                        continue
                    last = _members(found[index - 1][before[0]].stages[-1], parts[index - 1])
                    total -= self._fusion_gain(last, first)
                    # A candidate of one stage is used up by the fusion.
                    if chained not in table or total < table[chained][0]:
                        table[chained] = (total, before, True)
            tables.append(table)
        if not tables:
            return []
        ending = tables[-1]
        state: _State | None = min(ending, key=lambda s: (ending[s][0], s))
        stages: list[tuple[int, ...]] = []
        is_fused = False
        for index in range(len(parts) - 1, -1, -1):
            assert state is not None, "only the first part has nothing before it"
            own = [_members(stage, parts[index]) for stage in found[index][state[0]].stages]
            if is_fused:
                stages[0] = own.pop() + stages[0]
            stages[:0] = own
            _, state, is_fused = tables[index][state]
        return stages

    def _fusion_gain(self, last: tuple[int, ...], first: tuple[int, ...]) -> float:
        """Return the time saved by fusing two stages; below zero where that is not possible."""
        fused = last + first
        if len(_groups(self.dag, fused)) > self.n_streams:
            return -math.inf
        self._measure([fused])
        return self.stage_us[last] + self.stage_us[first] - self.stage_us[fused]

    def merged_name(self, members: tuple[int, ...]) -> str | None:
        """Return the alternative that is cheaper than running a stage as it is, or None."""
        offer = self.offers.get(members)
        if offer is None or offer[0] > self.stage_us[members]:
            return None
        return offer[1]

    def _measure(self, stages: Sequence[tuple[int, ...]]) -> None:
        new = [stage for stage in dict.fromkeys(stages) if stage not in self.stage_us]
        asked: list[tuple[int, ...]] = []
        groups: list[list[list[OpId]]] = []
        for stage in new:
            found = _groups(self.dag, stage)
            if len(found) <= self.n_streams:
                asked.append(stage)
                groups.append([[self.dag.ops[v] for v in group] for group in found])
        for stage, time in zip(asked, self.costs.stage_us_many(groups, self.device), strict=True):
            self.stage_us[stage] = time
        for stage in new:
            offer = self.offers.get(stage)
            if offer is not None:
                self.stage_us[stage] = min(offer[0], self.stage_us.get(stage, offer[0]))

    def _correct(self, measured: Sequence[tuple[float, float, float]]) -> None:
        """Fit α to (latency, critical path, work) by least squares."""
        above = sum((work - latency) * (latency - path) for latency, path, work in measured)
        below = sum((latency - path) ** 2 for latency, path, _ in measured)
        if below > 0.0:
            self.alpha = min(_MOST_ALPHA, max(_LEAST_ALPHA, above / below))


def _moves(stages: _Stages, shape: Endings) -> Iterator[_Stages]:
    """Yield the neighbours of a candidate."""
    for i in range(len(stages) - 1):
        first, second = stages[i], stages[i + 1]
        head, tail = stages[:i], stages[i + 2 :]
        yield (*head, first | second, *tail)
        if not any(shape.succ[v] & second for v in positions(first)):
            yield (*head, second, first, *tail)
        if first.bit_count() > 1:
            for v in positions(first):
                if not shape.succ[v] & first:
                    yield (*head, first ^ (1 << v), second | (1 << v), *tail)
        if second.bit_count() > 1:
            for v in positions(second):
                if not shape.pred[v] & second:
                    yield (*head, first | (1 << v), second ^ (1 << v), *tail)


def _levels(shape: Endings, n_streams: int) -> _Stages:
    """Return the operators by the length of the longest chain of predecessors."""
    level: list[int] = []
    for before in shape.pred:
        level.append(max([level[u] + 1 for u in positions(before)], default=0))
    stages = []
    for depth in range(max(level, default=-1) + 1):
        members = [v for v, own in enumerate(level) if own == depth]
        for first in range(0, len(members), n_streams):
            stages.append(sum(1 << v for v in members[first : first + n_streams]))
    return tuple(stages)


def _parts(dag: OpDag, most: int) -> list[range]:
    found: list[range] = []
    for block in blocks(dag.preds):
        waiting = [block]
        while waiting:
            part = waiting.pop()
            if len(part) > most:
                waiting.extend(reversed(halves(dag.preds, part)))
            elif found and len(found[-1]) + len(part) <= most:
                # Small blocks, such as the operators of a chain, share a part.
                found[-1] = range(found[-1].start, part.stop)
            else:
                found.append(part)
    return found


def _members(stage: int, part: range) -> tuple[int, ...]:
    return tuple(part.start + v for v in positions(stage))


def _groups(dag: OpDag, members: Sequence[int]) -> list[list[int]]:
    """Return the weakly connected components of some positions, each ascending."""
    left = set(members)
    found = []
    for v in members:
        if v in left:
            left.discard(v)
            group = [v]
            for u in group:
                for w in (*dag.preds[u], *dag.succs[u]):
                    if w in left:
                        left.discard(w)
                        group.append(w)
            found.append(sorted(group))
    return found
