"""The HIOS partition pass: decide where and when each operator of a Relay module runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tvm

from hios.costs.analytic import AnalyticCosts
from hios.costs.protocol import Costs
from hios.ir import Machine, OpGraph, Schedule
from hios.ir.presets import machine_from_devices
from hios.schedulers import schedule as run_scheduler
from relay_passes.relay.embedding import embed
from relay_passes.relay.operators import extract_relay

__all__ = ["HIOSPartition"]


@tvm.transform.module_pass(opt_level=0, name="HIOSPartition")
class HIOSPartition:
    """Module pass: schedule ``main`` and write the decision into the module.

    It takes a typed module before or after ``FuseOps`` (the decision becomes attributes of
    ``main``) or after ``LowerTE`` (it becomes attributes of the calls, which reach the graph
    JSON; `relay_passes.relay.HIOSInstrument` runs it there). No kernel is changed.

    Parameters
    ----------
    devices
        A machine, or names such as ``["cuda:0", "cuda:1"]``.
    scheduler, options
        Name of the algorithm and its options.
    costs
        Gives costs for graph and machine; by default `hios.costs.analytic.AnalyticCosts`.
    name
        Of the graph.

    Examples
    --------
    ``Sequential([InferType(), SimplifyInference(), FuseOps(2), InferType(),
    HIOSPartition(["cpu:0", "cpu:1"])])``
    """

    def __init__(
        self,
        devices: Machine | Sequence[str],
        scheduler: str = "hios-lp",
        options: Mapping[str, object] | None = None,
        costs: Callable[[OpGraph, Machine], Costs] | None = None,
        name: str = "main",
    ) -> None:
        self.machine = (
            devices if isinstance(devices, Machine) else machine_from_devices(tuple(devices))
        )
        self.scheduler = scheduler
        self.options = dict(options or {})
        self.costs = costs or AnalyticCosts
        self.name = name

    def decide(self, graph: OpGraph) -> Schedule:
        """Return the schedule of a graph."""
        known = self.costs(graph, self.machine)
        return run_scheduler(self.scheduler, graph, self.machine, known, **self.options)

    def annotate(self, mod: Any, fused: Mapping[str, Any] | None = None) -> Any:
        """Return ``main`` of a module with the decision in it.

        Parameters
        ----------
        mod : tvm.IRModule
            See the class.
        fused : mapping, optional
            See `relay_passes.relay.operators.extract_relay`.

        Raises
        ------
        UnsupportedModel
            When the module is no static dataflow graph for one target.
        """
        extracted = extract_relay(mod, self.name, fused)
        return embed(mod, extracted, self.machine, self.decide(extracted.graph))

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Extract, decide, annotate."""
        new = tvm.IRModule(dict(mod.functions), dict(mod.type_definitions), attrs=mod.attrs)
        new.update_func(new.get_global_var("main"), self.annotate(mod))
        return new
