"""From what a user says about costs to `Costs`, and to a machine with measured links."""

from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING

from hios.costs.analytic import AnalyticCosts
from hios.costs.protocol import Costs
from hios.costs.table import TableCosts
from hios.errors import InvalidOption
from hios.ir.kernels import CompiledGraph
from hios.ir.machine import Machine
from hios.ir.serial import read_bytes
from hios_tvm.caching import CacheChoice, cache_folder
from hios_tvm.sources import Progress

if TYPE_CHECKING:
    from cost_model.model_file import CostModel

__all__ = ["KnownCosts", "device_names", "is_here", "resolve_costs"]

_KINDS = "profile, learned, analytic"


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
        ``profile``, ``learned``, ``analytic``, ``table`` or ``given``.
    cost_model
        What predicts stages, with ``learned``.
    """

    machine: Machine
    costs: Costs
    kind: str
    cost_model: "CostModel | None" = None


def resolve_costs(
    costs: str | PathLike[str] | Costs,
    compiled: CompiledGraph,
    machine: Machine,
    *,
    cost_model: "str | PathLike[str] | CostModel | None" = None,
    cache: CacheChoice = None,
    is_cached: bool = True,
    progress: Progress | None = None,
) -> KnownCosts:
    """Return the costs that a name, a file or an object stands for.

    Parameters
    ----------
    costs
        ``profile`` measures (on devices of this host), ``learned`` measures operators alone
        and predicts stages, ``analytic`` estimates, a path that ends in ``.json`` is a table
        written by ``TableCosts.to_json``; an object is taken as it is.
    compiled, machine
        What the costs are bound to.
    cost_model
        Trained model for ``learned``, or the file of one; None: the one that comes with hios-tvm
        for the devices.
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
    MissingFile, InvalidCosts, CostModelMismatch
        When the file cannot be read or does not fit.
    """
    if cost_model is not None and costs != "learned":
        raise InvalidOption(
            f"a cost model beside costs {costs!r}: only learned costs use one; use --costs learned"
        )
    if not isinstance(costs, str | PathLike):
        return KnownCosts(machine, costs, "given")
    name = fspath(costs)
    if name == "analytic":
        return KnownCosts(machine, AnalyticCosts(compiled.graph, machine), name)
    if name in ("profile", "learned"):
        # Before anything is measured: the model may not fit.
        model = _cost_model(cost_model, compiled, machine) if name == "learned" else None
        from graph_executor.measure import MeasureOptions, measure_costs

        measured = measure_costs(
            compiled,
            machine,
            MeasureOptions(
                is_cached=is_cached and cache is not False, cache_dir=cache_folder(cache)
            ),
            None if progress is None else lambda done, what: progress(f"measure {what}", done),
        )
        if model is None:
            return KnownCosts(measured.machine, measured.costs, name)
        from cost_model.learned import LearnedCosts

        predicted = LearnedCosts(
            measured.costs,
            model,
            device_names(machine),
            compiled.library.target,
            # What is replayed on a GPU is one graph.
            is_graph=all(device.kind == "cuda" for device in machine.devices),
        )
        return KnownCosts(measured.machine, predicted, name, model)
    if name.endswith(".json"):
        table = TableCosts.from_json(read_bytes(name), compiled.graph, machine, what=name)
        return KnownCosts(machine, table, "table")
    raise InvalidOption(f"unknown costs {name!r}; use {_KINDS} or a file ending in .json")


def is_here(machine: Machine) -> bool:
    """Return whether operators can be measured and run on the machine's devices on this host."""
    kinds = {device.kind for device in machine.devices}
    if kinds == {"cuda"}:
        from graph_executor.cuda.detect import are_here

        return are_here(machine)
    return kinds == {"cpu"}


def device_names(machine: Machine) -> list[str]:
    """Return what each device is, as measured groups name it: the model of the CPU or GPU."""
    from graph_executor.host import cpu_name

    # The driver's name of a GPU stands at the beginning of its source.
    return [
        cpu_name() if device.kind == "cpu" else device.source.partition(" (")[0] or device.name
        for device in machine.devices
    ]


def _cost_model(
    given: "str | PathLike[str] | CostModel | None", compiled: CompiledGraph, machine: Machine
) -> "CostModel":
    """Return the model given, or the one that comes with the package for the devices."""
    from cost_model.model_file import load_model
    from cost_model.shipped import find_shipped

    target = compiled.library.target
    if given is not None and not isinstance(given, str | PathLike):
        return given
    if given is not None:
        model = load_model(given)
        for device in machine.devices:
            model.require(device.kind, target, repr(fspath(given)))
        return model
    # A CPU device of one core needs no model, but others of the machine may.
    sizes = [len(d.cores) or d.compute_units or 1 for d in machine.devices]
    index = max(range(len(sizes)), key=sizes.__getitem__)
    device = machine.devices[index]
    return find_shipped(device.kind, device_names(machine)[index], sizes[index], target).model
