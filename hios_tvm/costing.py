"""From what a user says about costs to `Costs`, and to a machine with measured links."""

from dataclasses import dataclass
from os import PathLike, fspath

from hios.costs.analytic import AnalyticCosts
from hios.costs.protocol import Costs
from hios.costs.table import TableCosts
from hios.errors import InvalidOption
from hios.ir.kernels import CompiledGraph
from hios.ir.machine import Machine
from hios.ir.serial import read_bytes
from hios_tvm.caching import CacheChoice, cache_folder
from hios_tvm.sources import Progress

__all__ = ["KnownCosts", "is_here", "resolve_costs"]


@dataclass(frozen=True, slots=True)
class KnownCosts:
    """Costs, and the machine whose links they used.

    Attributes
    ----------
    machine
        As given, with measured links where they were measured.
    costs
        Bound to the graph and this machine.
    kind
        ``profile``, ``analytic``, ``table`` or ``given``.
    """

    machine: Machine
    costs: Costs
    kind: str


def resolve_costs(
    costs: str | PathLike[str] | Costs,
    compiled: CompiledGraph,
    machine: Machine,
    *,
    cache: CacheChoice = None,
    is_cached: bool = True,
    progress: Progress | None = None,
) -> KnownCosts:
    """Return the costs that a name, a file or an object stands for.

    Parameters
    ----------
    costs
        ``profile`` measures (on devices of this host), ``analytic`` estimates, a path that
        ends in ``.json`` is a table written by ``TableCosts.to_json``; an object is taken as
        it is.
    compiled, machine
        What the costs are bound to.
    cache
        Folder of measured times; None: the user's cache folder; False: none.
    is_cached
        Use and fill that folder; without, everything is measured now, as for False.
    progress
        Called while measuring.

    Raises
    ------
    InvalidOption
        When the name is unknown.
    MissingFile, InvalidCosts
        When the file cannot be read or does not fit.
    """
    if not isinstance(costs, str | PathLike):
        return KnownCosts(machine, costs, "given")
    name = fspath(costs)
    if name == "analytic":
        return KnownCosts(machine, AnalyticCosts(compiled.graph, machine), name)
    if name == "profile":
        from graph_executor.measure import MeasureOptions, measure_costs

        measured = measure_costs(
            compiled,
            machine,
            MeasureOptions(
                is_cached=is_cached and cache is not False, cache_dir=cache_folder(cache)
            ),
            None if progress is None else lambda done, what: progress(f"measure {what}", done),
        )
        return KnownCosts(measured.machine, measured.costs, name)
    if name.endswith(".json"):
        table = TableCosts.from_json(read_bytes(name), compiled.graph, machine, what=name)
        return KnownCosts(machine, table, "table")
    raise InvalidOption(f"unknown costs {name!r}; use profile, analytic or a file ending in .json")


def is_here(machine: Machine) -> bool:
    """Return whether operators can be measured and run on the machine's devices on this host."""
    kinds = {device.kind for device in machine.devices}
    if kinds == {"cuda"}:
        from graph_executor.cuda.detect import are_here

        return are_here(machine)
    return kinds == {"cpu"}
