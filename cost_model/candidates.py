"""Which groups of a graph are worth measuring.

Two kinds take turns, so that any first part of the list has both:

* pairs of independent operators, those of about the same depth first, as a scheduler would put
  them side by side; in the end all pairs up to `CandidateOptions.distance`;
* larger groups and chains: endings of random states of the graph with two to `s` groups of at
  most `r` operators each, which are the stages that IOS tries (Ding et al., MLSys 2021, section
  4: an ending is a set of operators that no other operator of the state needs).

Groups of the same kernels are one: operators count by their keys, over all models. The same seed
gives the same list.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from hios.errors import InvalidOption
from hios.ir.graph import OpGraph
from hios.ir.ids import OpId
from hios.ir.operator_key import operator_key

__all__ = [
    "CandidateOptions",
    "Chains",
    "Identity",
    "Uncertainty",
    "candidate_groups",
    "identity_of",
    "most_uncertain",
    "take_turns",
]

Chains = tuple[tuple[OpId, ...], ...]
"""Groups that run at once, each a chain in order."""

Identity = tuple[tuple[str, ...], ...]
"""What tells one set of chains from others: the keys of the operators."""

Uncertainty = Callable[[Sequence[Chains]], Sequence[float]]
"""How unsure a model is about each of some groups; any unit, larger is less sure."""


@dataclass(frozen=True, slots=True)
class CandidateOptions:
    """What is offered.

    Attributes
    ----------
    r
        Most operators in a chain.
    s
        Most chains in a group.
    distance
        Largest difference in depth of the operators of a pair.
    patience
        Random endings in a row that bring nothing new before the search ends.
    """

    r: int = 3
    s: int = 4
    distance: int = 3
    patience: int = 300

    def validate(self) -> None:
        """Check the numbers.

        Raises
        ------
        InvalidOption
            When r or patience is below 1, s below 2, or the distance negative.
        """
        if self.r < 1 or self.s < 2 or self.distance < 0 or self.patience < 1:
            raise InvalidOption(
                f"r={self.r}, s={self.s}, distance={self.distance}, patience={self.patience}; "
                "need r ≥ 1, s ≥ 2, distance ≥ 0, patience ≥ 1"
            )


def candidate_groups(
    graph: OpGraph, seed: int = 0, options: CandidateOptions | None = None
) -> Iterator[Chains]:
    """Yield the groups of a graph worth measuring, each set of kernels once.

    Parameters
    ----------
    graph
        Operators without a key are left out: nothing measured could be known again.
    seed
        Of the order of equally near pairs and of the random endings.
    options
        See `CandidateOptions`.

    Notes
    -----
    The operators of a group are independent of those of the other groups, and each chain stands
    in a topological order. O(n²/w) for n operators and machine words of w bits before the first
    one is yielded.
    """
    options = options or CandidateOptions()
    options.validate()
    keys = {op.id: operator_key(graph, op.id) for op in graph.operators}
    seen: set[Identity] = set()
    structure = _Structure(graph)
    streams = [
        _distinct(_pairs(structure, keys, seed, options), keys, seen, None),
        _distinct(_endings(structure, keys, seed, options), keys, seen, options.patience),
    ]
    return _alternate(streams)


def take_turns(
    candidates: Sequence[Iterable[tuple[Identity, Chains]]],
) -> Iterator[tuple[int, Chains]]:
    """Merge the groups of several graphs, one of each in turn, each set of kernels once.

    Parameters
    ----------
    candidates
        For each graph its groups with what tells them apart.

    Yields
    ------
    tuple
        The number of the graph and the group.
    """
    seen: set[Identity] = set()
    active = [(number, iter(groups)) for number, groups in enumerate(candidates)]
    while active:
        still = []
        for number, groups in active:
            for identity, chains in groups:
                if identity not in seen:
                    seen.add(identity)
                    yield number, chains
                    still.append((number, groups))
                    break
        active = still


def identity_of(graph: OpGraph, groups: Sequence[Sequence[OpId]]) -> Identity:
    """Return what tells groups of the same kernels from others; streams may be swapped."""
    return tuple(sorted(tuple(operator_key(graph, op) or "" for op in chain) for chain in groups))


def most_uncertain(
    groups: Iterable[Chains], uncertainty: Uncertainty, pool: int, count: int
) -> list[Chains]:
    """Return those of the first `pool` groups that a model is least sure about, least sure first.

    Parameters
    ----------
    groups
        Candidates.
    uncertainty
        The model's.
    pool
        How many candidates are looked at.
    count
        How many are wanted.

    Notes
    -----
    Of groups equally uncertain the earlier one comes first.
    """
    offered = list(itertools.islice(groups, pool))
    if not offered:
        return []
    rated = zip(uncertainty(offered), itertools.count(), offered, strict=False)
    return [chains for _, _, chains in heapq.nsmallest(count, ((-u, i, c) for u, i, c in rated))]


class _Structure:
    """Neighbours, depths and reachability of a graph."""

    def __init__(self, graph: OpGraph) -> None:
        count = len(graph.operators)
        self.succs: list[list[OpId]] = [[] for _ in range(count)]
        self.preds: list[list[OpId]] = [[] for _ in range(count)]
        for before, after in graph.edges():
            self.succs[before].append(after)
            self.preds[after].append(before)
        self.order = graph.topological_order()
        self.depth = [0] * count
        self.above = [0] * count  # bit sets of all operators that come before
        for op in self.order:
            for before in self.preds[op]:
                self.depth[op] = max(self.depth[op], self.depth[before] + 1)
                self.above[op] |= self.above[before] | 1 << before

    def is_independent(self, one: OpId, other: OpId) -> bool:
        return not (self.above[one] >> other & 1 or self.above[other] >> one & 1)


def _distinct(
    groups: Iterable[Chains],
    keys: dict[OpId, str | None],
    seen: set[Identity],
    patience: int | None,
) -> Iterator[Chains]:
    """Yield groups not seen before; give up after `patience` known ones in a row."""
    idle = 0
    for chains in groups:
        identity = tuple(sorted(tuple(keys[op] or "" for op in chain) for chain in chains))
        if identity in seen:
            idle += 1
            if patience is not None and idle >= patience:
                return
            continue
        idle = 0
        seen.add(identity)
        yield chains


def _alternate(streams: Sequence[Iterator[Chains]]) -> Iterator[Chains]:
    active = list(streams)
    while active:
        still = []
        for stream in active:
            chains = next(stream, None)
            if chains is not None:
                yield chains
                still.append(stream)
        active = still


def _pairs(
    structure: _Structure, keys: dict[OpId, str | None], seed: int, options: CandidateOptions
) -> Iterator[Chains]:
    levels: dict[int, list[OpId]] = {}
    for op in structure.order:
        if keys[op] is not None:
            levels.setdefault(structure.depth[op], []).append(op)
    rng = random.Random(seed)
    for distance in range(options.distance + 1):
        found = []
        for depth, ones in levels.items():
            others = levels.get(depth + distance, ())
            for one in ones:
                for other in others:
                    is_new = distance > 0 or one < other
                    if is_new and structure.is_independent(one, other):
                        found.append(((one,), (other,)))
        rng.shuffle(found)
        yield from found


def _endings(
    structure: _Structure, keys: dict[OpId, str | None], seed: int, options: CandidateOptions
) -> Iterator[Chains]:
    """Yield random endings for ever; nothing where no state has two groups to run at once."""
    rng = random.Random(seed + 1)
    rank = {op: place for place, op in enumerate(structure.order)}
    misses = 0 if structure.order else options.patience
    while misses < options.patience:
        state = _random_state(structure, rng)
        chains = _random_ending(structure, state, rng, options)
        if len(chains) < 2 or any(keys[op] is None for chain in chains for op in chain):
            misses += 1
            continue
        if len(chains) == 2 and all(len(chain) == 1 for chain in chains):
            misses += 1  # a pair; those are offered elsewhere
            continue
        misses = 0
        yield tuple(sorted(tuple(sorted(chain, key=rank.__getitem__)) for chain in chains))


def _random_state(structure: _Structure, rng: random.Random) -> set[OpId]:
    """Return a set of operators that holds all predecessors of its members.

    What lies above a few operators of about the same depth: its sinks stand side by side.
    """
    first = rng.choice(structure.order)
    near = [op for op in structure.order if abs(structure.depth[op] - structure.depth[first]) <= 1]
    chosen = {first, *rng.sample(near, min(len(near), rng.randint(1, 8)))}
    mask = 0
    for op in chosen:
        mask |= structure.above[op] | 1 << op
    return {op for op in structure.order if mask >> op & 1}


def _random_ending(
    structure: _Structure, state: set[OpId], rng: random.Random, options: CandidateOptions
) -> list[list[OpId]]:
    """Grow groups upwards from sinks of the state; no two of them touch."""
    sinks = [op for op in sorted(state) if not any(s in state for s in structure.succs[op])]
    rng.shuffle(sinks)
    taken: set[OpId] = set()
    groups = []
    for sink in sinks[: rng.randint(2, options.s)]:
        if sink in taken:
            continue
        group = [sink]
        size = rng.randint(1, options.r)
        while len(group) < size:
            # An operator may join when everything of the state that needs it is in the group:
            # then nobody else in the ending does.
            ready = sorted(
                {
                    before
                    for op in group
                    for before in structure.preds[op]
                    if before not in group
                    and all(s in group for s in structure.succs[before] if s in state)
                }
            )
            if not ready:
                break
            group.append(rng.choice(ready))
        taken.update(group)
        groups.append(group)
    return groups
