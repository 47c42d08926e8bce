"""Merge convolutions where the costs say that it pays.

The merges on offer are compiled alone, side by side, and their times found out as those of all
operators are: measured or estimated. A scheduler that knows merges (`ios`, unless the one asked
for does) chooses among them by cost, the network is compiled again with the chosen ones, and the
result is an operator graph like any other: merged convolutions, slices where somebody needs
them. It stands beside the unmerged one when `hios_tvm.deciding.decide` decides, which takes it
only where it is predicted, and with `select` measured, to be faster.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

from cost_model.learned import LearnedCosts
from hios.costs.protocol import Costs
from hios.costs.table import TableCosts
from hios.errors import InvalidOption
from hios.ir.graph import Alternative, OpGraph
from hios.ir.ids import DeviceId, OpId, TensorId
from hios.ir.kernels import CompiledGraph
from hios.ir.machine import Machine
from hios.ir.operator_key import operator_key
from hios.merge import offer_merges
from hios.schedulers import get_scheduler
from hios.schedulers import schedule as run_scheduler
from hios_tvm.caching import CacheChoice
from hios_tvm.costing import KnownCosts, resolve_costs
from hios_tvm.sources import Progress, compile_model, compile_offers

__all__ = ["MergedModel", "merge_by_cost", "wants_merges", "worthwhile_merges"]

Table = Sequence[Sequence[float]]

_CHOOSER = "ios"
"""Chooses merges where the scheduler asked for knows none."""

_FOLLOWING = ("profile", "learned", "analytic")
"""Costs that can be found out for the merged network too."""

_MOST_WORK = 2.0
"""Most arithmetic of a merge (padded kernels multiply by zeros), by that of its members."""

_MOST_OFFERS = 256

_FRAME = ("pool", "transpose")
"""Kinds of the operators that only frame the merges on offer, see `compile_offers`."""


@dataclass(frozen=True, slots=True)
class MergedModel:
    """A network compiled with merges, and what its operators cost.

    Attributes
    ----------
    compiled, machine, costs
        As for the unmerged network.
    merges
        Names of the alternatives of the unmerged graph that were chosen.
    """

    compiled: CompiledGraph
    machine: Machine
    costs: Costs
    merges: tuple[str, ...]


def wants_merges(merge: bool | None, scheduler: str, model: Any, costs: KnownCosts) -> bool:
    """Return whether merges shall be offered.

    Parameters
    ----------
    merge
        What the user said; None: only to `ios`, of whose algorithm they are a part, and only
        where their times can be known.
    scheduler
        Who decides.
    model
        What was compiled; merges need the model itself, to compile it again.
    costs
        Must be ``profile``, ``learned`` or ``analytic``: a table does not know merged operators.

    Raises
    ------
    InvalidOption
        When `merge` is true and cannot be.
    """
    from hios_tvm.relay import is_relay_factory  # which itself decides

    obstacle = None
    if isinstance(model, CompiledGraph) or is_relay_factory(model):
        obstacle = "an operator graph that is compiled already cannot merge; give the model"
    elif costs.kind not in _FOLLOWING:
        obstacle = f"costs {costs.kind!r} know no merged operators; use {', '.join(_FOLLOWING)}"
    if merge is None:
        return scheduler == _CHOOSER and obstacle is None
    if merge and obstacle is not None:
        raise InvalidOption(f"merge: {obstacle}")
    return merge


def merge_by_cost(
    model: Any,
    compiled: CompiledGraph,
    known: KnownCosts,
    *,
    target: Any = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    seed: int = 0,
    scheduler: str = _CHOOSER,
    options: Mapping[str, object] | None = None,
    cache: CacheChoice = None,
    database: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> MergedModel | None:
    """Choose merges, and compile the network with them.

    Parameters
    ----------
    model, target, shapes, seed
        What `compiled` was compiled from.
    compiled, known
        The unmerged network and its costs, ``profile``, ``learned`` or ``analytic``.
    scheduler, options
        Chooses when it has an option ``merge``; else `ios` with its defaults does.
    cache, database, progress
        As in `hios_tvm.build`.

    Returns
    -------
    MergedModel or None
        None when nothing may be merged, no merge pays, or the options say ``merge=False``.

    Notes
    -----
    Merges and their members are measured side by side; a merge costs what its members cost in
    the network times that ratio, at its slowest device. In the network with merges, kernels
    known before keep their times, and the new ones are set right by the ratio of these.
    """
    knows = get_scheduler(scheduler).has_option("merge")
    if knows and (options or {}).get("merge") is False:
        return None
    offered = worthwhile_merges(compiled.graph)
    if not offered.alternatives:
        return None
    again: dict[str, Any] = {
        "machine": known.machine,
        "shapes": shapes,
        "seed": seed,
        "progress": progress,
        "cache": cache,
        "database": database,
    }
    alone = sorted({op for one in offered.alternatives for op in one.members})
    names = [[_identity(offered, op)] for op in alone]
    trial = compile_offers(model, target, merges=[*_identities(offered), *names], **again)
    paid = _resolved_alike(known, trial, cache, progress)
    times = _times_by_input(trial.graph, paid)
    n_offers = len(offered.alternatives)
    beside = dict(zip(alone, times[n_offers:], strict=True))
    priced = _priced(offered, known, times[:n_offers], beside)
    decided = run_scheduler(
        scheduler if knows else _CHOOSER,
        priced,
        known.machine,
        known.costs,
        **(dict(options or {}) if knows else {}),
    )
    if not decided.alternatives:
        return None
    chosen = [one for one in priced.alternatives if one.name in decided.alternatives]
    merges = _identities(replace(priced, alternatives=tuple(chosen)))
    merged = compile_model(model, target, merges=merges, **again)
    costs = _resolved_alike(known, merged, cache, progress)
    adjusted = _with_known_times(compiled.graph, known.costs, merged.graph, costs.costs)
    return MergedModel(merged, costs.machine, adjusted, decided.alternatives)


def _resolved_alike(
    known: KnownCosts,
    compiled: CompiledGraph,
    cache: CacheChoice,
    progress: Progress | None,
) -> KnownCosts:
    return resolve_costs(
        known.kind,
        compiled,
        known.machine,
        cost_model=known.cost_model,
        cache=cache,
        progress=progress,
    )


def worthwhile_merges(graph: OpGraph) -> OpGraph:
    """Return the graph with the merges on offer that could pay.

    Left out are those whose padded kernels more than double the arithmetic, and, where more
    than 256 remain, the larger ones (at last the later ones).
    """
    for most in (4, 3, 2):
        offered = offer_merges(graph, most)
        keep = [one for one in offered.alternatives if _work_ratio(graph, one) <= _MOST_WORK]
        if len(keep) <= _MOST_OFFERS:
            break
    return replace(graph, alternatives=tuple(keep[:_MOST_OFFERS]))


def _work_ratio(graph: OpGraph, offer: Alternative) -> float:
    """Return the arithmetic of a merge over that of its members."""
    members = [graph.operators[op] for op in offer.members]
    kernels = [[int(n) for n in str(op.attrs["kernel_size"]).split("x")] for op in members]
    taps = max(k[0] for k in kernels) * max(k[1] for k in kernels)
    work = sum(op.flops for op in members)
    padded = sum(op.flops * taps / (k[0] * k[1]) for op, k in zip(members, kernels, strict=True))
    return padded / work if work > 0.0 else 1.0


def _identities(offered: OpGraph) -> list[list[str]]:
    """Return the convolutions of each alternative as the compiler names them."""
    return [[_identity(offered, op) for op in one.members] for one in offered.alternatives]


def _identity(graph: OpGraph, op: OpId) -> str:
    return str(graph.operators[op].attrs["convolution"])


def _times_by_input(trial: OpGraph, paid: KnownCosts) -> list[list[float]]:
    """Return, for each input of the trial, the time of its operators on each device in µs."""
    owner: dict[TensorId, int] = {tensor: i for i, tensor in enumerate(trial.inputs)}
    devices = [DeviceId(index) for index in range(len(paid.machine.devices))]
    times = [[0.0] * len(devices) for _ in trial.inputs]
    for op in trial.topological_order():
        operator = trial.operators[op]
        index = next(owner[root] for t in operator.inputs if (root := trial.root(t)) in owner)
        owner.update(dict.fromkeys(operator.outputs, index))
        if operator.kind not in _FRAME:
            for device in devices:
                times[index][device] += paid.costs.operator_us(op, device)
    return times


def _priced(
    offered: OpGraph,
    known: KnownCosts,
    merged_us: Sequence[Sequence[float]],
    alone_us: Mapping[OpId, Sequence[float]],
) -> OpGraph:
    """Return `offered` with the time of each alternative.

    `merged_us` are the times of the merges and `alone_us` those of their members beside them,
    by device.
    """
    priced = []
    for one, own in zip(offered.alternatives, merged_us, strict=True):
        times = []
        for index, merged in enumerate(own):
            device = DeviceId(index)
            apart = sum(known.costs.operator_us(op, device) for op in one.members)
            beside = sum(alone_us[op][device] for op in one.members)
            times.append(merged * apart / beside if beside > 0.0 else merged)
        priced.append(replace(one, attrs={**one.attrs, "time_us": max(times)}))
    return replace(offered, alternatives=tuple(priced))


def _with_known_times(before: OpGraph, known: Costs, graph: OpGraph, costs: Costs) -> Costs:
    """Return measured `costs` of `graph` as if measured together with the `known` ones."""
    if isinstance(costs, LearnedCosts) and isinstance(known, LearnedCosts):
        table = _with_known_times(before, known.table, graph, costs.table)
        return costs.with_table(table) if isinstance(table, TableCosts) else costs
    if not isinstance(costs, TableCosts) or not isinstance(known, TableCosts):
        return costs
    row_of = {operator_key(before, op.id): op.id for op in before.operators}
    kin = {
        op.id: row_of[key]
        for op in graph.operators
        if (key := operator_key(graph, op.id)) is not None and key in row_of
    }

    def adjusted(new: Table, old: Table) -> Table:
        drift = []
        for device in range(len(known.machine.devices)):
            then = sum(old[row][device] for row in kin.values())
            now = sum(new[op][device] for op in kin)
            drift.append(then / now if now > 0.0 else 1.0)
        return [
            old[kin[op]] if op in kin else [t * d for t, d in zip(row, drift, strict=True)]
            for op, row in ((OpId(index), row) for index, row in enumerate(new))
        ]

    narrow = None
    if costs.narrow_us is not None and known.narrow_us is not None:
        narrow = adjusted(costs.narrow_us, known.narrow_us)
    return replace(costs, times_us=adjusted(costs.times_us, known.times_us), narrow_us=narrow)
