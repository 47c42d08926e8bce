"""HIOS inside TVM's own compilation: schedule the graph, keep the executable ordinary.

`relax_pipeline` is a complete pipeline for ``tvm.compile(mod, target, relax_pipeline=...)``. It
lowers the network with our phases, reads the operator graph, asks `decide` for a schedule, adds
both to the module, and hands over to TVM's default build pipeline. The executable runs unchanged
in `tvm.relax.VirtualMachine` (one operator after another) and carries all that the multi-device
executor needs; this survives ``export_library`` and ``load_module``.

Embedding format, version 1
---------------------------
Besides ``main`` the executable has these VM functions, all without parameters. A reader creates
a virtual machine on the CPU (``vm = relax.VirtualMachine(executable, tvm.cpu())``, which takes a
`VMExecutable` as well as a loaded library) and calls ``vm[NAME]()``:

``hios_manifest``
    JSON object: ``format`` (1), ``tvm_version``, ``target`` (as JSON text), ``weights`` (tensor
    ids of the operator graph, ascending), ``attrs`` (strings).
``hios_graph``
    The operator graph, ``hios.ir.OpGraph.to_json``.
``hios_schedule``
    The schedule, ``hios.ir.Schedule.to_json``.
``hios_machine``
    The machine that was scheduled for, ``hios.ir.Machine.to_json``, or ``""``.
``hios_weights``
    A tuple of tensors on the CPU, one for each id in ``manifest["weights"]``, in that order.
    They are the constants of ``main``, not copies of them in the file.

The kernels are ordinary functions of the module: for the runtime module ``m`` of the executable
(``executable.mod``, or what ``load_module`` gave), ``m.get_function(name, query_imports=True)``
finds the ``Operator.kernel`` of every operator. They take inputs, then outputs (scratch outputs
last), and accept byte offsets that are multiples of 16 elements.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tvm
from tvm import ir, relax

from hios.errors import ArtifactMismatch, InvalidOption
from hios.ir import Machine, OpGraph, Schedule
from relay_passes.extract import ExtractedGraph, extract_graph
from relay_passes.pipeline import lowering_pipeline

__all__ = [
    "EMBEDDING_FORMAT",
    "EmbedSchedule",
    "read_embedded",
    "register_pipeline",
    "relax_pipeline",
]

EMBEDDING_FORMAT = 1
"""Version of the embedding described above."""

Decide = Callable[[OpGraph], Schedule]


def relax_pipeline(
    decide: Decide,
    machine: Machine | None = None,
    name: str = "main",
    on_graph: Callable[[OpGraph], None] | None = None,
) -> Any:
    """Return the pass pipeline that compiles, schedules and embeds.

    Parameters
    ----------
    decide : callable
        Maps the operator graph to a schedule.
    machine : Machine, optional
        What the schedule is for; embedded as well.
    name : str
        Name of the operator graph.
    on_graph : callable, optional
        Told the operator graph once it is known.

    Returns
    -------
    tvm.transform.Pass
        To be run inside a target, as `tvm.compile` does.
    """

    def hios_pipeline(mod: Any, _ctx: Any) -> Any:
        target = tvm.target.Target.current(allow_none=True)
        if target is None:
            raise InvalidOption("the hios pipeline needs a target: tvm.compile(mod, target=...)")
        mod = lowering_pipeline(target)(mod)
        embed: Any = EmbedSchedule(decide, machine, name, on_graph)
        mod = embed(mod)
        return relax.get_pipeline("default_build")(mod)

    return tvm.transform.module_pass(hios_pipeline, opt_level=0, name="HiosPipeline")


def register_pipeline(make: Callable[..., Any], name: str = "hios") -> None:
    """Register a maker of pipelines under a name of ``relax.get_pipeline``, once.

    Parameters
    ----------
    make : callable
        Takes keyword options and returns a pipeline.
    name : str
        The name.
    """
    from tvm.relax import pipeline

    pipeline.PIPELINE_MAP.pop(name, None)
    relax.register_pipeline(name)(make)


@tvm.transform.module_pass(opt_level=0, name="HiosEmbedSchedule")
class EmbedSchedule:
    """Module pass: schedule a lowered ``main`` and add graph, schedule and weights to it.

    Parameters
    ----------
    decide : callable
        Maps the operator graph to a schedule.
    machine : Machine, optional
        What the schedule is for.
    name : str
        Name of the operator graph.
    on_graph : callable, optional
        Told the operator graph once it is known.
    """

    def __init__(
        self,
        decide: Decide,
        machine: Machine | None = None,
        name: str = "main",
        on_graph: Callable[[OpGraph], None] | None = None,
    ) -> None:
        self.decide = decide
        self.machine = machine
        self.name = name
        self.on_graph = on_graph

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Extract, decide, embed."""
        extracted = extract_graph(mod, self.name)
        if self.on_graph is not None:
            self.on_graph(extracted.graph)
        schedule = self.decide(extracted.graph)
        target = tvm.target.Target.current(allow_none=True)
        manifest = {
            "format": EMBEDDING_FORMAT,
            "tvm_version": str(tvm.__version__),
            "target": str(target) if target is not None else "",
            "weights": sorted(extracted.params),
            "attrs": {"source": "relax"},
        }
        machine = "" if self.machine is None else _text(self.machine.to_json())
        new = tvm.IRModule(dict(mod.functions_items()), attrs=mod.attrs)
        new["hios_manifest"] = _returns(ir.StringImm(json.dumps(manifest, sort_keys=True)))
        new["hios_graph"] = _returns(ir.StringImm(_text(extracted.graph.to_json())))
        new["hios_schedule"] = _returns(ir.StringImm(_text(schedule.to_json())))
        new["hios_machine"] = _returns(ir.StringImm(machine))
        new["hios_weights"] = _returns(_weights(extracted))
        return new


