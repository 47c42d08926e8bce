"""Decide a schedule, and keep only what is not slower than running in TVM's order."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from graph_executor.select import Candidate
from hios.costs.protocol import Costs
from hios.defaults import DEFAULT_SCHEDULER
from hios.ir.kernels import CompiledGraph
from hios.ir.machine import Device, Machine
from hios.ir.schedule import FIRST_DEVICE, Placement, Schedule
from hios.schedulers import get_scheduler
from hios.schedulers import schedule as run_scheduler
from hios.simulator import makespan
from hios_tvm.caching import CacheChoice, cache_folder
from hios_tvm.costing import is_here
from hios_tvm.kept_schedules import schedule_once, select_once
from hios_tvm.merging import MergedModel
from hios_tvm.model import Model
from hios_tvm.sources import Progress

__all__ = ["LEAST_GAIN", "decide"]

LEAST_GAIN = 0.05
"""Of the time in sequence, what `auto` has to save on a real device; see its `least_gain`."""

_RIVALS = ("heft", "hios-lp")
"""Fast schedulers that are tried beside the one asked for, where they predict better."""


def decide(
    compiled: CompiledGraph,
    machine: Machine,
    costs: Costs,
    *,
    scheduler: str = DEFAULT_SCHEDULER,
    options: Mapping[str, object] | None = None,
    select: bool = True,
    merged: MergedModel | None = None,
    progress: Progress | None = None,
    cache: CacheChoice = False,
) -> Model:
    """Decide, and with `select` measure the decision against running in sequence.

    Parameters
    ----------
    compiled, machine, costs
        What to run, where, and how long it takes.
    scheduler, options
        The algorithm. `auto` has to save `LEAST_GAIN` unless its options say otherwise.
    select
        See `hios_tvm.build`; where the devices are not on this host, simulated times decide.
    merged
        The same network with merged convolutions; taken where it is predicted, and with
        `select` measured, to be faster.
    progress
        Called with what is being done.
    cache
        Where decisions are kept, see `hios_tvm.kept_schedules`: a folder, None for the user's
        cache folder, False to decide anew.

    Returns
    -------
    Model
        With `select`, the notes of its schedule hold the measured median of every candidate
        as ``measured_NAME_us``, or its simulated time as ``simulated_NAME_us``; the note
        ``merged`` counts the merges in its graph.
    """
    if progress is not None:
        progress(f"schedule with {scheduler}", 0.0)
    graph = compiled.graph
    settings = dict(options or {})
    if get_scheduler(scheduler).has_option("least_gain"):
        settings.setdefault("least_gain", LEAST_GAIN)
    if progress is not None and get_scheduler(scheduler).has_option("progress"):
        settings.setdefault("progress", progress)
    decided = schedule_once(scheduler, graph, machine, costs, settings, cache_folder(cache))
    predicted_us = makespan(graph, machine, costs, decided)
    variant = None
    if merged is not None:
        variant = _decide_merged(merged, scheduler, settings, predicted_us)
    if not select or not graph.operators:
        if merged is not None and variant is not None:
            return Model(merged.compiled, merged.machine, variant.schedule, merged.costs)
        return Model(compiled, machine, decided, costs)
    candidates = [Candidate(scheduler, machine, decided)]
    if variant is not None:
        candidates.append(variant)
    if scheduler != "sequential":
        for rival in _RIVALS:
            if rival != scheduler:
                other = run_scheduler(rival, graph, machine, costs)
                if makespan(graph, machine, costs, other) < predicted_us:
                    candidates.append(Candidate(rival, machine, other))
        in_order = run_scheduler("sequential", graph, machine, costs)
        candidates.append(Candidate("sequential", machine, in_order))
    if not is_here(machine):
        return _select_by_simulation(compiled, machine, costs, candidates, merged)
    candidates += _one_wide_device(compiled, machine)
    best, medians = select_once(
        compiled,
        candidates,
        cache_folder(cache),
        None
        if progress is None
        else lambda done, name: progress(f"try on the devices: {name}", done),
    )
    measured = {f"measured_{name}_us": round(time, 3) for name, time in medians.items()}
    kept = replace(best.schedule, notes={**best.schedule.notes, **measured})
    if merged is not None and best is variant:
        return Model(merged.compiled, merged.machine, kept, merged.costs)
    return Model(compiled, best.machine, kept, costs if best.machine is machine else None)


def _select_by_simulation(
    compiled: CompiledGraph,
    machine: Machine,
    costs: Costs,
    candidates: Sequence[Candidate],
    merged: MergedModel | None,
) -> Model:
    """Keep the candidate that is predicted to be the fastest, the first of equals."""

    def predicted_us(candidate: Candidate) -> float:
        if merged is not None and candidate.compiled is not None:
            return makespan(merged.compiled.graph, merged.machine, merged.costs, candidate.schedule)
        return makespan(compiled.graph, machine, costs, candidate.schedule)

    times = {candidate.name: predicted_us(candidate) for candidate in candidates}
    best = min(candidates, key=lambda candidate: times[candidate.name])
    notes = {f"simulated_{name}_us": round(time, 3) for name, time in times.items()}
    kept = replace(best.schedule, notes={**best.schedule.notes, **notes})
    if merged is not None and best.compiled is not None:
        return Model(merged.compiled, merged.machine, kept, merged.costs)
    return Model(compiled, machine, kept, costs)


def _decide_merged(
    merged: MergedModel, scheduler: str, options: Mapping[str, object], unmerged_us: float
) -> Candidate | None:
    """Return the schedule of the merged network, unless it is predicted to be no faster."""
    graph, machine, costs = merged.compiled.graph, merged.machine, merged.costs
    decided = run_scheduler(scheduler, graph, machine, costs, **options)
    if makespan(graph, machine, costs, decided) >= unmerged_us:
        return None
    decided = replace(decided, notes={**decided.notes, "merged": len(merged.merges)})
    return Candidate(f"{scheduler}-merged", machine, decided, merged.compiled)


def _one_wide_device(compiled: CompiledGraph, machine: Machine) -> list[Candidate]:
    """Return the sequential schedule on one device that owns all the cores, if that differs."""
    cores = tuple(sorted({core for device in machine.devices for core in device.cores}))
    if len(machine.devices) < 2 or len(cores) < 2:
        return []
    device = Device(
        machine.devices[0].name,
        kind="cpu",
        compute_units=len(cores),
        cores=cores,
        source="all the cores of the devices given",
    )
    whole = Machine(f"{machine.name}, one device", (device,))
    order = compiled.graph.topological_order()
    schedule = Schedule("sequential", tuple(Placement(op, FIRST_DEVICE) for op in order))
    return [Candidate("one-device", whole, schedule)]
