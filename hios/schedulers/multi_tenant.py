"""Multi-tenant: several models share one device, cut into stages by pointers.

F. Yu et al., "Automated runtime-aware scheduling for multi-tenant DNN inference on GPU", ICCAD
2021. Each model is its operators in topological order and a vector of pointers into them. The
operators between the k-th and the next pointers of all models form stage k: one stream a model,
a barrier at the pointers. The vectors are improved by coordinate descent, one pointer of one
model at a time with all others fixed, and restarted from random vectors.

Models are told apart by the attribute that `hios.ir.union.union` sets, or else are the weakly
connected components of the graph. With more models than streams, several are queued on one
stream, the longest first on the stream with the least work.
"""

import random
from collections.abc import Sequence
from itertools import pairwise

from hios.costs.protocol import Costs
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId, OpId
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.ir.union import MODEL_ATTRIBUTE
from hios.schedulers.dag import OpDag, op_dag
from hios.schedulers.registry import register
from hios.schedulers.single_device import chosen_device, require_at_least, staged_schedule

__all__ = ["multi_tenant"]

# Places tried for one pointer at a time; more are thinned out evenly.
_MOST_PLACES = 16

# Of each tenant its part [begin, end) in a stage.
_StageParts = tuple[tuple[int, int], ...]


@register("multi-tenant", source="Yu et al., ICCAD 2021")
def multi_tenant(
    graph: OpGraph,
    machine: Machine,
    costs: Costs,
    *,
    stages: int = 16,
    restarts: int = 2,
    seed: int = 0,
    max_evaluations: int = 20_000,
    device: int = 0,
) -> Schedule:
    """Cut several models into common stages by coordinate descent over pointers.

    Parameters
    ----------
    graph, machine, costs
        What to run (see `hios.ir.union.union`), where, and how long it takes.
    stages
        Most stages; at least as many as there are tenants are used.
    restarts
        Random vectors tried after the balanced one and the one without any overlap.
    seed
        Of the restarts.
    max_evaluations
        Most different stages to ask the costs for.
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
    Notes of the schedule: ``models``, ``tenants`` (streams in use), ``evaluations``, and
    ``truncated``, 1 when these were used up.
    """
    require_at_least(1, stages=stages, max_evaluations=max_evaluations)
    require_at_least(0, restarts=restarts)
    where = chosen_device(machine, device)
    dag = op_dag(graph)
    models = _models(graph, dag)
    times = dag.times_us(costs, where)
    lanes = _lanes(models, times, machine.devices[where].streams)
    search = _Search(dag, lanes, costs, where, max_evaluations)
    if len(lanes) < 2:
        best = [[0, len(lane)] for lane in lanes]
    else:
        n_stages = max(stages, len(lanes))
        shuffle = random.Random(seed)
        starts = [_balanced(lanes, times, n_stages), _apart(lanes, n_stages)]
        for _ in range(restarts):
            starts.append(
                [
                    [
                        0,
                        *sorted(shuffle.randint(0, len(lane)) for _ in range(n_stages - 1)),
                        len(lane),
                    ]
                    for lane in lanes
                ]
            )
        found = [search.descend(start) for start in starts]
        best = min(found, key=lambda pair: pair[0])[1]
    decided = []
    for parts in _stages_of(best):
        groups = [
            [dag.ops[v] for v in lane[begin:end]]
            for lane, (begin, end) in zip(lanes, parts, strict=True)
            if end > begin
        ]
        if groups:
            decided.append(groups)
    notes = {
        "models": len(models),
        "tenants": len(lanes),
        "evaluations": search.n_evaluations,
        "truncated": int(search.is_truncated),
    }
    return staged_schedule("multi-tenant", decided, where, notes)


