"""IOS: dynamic programming over endings (Ding et al., MLSys 2021, section 4).

    cost[∅] = 0;  cost[S] = min over endings S' of S: cost[S − S'] + stage(S')

with stage(S') the cheaper of running the groups of S' at once, one stream each, and, where the
graph offers it, of one merged operator in place of S'. Endings have at most s groups of at most
r operators (section 4.3; r = 3 and s = 8 there). The graph is cut into blocks at its single-node
cuts first.

The states of a block are visited by falling size, and costs flow from the whole block to the
empty set (best way to run what is *not* in S after S), so nothing recurses, only one level of
transitions is held, and a level's stages are asked for in one batch. Each stage is asked for
once. A block with too many states is cut in two where few values cross, until its parts fit, and
windows over the cuts are then solved again; the notes count such blocks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hios.costs.protocol import Costs
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId, OpId
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.schedulers.blocks import blocks, halves
from hios.schedulers.dag import OpDag, op_dag
from hios.schedulers.endings import Endings, n_states, positions
from hios.schedulers.merges import Offers, known_merges
from hios.schedulers.registry import register
from hios.schedulers.single_device import chosen_device, require_at_least, staged_schedule

__all__ = ["BlockSolution", "StageChoice", "ios", "search_part"]


@dataclass(frozen=True, slots=True)
class StageChoice:
    """One stage of a solution.

    Attributes
    ----------
    groups
        Operators that run at once, one stream each; a single group when merged.
    time_us
        Its cost.
    alternative
        Name of the merged operator, or None.
    """

    groups: tuple[tuple[OpId, ...], ...]
    time_us: float
    alternative: str | None = None


@dataclass(frozen=True, slots=True)
class BlockSolution:
    """The best stages of one block, and what it took to find them.

    Attributes
    ----------
    time_us
        Sum of the stages.
    stages
        In order of execution.
    states
        Reachable states S, the empty one left out.
    pairs
        Transitions (S, S').
    stages_evaluated
        Different stages whose cost was asked for.
    """

    time_us: float
    stages: tuple[StageChoice, ...]
    states: int
    pairs: int
    stages_evaluated: int


@register("ios", source="IOS, MLSys 2021")
def ios(
    graph: OpGraph,
    machine: Machine,
    costs: Costs,
    *,
    r: int = 3,
    s: int = 8,
    merge: bool = True,
    device: int = 0,
    max_states: int = 20_000,
) -> Schedule:
    """Find the best stages on one device by dynamic programming over endings.

    Parameters
    ----------
    graph, machine, costs
        What to run, where, and how long it takes.
    r
        Most operators in a group.
    s
        Most groups in a stage; never more than the device has streams.
    merge
        Whether merged operators (`OpGraph.alternatives`) may be chosen.
    device
        Where everything runs.
    max_states
        Most states of the whole graph. A block gets the share of its operators; one that has
        more states is cut in two.

    Raises
    ------
    InvalidOption
        When r, s or `max_states` is below 1.
    UnknownDevice
        When the machine has no such device.

    Notes
    -----
    At most C(n/d + 2, 2)^d transitions for a block of n operators of which d can run at once,
    without pruning. Notes of the schedule: ``states``, ``pairs``, ``evaluations`` (different
    stages), ``blocks``, ``cut_blocks`` (those cut for their size; the optimum is only promised
    when 0) and ``merged``. A device of one stream needs no search.
    """
    require_at_least(1, r=r, s=s, max_states=max_states)
    where = chosen_device(machine, device)
    s = min(s, machine.devices[where].streams)
    dag = op_dag(graph)
    merges = known_merges(graph, costs, where, dag) if merge else {}

    if s == 1 and not merges:
        # One group at a time: every order costs the same.
        notes = {"states": 0, "pairs": 0, "evaluations": 0, "blocks": 0, "cut_blocks": 0}
        stages_alone = [((op,),) for op in dag.ops]
        return staged_schedule("ios", stages_alone, where, {**notes, "merged": 0})
    search = _Search(dag, costs, where, r, s, merges, max_states)
    found = blocks(dag.preds)
    stages = [stage for block in found for stage in search.solve_block(block)]
    names = [stage.alternative for stage in stages if stage.alternative is not None]
    return staged_schedule(
        "ios",
        [stage.groups for stage in stages],
        where,
        {
            "states": search.n_states,
            "pairs": search.n_pairs,
            "evaluations": search.n_evaluations,
            "blocks": len(found),
            "cut_blocks": search.n_cut,
            "merged": len(names),
        },
        names,
    )


class _Search:
    """Solves blocks, in pieces where they are too large, and counts what that takes."""

    def __init__(
        self,
        dag: OpDag,
        costs: Costs,
        device: DeviceId,
        r: int,
        s: int,
        merges: Offers,
        max_states: int,
    ) -> None:
        self.dag = dag
        self.costs = costs
        self.device = device
        self.r = r
        self.s = s
        self.merges = merges
        self.position = {op: v for v, op in enumerate(dag.ops)}
        self.states_per_operator = max_states / max(1, len(dag))
        self.n_states = self.n_pairs = self.n_evaluations = self.n_cut = 0

    def solve_block(self, block: range) -> list[StageChoice]:
        """Return the best stages of a block, or good ones when it has too many states."""
        waiting: list[range] = [block]
        stages: list[StageChoice] = []
        is_cut = False
        while waiting:
            part = waiting.pop()
            if len(part) > 1 and self._is_too_large(part):
                is_cut = True
                waiting.extend(reversed(halves(self.dag.preds, part)))
            else:
                stages += self._solve(part)
        if not is_cut:
            return stages
        self.n_cut += 1
        return self._sew(stages)

    def _sew(self, stages: list[StageChoice]) -> list[StageChoice]:
        """Solve windows of consecutive stages again, each reaching half into the next.

        Consecutive stages may always be replaced by another way to run their operators, so
        this mends what the cuts tore, and never makes anything slower.
        """
        start, size = 0, 2
        while start + 1 < len(stages):
            while size < len(stages) - start and not self._is_too_large(
                self._positions(stages[start : start + size + 1])
            ):
                size += 1
            while size > 1 and self._is_too_large(self._positions(stages[start : start + size])):
                size -= 1
            window = stages[start : start + size]
            if size > 1:
                again = self._solve(self._positions(window))
                now = sum(stage.time_us for stage in window)
                if sum(stage.time_us for stage in again) < now * (1.0 - 1e-12):
                    stages[start : start + size] = again
                    size = len(again)
            if start + size >= len(stages):
                break
            start += max(1, size // 2)
        return stages

    def _positions(self, stages: Sequence[StageChoice]) -> list[int]:
        return sorted(
            self.position[op] for stage in stages for group in stage.groups for op in group
        )

    def _is_too_large(self, part: Sequence[int]) -> bool:
        most = max(64, int(self.states_per_operator * len(part)))
        return n_states(self._successors(part), most) > most

    def _solve(self, part: Sequence[int]) -> list[StageChoice]:
        index = {v: i for i, v in enumerate(part)}
        offers = {
            sum(1 << index[v] for v in members): offer
            for members, offer in self.merges.items()
            if all(v in index for v in members)
        }
        ops = [self.dag.ops[v] for v in part]
        solution = search_part(
            self._successors(part), ops, self.costs, self.device, self.r, self.s, offers
        )
        self.n_states += solution.states
        self.n_pairs += solution.pairs
        self.n_evaluations += solution.stages_evaluated
        return list(solution.stages)

    def _successors(self, part: Sequence[int]) -> list[list[int]]:
        index = {v: i for i, v in enumerate(part)}
        return [[index[w] for w in self.dag.succs[v] if w in index] for v in part]


def search_part(
    succs: Sequence[Sequence[int]],
    ops: Sequence[OpId],
    costs: Costs,
    device: DeviceId,
    r: int,
    s: int,
    offers: dict[int, tuple[float, str]] | None = None,
) -> BlockSolution:
    """Return the best stages of one part of a graph.

    Parameters
    ----------
    succs
        Successors within the part, by topological position 0 … n − 1.
    ops
        Operator at each position.
    costs, device
        Asked for the stages.
    r, s
        Most operators in a group, most groups in a stage.
    offers
        Merged operators: bitmask of the positions replaced → (time in µs, name).

    Notes
    -----
    Of equal stages the one met first stays; endings come in a fixed order.
    """
    endings = Endings(succs, r, s)
    offers = offers or {}
    n = len(succs)
    full = endings.full
    # Of each state: time to run all that is not in it, after it; and the stage that begins so.
    after: list[dict[int, float]] = [{} for _ in range(n + 1)]
    sinks: list[dict[int, int]] = [{} for _ in range(n + 1)]
    chosen: dict[int, int] = {}
    after[n][full] = 0.0
    sinks[n][full] = endings.sinks(full)
    stage_us: dict[int, float] = {}
    merged = set()
    # Members that may also run at once (r and s allow it) are offered both ways.
    both = [e for e in offers if _is_kept(endings.groups(e), r, s)]
    _ask(both, endings, ops, costs, device, stage_us)
    for ending, (time, _) in offers.items():
        if time < stage_us.get(ending, math.inf):
            merged.add(ending)
            stage_us[ending] = time
    pairs = states = 0
    for size in range(n, 0, -1):
        level = after[size]
        states += len(level)
        own_sinks = sinks[size]
        found = [(state, endings.of(state, own_sinks[state])) for state in level]
        new = {ending for _, some in found for ending in some if ending not in stage_us}
        _ask(sorted(new), endings, ops, costs, device, stage_us)
        for state, some in found:
            so_far = level[state]
            if offers:
                known = set(some)
                some += [e for e in offers if e not in known and endings.is_ending(e, state)]
            pairs += len(some)
            for ending in some:
                left = state ^ ending
                total = so_far + stage_us[ending]
                smaller = left.bit_count()
                below = after[smaller]
                best = below.get(left)
                if best is None or total < best:
                    below[left] = total
                    chosen[left] = ending
                    if best is None:
                        sinks[smaller][left] = endings.sinks_without(left, own_sinks[state], ending)
        level.clear()
        own_sinks.clear()

    stages = []
    state = 0
    while state != full:
        ending = chosen[state]
        state |= ending
        if ending in merged:
            members = tuple(ops[v] for v in positions(ending))
            stages.append(StageChoice((members,), stage_us[ending], offers[ending][1]))
        else:
            groups = tuple(
                tuple(ops[v] for v in positions(group)) for group in endings.groups(ending)
            )
            stages.append(StageChoice(groups, stage_us[ending]))
    return BlockSolution(after[0].get(0, 0.0), tuple(stages), states, pairs, len(stage_us))


def _ask(
    new: list[int],
    endings: Endings,
    ops: Sequence[OpId],
    costs: Costs,
    device: DeviceId,
    stage_us: dict[int, float],
) -> None:
    """Look the stages of some endings up in one batch."""
    stages = [
        [[ops[v] for v in positions(group)] for group in endings.groups(ending)] for ending in new
    ]
    for ending, time in zip(new, costs.stage_us_many(stages, device), strict=True):
        stage_us[ending] = time


def _is_kept(groups: Sequence[int], r: int, s: int) -> bool:
    return len(groups) <= s and all(group.bit_count() <= r for group in groups)
