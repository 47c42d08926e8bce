"""Decisions that were made before, on disk: schedules, and which candidate ran fastest.

Deciding is deterministic: the same graph, machine, costs, scheduler and options give the same
schedule, byte for byte, and a search may take longer than compiling the network again. A
schedule is looked up by all of these and by the source of the scheduler. What a budget of
seconds cut short depends on the machine's mood, and is not kept.

Running the candidates takes longer than all the rest. Its outcome is a measurement, kept like the
times of operators: for the same kernels, schedules, cores and executor on this kind of CPU.
"""

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import msgspec

import graph_executor
import hios
from graph_executor.host import cpu_name
from graph_executor.select import Candidate, select_fastest
from hios.cache_folder import schedule_store
from hios.costs.analytic import AnalyticCosts
from hios.costs.protocol import Costs
from hios.costs.table import TableCosts
from hios.errors import HiosError
from hios.ir.graph import OpGraph
from hios.ir.kernels import CompiledGraph
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.ir.serial import encode_json
from hios.schedulers import schedule as run_scheduler

__all__ = ["schedule_once", "select_once"]

_FLEETING = ("budget", "progress")
"""Options that do not belong to a decision: a limit of time, and who is told."""


def schedule_once(
    scheduler: str,
    graph: OpGraph,
    machine: Machine,
    costs: Costs,
    options: Mapping[str, object],
    folder: Path | None,
) -> Schedule:
    """Decide with a scheduler, unless the same was decided before.

    Parameters
    ----------
    scheduler, graph, machine, costs, options
        As for `hios.schedulers.schedule`.
    folder
        The cache; None to decide now and keep nothing.

    Raises
    ------
    HiosError
        As `hios.schedulers.schedule`.
    """
    key = None if folder is None else _key(scheduler, graph, machine, costs, options)
    if folder is None or key is None:
        return run_scheduler(scheduler, graph, machine, costs, **options)
    store = schedule_store(folder)
    known = store.get(key)
    if known is not None:
        try:
            return Schedule.from_json(bytes(known), what="cached schedule")
        except HiosError:  # of an older form: decide anew
            pass
    decided = run_scheduler(scheduler, graph, machine, costs, **options)
    store.put(key, decided.to_json())
    store.trim()
    return decided


@dataclass(frozen=True, slots=True)
class _Selection:
    """Medians of all candidates by name, the fastest first."""

    median_us: list[tuple[str, float]]


def select_once(
    compiled: CompiledGraph,
    candidates: Sequence[Candidate],
    folder: Path | None,
    progress: Callable[[float, str], None] | None,
) -> tuple[Candidate, dict[str, float]]:
    """Measure candidates, unless the same were measured before on this kind of CPU.

    Parameters
    ----------
    compiled, candidates, progress
        As for `graph_executor.select.select_fastest`.
    folder
        The cache; None to measure now and keep nothing.

    Returns
    -------
    tuple
        The fastest candidate, and the median of each by name, in µs.

    Raises
    ------
    HiosError
        As `select_fastest`.
    """
    store = None if folder is None else schedule_store(folder)
    key = "" if store is None else _selection_key(compiled, candidates)
    known = None if store is None else store.get(key)
    by_name = {candidate.name: candidate for candidate in candidates}
    if known is not None:
        with contextlib.suppress(msgspec.DecodeError):  # of an older form: measure anew
            found = msgspec.json.decode(known, type=_Selection).median_us
            if found and found[0][0] in by_name:
                return by_name[found[0][0]], dict(found)
    selection = select_fastest(compiled, candidates, progress=progress)
    medians = {name: samples.median_us for name, samples in selection.samples.items()}
    if store is not None:
        first = selection.best.name
        rest = [(name, time) for name, time in medians.items() if name != first]
        store.put(key, encode_json(_Selection([(first, medians[first]), *rest])))
        store.trim()
    return selection.best, medians


def _selection_key(compiled: CompiledGraph, candidates: Sequence[Candidate]) -> str:
    digest = hashlib.sha256(f"{cpu_name()} {_source(graph_executor)}".encode())
    for candidate in candidates:
        kernels = candidate.compiled or compiled
        for part in (
            candidate.name,
            kernels.graph.to_json(),
            kernels.library.target,
            kernels.library.tvm_version,
            candidate.machine.to_json(),
            candidate.schedule.to_json(),
        ):
            digest.update(hashlib.sha256(_as_bytes(part)).digest())
    return f"{digest.hexdigest()[:40]}.selection"


def _key(
    scheduler: str,
    graph: OpGraph,
    machine: Machine,
    costs: Costs,
    options: Mapping[str, object],
) -> str | None:
    """Return the key of a decision, or None where it cannot be known again."""
    if options.get("budget") is not None:
        return None
    if isinstance(costs, TableCosts):
        times = costs.to_json()
    elif type(costs) is AnalyticCosts:
        times = f"analytic {costs.peak_fraction}".encode()
    else:
        return None
    plain = {name: value for name, value in options.items() if name not in _FLEETING}
    if not all(isinstance(value, str | int | float | None) for value in plain.values()):
        return None
    digest = hashlib.sha256()
    for part in (
        scheduler.encode(),
        _as_bytes(graph.to_json()),
        _as_bytes(machine.to_json()),
        _as_bytes(times),
        encode_json(plain),
        _source(hios).encode(),
    ):
        digest.update(hashlib.sha256(part).digest())
    return f"{digest.hexdigest()[:40]}.schedule"


@cache
def _source(package: ModuleType) -> str:
    folder = Path(str(package.__file__)).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _as_bytes(data: bytes | str) -> bytes:
    return data.encode() if isinstance(data, str) else data