class _Search:
    """Coordinate descent, with the cost of each stage remembered."""

    def __init__(
        self,
        dag: OpDag,
        lanes: Sequence[Sequence[int]],
        costs: Costs,
        device: DeviceId,
        max_evaluations: int,
    ) -> None:
        self.lanes: list[list[OpId]] = [[dag.ops[v] for v in lane] for lane in lanes]
        self.costs = costs
        self.device = device
        self.max_evaluations = max_evaluations
        self.n_evaluations = 0
        self.is_truncated = False
        self.known: dict[_StageParts, float] = {}

    def descend(self, pointers: list[list[int]]) -> tuple[float, list[list[int]]]:
        """Move single pointers while that helps; return the total time and the pointers."""
        pointers = [list(vector) for vector in pointers]
        total = sum(self._ask(_stages_of(pointers)))
        is_better = True
        while is_better and not self.is_truncated:
            is_better = False
            for vector in pointers:
                for k in range(1, len(vector) - 1):
                    gain = self._move(pointers, vector, k)
                    if gain > 1e-9 * total:
                        total -= gain
                        is_better = True
                    if self.is_truncated:
                        break
        return sum(self._ask(_stages_of(pointers))), pointers

    def _move(self, pointers: list[list[int]], vector: list[int], k: int) -> float:
        """Put one pointer where the two stages that it parts are the fastest."""
        before = vector[k]
        places = _thinned(range(vector[k - 1], vector[k + 1] + 1), before)
        if self.n_evaluations + 2 * len(places) > self.max_evaluations:
            self.is_truncated = True
            return 0.0
        pairs = []
        for place in places:
            vector[k] = place
            pairs += [tuple((v[i], v[i + 1]) for v in pointers) for i in (k - 1, k)]
        asked = self._ask(pairs)
        sums = [asked[2 * i] + asked[2 * i + 1] for i in range(len(places))]
        now = sums[places.index(before)]
        index = min(range(len(places)), key=lambda i: (sums[i], places[i] != before, i))
        vector[k] = places[index]
        return now - sums[index]

    def _ask(self, stages: Sequence[_StageParts]) -> list[float]:
        new = [stage for stage in dict.fromkeys(stages) if stage not in self.known]
        groups = [
            [
                lane[begin:end]
                for lane, (begin, end) in zip(self.lanes, stage, strict=True)
                if end > begin
            ]
            for stage in new
        ]
        self.n_evaluations += len(new)
        for stage, time in zip(new, self.costs.stage_us_many(groups, self.device), strict=True):
            self.known[stage] = time
        return [self.known[stage] for stage in stages]


def _stages_of(pointers: Sequence[Sequence[int]]) -> list[_StageParts]:
    return list(zip(*(pairwise(vector) for vector in pointers), strict=True))


def _thinned(places: range, keep: int) -> list[int]:
    """Return at most `_MOST_PLACES` places, evenly spread, and those next to `keep`."""
    if len(places) <= _MOST_PLACES:
        return list(places)
    step = len(places) / _MOST_PLACES
    chosen = {places[int(i * step)] for i in range(_MOST_PLACES)}
    return sorted(chosen | {p for p in (keep - 1, keep, keep + 1) if p in places})


def _models(graph: OpGraph, dag: OpDag) -> list[list[int]]:
    """Return the positions of each model, ascending."""
    marks = [graph.operators[op].attrs.get(MODEL_ATTRIBUTE) for op in dag.ops]
    found: dict[object, list[int]] = {}
    if all(mark is not None for mark in marks):
        for v, mark in enumerate(marks):
            found.setdefault(mark, []).append(v)
        # An edge between marked models would make a stage of them wait for itself.
        if all(marks[u] == marks[v] for v, before in enumerate(dag.preds) for u in before):
            return list(found.values())
        found.clear()
    for v, head in enumerate(_components(dag)):
        found.setdefault(head, []).append(v)
    return list(found.values())


def _components(dag: OpDag) -> list[int]:
    """Return the lowest position of the weakly connected component of each position."""
    parent = list(range(len(dag)))

    def head(v: int) -> int:
        while parent[v] != v:
            parent[v] = parent[parent[v]]
            v = parent[v]
        return v

    for v, before in enumerate(dag.preds):
        for u in before:
            first, second = sorted((head(u), head(v)))
            parent[second] = first
    return [head(v) for v in range(len(dag))]


def _lanes(
    models: Sequence[Sequence[int]], times: Sequence[float], n_streams: int
) -> list[list[int]]:
    """Queue the models on the streams."""
    lanes: list[list[int]] = [[] for _ in range(min(n_streams, len(models)))]
    load = [0.0] * len(lanes)
    length = [sum(times[v] for v in model) for model in models]
    for index in sorted(range(len(models)), key=lambda i: (-length[i], i)):
        lane = min(range(len(lanes)), key=lambda k: (load[k], len(lanes[k]), k))
        lanes[lane].extend(models[index])
        load[lane] += length[index]
    return lanes


def _balanced(
    lanes: Sequence[Sequence[int]], times: Sequence[float], n_stages: int
) -> list[list[int]]:
    """Cut each lane into stages of about equal time."""
    pointers = []
    for lane in lanes:
        total = sum(times[v] for v in lane)
        vector, done, index = [0], 0.0, 0
        for k in range(1, n_stages):
            while index < len(lane) and done + times[lane[index]] / 2 <= total * k / n_stages:
                done += times[lane[index]]
                index += 1
            vector.append(index)
        pointers.append([*vector, len(lane)])
    return pointers


def _apart(lanes: Sequence[Sequence[int]], n_stages: int) -> list[list[int]]:
    """Run the lanes one after the other: the stages in which nothing overlaps."""
    return [
        [0] * (index + 1) + [len(lane)] * (n_stages - index) for index, lane in enumerate(lanes)
    ]
