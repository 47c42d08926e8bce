"""IOS: dynamic programming over endings (Ding et al., MLSys 2021, section 4).

    cost[∅] = 0;  cost[S] = min over endings S' of S: cost[S − S'] + stage(S')

with stage(S') the cheaper of running the groups of S' at once, one stream each, and, where the
graph offers it, of one merged operator in place of S'. Endings have at most s groups of at most
r operators (section 4.3; r = 3 and s = 8 there). The graph is cut into blocks at its single-node
cuts first.

The states of a block are visited by falling size, and costs flow from the whole block to the
empty set (best way to run what is *not* in S after S), so nothing recurses, only one level of
transitions is held, and a level's stages are asked for in one batch. Each stage is asked for
once. A block with too many states is cut in two where few values cross, until it fits; the notes
say how often.
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
    alternative
        Name of the merged operator, or None.
    """

    groups: tuple[tuple[OpId, ...], ...]
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
        Most states to look at in the whole graph. A block gets the share of its operators; one
        that has more states is cut in two.

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
    when 0) and ``merged``.
    """
    require_at_least(1, r=r, s=s, max_states=max_states)
    where = chosen_device(machine, device)
    s = min(s, machine.devices[where].streams)
    dag = op_dag(graph)
    merges = known_merges(graph, costs, where, dag) if merge else {}

    found = blocks(dag.preds)
    solutions: list[BlockSolution] = []
    n_cut = 0
    if s == 1 and not merges:
        # One group at a time: every order costs the same, and one search state less to think.
        alone = tuple(StageChoice(((op,),)) for op in dag.ops)
        times = dag.times_us(costs, where)
        solutions.append(BlockSolution(sum(times), alone, len(alone), len(alone), 0))
        found = []
    share = max_states / max(1, len(dag))
    for block in found:
        waiting = [block]
        while waiting:
            part = waiting.pop()
            most = max(64, int(share * len(part)))
            inside = _successors(dag, part)
            if len(part) > 1 and n_states(inside, most) > most:
                n_cut += 1
                waiting.extend(reversed(halves(dag.preds, part)))
                continue
            ops = dag.ops[part.start : part.stop]
            offers = _offers_inside(merges, part)
            solutions.append(search_part(inside, ops, costs, where, r, s, offers))

    stages = [stage for solution in solutions for stage in solution.stages]
    names = [stage.alternative for stage in stages if stage.alternative is not None]
    return staged_schedule(
        "ios",
        [stage.groups for stage in stages],
        where,
        {
            "states": sum(one.states for one in solutions),
            "pairs": sum(one.pairs for one in solutions),
            "evaluations": sum(one.stages_evaluated for one in solutions),
            "blocks": len(solutions),
            "cut_blocks": n_cut,
            "merged": len(names),
        },
        names,
    )


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
    chosen: dict[int, int] = {}
    after[n][full] = 0.0
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
        found = [(state, endings.of(state)) for state in level]
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
                below = after[left.bit_count()]
                best = below.get(left)
                if best is None or total < best:
                    below[left] = total
                    chosen[left] = ending
        level.clear()

    stages = []
    state = 0
    while state != full:
        ending = chosen[state]
        state |= ending
        if ending in merged:
            members = tuple(ops[v] for v in positions(ending))
            stages.append(StageChoice((members,), offers[ending][1]))
        else:
            groups = endings.groups(ending)
            stages.append(StageChoice(tuple(tuple(ops[v] for v in positions(g)) for g in groups)))
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


def _successors(dag: OpDag, part: range) -> list[list[int]]:
    return [[w - part.start for w in dag.succs[v] if w in part] for v in part]


def _offers_inside(merges: Offers, part: range) -> dict[int, tuple[float, str]]:
    return {
        sum(1 << (v - part.start) for v in members): offer
        for members, offer in merges.items()
        if all(v in part for v in members)
    }
