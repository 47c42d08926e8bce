"""HIOS inside the stock ``relay.build``: an instrument that watches for the lowered graph.

``relay.build`` optimises and fuses, labels every fused function with its structural hash, lowers
each to a kernel (the pass ``LowerTE``), and then writes the graph JSON. Right after ``LowerTE``
kernels exist and have their names: there the partition pass runs, and what it notes on the
calls reaches the graph JSON. Constant folding also compiles, but in pass contexts of its own.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relay

from hios.errors import InvalidOption
from relay_passes.relay.dataflow import dataflow_order

__all__ = ["HIOSInstrument"]

_LOWERING = "LowerTE"


@tvm.instrument.pass_instrument
class HIOSInstrument:
    """Pass instrument: run a partition pass on what ``relay.build`` has lowered.

    Parameters
    ----------
    partition : HIOSPartition
        The pass.
    """

    def __init__(self, partition: Any) -> None:
        self.partition = partition
        self._fused: dict[str, Any] = {}

    def run_before_pass(self, mod: Any, info: Any) -> None:
        """Refuse what the executor cannot run, and keep the fused functions by hash."""
        if str(info.name) == _LOWERING:
            _check(mod)
            self._fused = _fused_functions(mod["main"])

    def run_after_pass(self, mod: Any, info: Any) -> None:
        """Decide, and write the decision into the module."""
        if str(info.name) == _LOWERING:
            main = self.partition.annotate(mod, self._fused)
            # The compiler goes on with this very module, so it is changed in place.
            mod.update_func(mod.get_global_var("main"), main)
            self._fused = {}


def _check(mod: Any) -> None:
    attrs = mod.attrs or {}
    if "executor" not in attrs:
        raise InvalidOption(
            "the HIOS pass is active in a compilation without an executor (relay.vm.compile?); "
            "use relay.build(mod, target=..., executor=Executor('graph'))"
        )
    executor = str(attrs["executor"].name)
    if executor != "graph":
        raise InvalidOption(
            f"the HIOS pass is active in relay.build with executor {executor!r}; only 'graph' "
            "has a graph to schedule: leave executor= out, or pass Executor('graph')"
        )
    runtime = str(attrs["runtime"].name) if "runtime" in attrs else "cpp"
    if runtime != "cpp":
        raise InvalidOption(
            f"the HIOS pass is active in relay.build with runtime {runtime!r}; only 'cpp' can "
            "run several devices: leave runtime= out, or pass Runtime('cpp')"
        )


def _fused_functions(main: Any) -> dict[str, Any]:
    found = {}
    for expr in dataflow_order(main.body):
        if isinstance(expr, relay.Call) and isinstance(expr.op, relay.Function):
            attrs = expr.op.attrs or {}
            if "hash" in attrs:
                found[str(attrs["hash"])] = expr.op
    return found
