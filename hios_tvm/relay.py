"""The Relay door: `pass_context` for the stock ``relay.build`` of TVM ≤ 0.19."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from hios.costs.protocol import Costs
from hios.defaults import DEFAULT_SCHEDULER
from hios.errors import InvalidOption, StorageError
from hios.ir.graph import OpGraph
from hios.ir.kernels import CompiledGraph
from hios.ir.machine import Machine
from hios_tvm.costing import resolve_costs
from hios_tvm.machines import resolve_machine

__all__ = ["is_relay_factory", "pass_context"]

MakeCosts = Callable[[OpGraph, Machine], Costs]


def pass_context(
    opt_level: int = 3,
    devices: int | str | Sequence[str] | None = None,
    *,
    machine: Machine | str | None = None,
    streams: int | None = None,
    scheduler: str = DEFAULT_SCHEDULER,
    options: Mapping[str, object] | None = None,
    costs: str | PathLike[str] | MakeCosts = "analytic",
    required_pass: Sequence[str] | None = None,
    disabled_pass: Sequence[str] | None = None,
    instruments: Sequence[Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Any:
    """Return a ``tvm.transform.PassContext`` in which ``relay.build`` also schedules.

    ``with hios_tvm.pass_context(devices=["cpu:0", "cpu:1"]): factory = relay.build(mod, ...)``.
    ``relay.build`` is the stock function and makes the same kernels as without. The factory runs
    unchanged in TVM's graph executor and carries the schedule, also through ``export_library``;
    ``hios_tvm.GraphExecutor(factory)`` runs it on the devices.

    Parameters
    ----------
    devices, machine, streams, scheduler, options
        As in `hios_tvm.build`.
    costs
        ``analytic``, another name or file that `hios_tvm.build` knows and that needs no kernels,
        or a function of graph and machine. ``profile`` and ``learned`` need kernels: build first,
        then ``hios_tvm.build(factory, devices=[...])`` measures.
    opt_level, required_pass, disabled_pass, instruments, config
        As ``tvm.transform.PassContext`` takes them.

    Raises
    ------
    MissingDependency
        When the installed TVM has no Relay; the message names the door that it has.
    InvalidOption
        For costs that cannot be known while kernels are being compiled.
    """
    from relay_passes.relay.availability import require_relay

    require_relay()
    if costs in ("profile", "learned"):
        raise InvalidOption(
            f"a pass context with costs {costs!r}: kernels cannot be measured before they are "
            "compiled; use analytic here, then hios_tvm.build(factory, devices=[...]) to measure"
        )
    from relay_passes.relay.context import pass_context as context_with
    from relay_passes.relay.partition import HIOSPartition

    def known_costs(graph: OpGraph, place: Machine) -> Costs:
        if callable(costs):
            return costs(graph, place)
        return resolve_costs(costs, CompiledGraph(graph, _NotYet(), {}), place).costs

    partition: Any = HIOSPartition(
        resolve_machine(devices, machine, streams), scheduler, options, known_costs
    )
    return context_with(partition, opt_level, required_pass, disabled_pass, instruments, config)


def is_relay_factory(model: Any) -> bool:
    """Return whether `model` is what ``relay.build`` returned, or that exported and loaded."""
    if all(hasattr(model, name) for name in ("graph_json", "lib", "params")):
        return True
    return getattr(model, "type_key", None) == "GraphExecutorFactory"


class _NotYet:
    """Stands for the kernels of a graph while they are being compiled."""

    target = ""
    tvm_version = ""
    module = None

    def export(self, path: Path) -> None:
        """Refuse.

        Raises
        ------
        StorageError
            Always.
        """
        raise StorageError(f"cannot write kernels to {str(path)!r}: they are not compiled yet")
