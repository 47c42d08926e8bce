"""Schedules that were decided before, on disk.

Deciding is deterministic: the same graph, machine, costs, scheduler and options give the same
schedule, byte for byte, and a search may take longer than compiling the network again. A
schedule is looked up by all of these and by the source of the scheduler. What a budget of
seconds cut short depends on the machine's mood, and is not kept.
"""

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import hios
from hios.cache_folder import schedule_store
from hios.costs.analytic import AnalyticCosts
from hios.costs.protocol import Costs
from hios.costs.table import TableCosts
from hios.errors import HiosError
from hios.ir.graph import OpGraph
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.ir.serial import encode_json
from hios.schedulers import schedule as run_scheduler

__all__ = ["schedule_once"]

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
        _scheduler_source(),
    ):
        digest.update(hashlib.sha256(part).digest())
    return f"{digest.hexdigest()[:40]}.schedule"


@cache
def _scheduler_source() -> bytes:
    folder = Path(hios.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes())
    return digest.digest()


def _as_bytes(data: bytes | str) -> bytes:
    return data.encode() if isinstance(data, str) else data