def read_embedded(executable: Any) -> tuple[str, str, Mapping[int, np.ndarray[Any, Any]], Any]:
    """Read graph, schedule, weights and kernels back from a compiled executable.

    Parameters
    ----------
    executable : tvm.relax.VMExecutable or tvm.runtime.Module
        Result of `tvm.compile` with `relax_pipeline`, or what `load_module` gave.

    Returns
    -------
    tuple
        Graph as JSON, schedule as JSON, weights by tensor id, and the runtime module in which
        ``get_function(kernel, query_imports=True)`` finds the kernels.

    Raises
    ------
    ArtifactMismatch
        When it carries no schedule, or one of another format.
    """
    vm = relax.VirtualMachine(executable, tvm.cpu())
    try:
        manifest = json.loads(str(vm["hios_manifest"]()))
    except (AttributeError, ValueError, KeyError, RuntimeError) as error:
        raise ArtifactMismatch(
            "the executable carries no schedule; compile it with "
            "relax_pipeline=hios_tvm.pipeline(devices=[...])"
        ) from error
    if manifest.get("format") != EMBEDDING_FORMAT:
        raise ArtifactMismatch(
            f"the executable has embedding format {manifest.get('format')}, "
            f"this version reads {EMBEDDING_FORMAT}; compile it again"
        )
    tensors = vm["hios_weights"]()
    weights = {int(index): tensors[i].numpy() for i, index in enumerate(manifest["weights"])}
    module = executable.mod if hasattr(executable, "mod") else executable
    return str(vm["hios_graph"]()), str(vm["hios_schedule"]()), weights, module


def _weights(extracted: ExtractedGraph) -> Any:
    return relax.Tuple([extracted.constants[i] for i in sorted(extracted.params)])


def _returns(expr: Any) -> Any:
    builder = relax.BlockBuilder()
    with builder.function("constant", []):
        builder.emit_func_output(expr)
    return builder.get()["constant"].without_attr("global_symbol")


def _text(data: bytes | str) -> str:
    return data.decode("utf-8") if isinstance(data, bytes) else data
