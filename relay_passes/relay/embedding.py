"""How a decision travels inside a Relay module, format 1.

In a lowered module it becomes string attributes of the calls. TVM's graph codegen copies those
into the attributes of the nodes of the graph JSON, which ``export_library`` writes into the
library; TVM's own graph executor passes over attributes that it does not know. Kernels are
compiled and named before, so none changes.

Every operator's node has ``hios_op`` (its id), ``hios_device``, ``hios_stream`` and, on a device
with stages, ``hios_stage``. The node of operator 0 also has ``hios_manifest`` (JSON: format, TVM
version, target, ids of the weights, attributes), ``hios_graph``, ``hios_schedule`` and
``hios_machine`` (JSON of those types). In a module that is not lowered, ``main`` carries the
latter four as attributes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import tvm
from tvm import relay

from hios.ir import Machine, Schedule
from relay_passes.relay.dataflow import dataflow_order
from relay_passes.relay.operators import ExtractedRelay, is_lowered

__all__ = ["EMBEDDING_FORMAT", "embed"]

EMBEDDING_FORMAT = 1
"""Version of the embedding described above."""


def embed(mod: Any, extracted: ExtractedRelay, machine: Machine, schedule: Schedule) -> Any:
    """Return ``main`` of a module with the decision in it.

    Parameters
    ----------
    mod : tvm.IRModule
        What `extracted` was read from.
    extracted, machine, schedule
        Graph, devices and decision.

    Returns
    -------
    relay.Function
        Types and virtual devices are kept.
    """
    main = mod["main"]
    target = _target(mod, extracted)
    whole = {
        "hios_manifest": json.dumps(
            {
                "format": EMBEDDING_FORMAT,
                "tvm_version": str(tvm.__version__),
                "target": target,
                "weights": sorted(extracted.constants),
                "attrs": {
                    "source": "relay",
                    # Relay does not name outputs: by number, as in TVM's graph executor.
                    "outputs": "\n".join(
                        f"output_{i}" for i in range(len(extracted.graph.outputs))
                    ),
                },
            },
            sort_keys=True,
        ),
        "hios_graph": extracted.graph.to_json().decode(),
        "hios_schedule": schedule.to_json().decode(),
        "hios_machine": machine.to_json().decode(),
    }
    if not extracted.calls or not is_lowered(extracted.calls[0]):
        for key, text in whole.items():
            main = main.with_attr(key, text)
        return main
    notes: dict[Any, dict[str, str]] = {}
    for placement in schedule.placements:
        note = {
            "hios_op": str(placement.op),
            "hios_device": str(placement.device),
            "hios_stream": str(placement.stream),
        }
        if placement.stage is not None:
            note["hios_stage"] = str(placement.stage)
        notes[extracted.calls[placement.op]] = note
    notes[extracted.calls[0]] |= whole
    return _rebuilt(main, notes)


def _rebuilt(main: Any, notes: Mapping[Any, Mapping[str, str]]) -> Any:
    """Return `main` with the notes in the metadata of its calls."""
    new: dict[Any, Any] = {}

    def of(expr: Any) -> Any:
        return new.get(expr, expr)

    for expr in dataflow_order(main.body):
        if isinstance(expr, relay.Call):
            new[expr] = _copy(
                "relay.Call",
                expr,
                op=expr.op,
                args=[of(arg) for arg in expr.args],
                attrs=_noted(expr.attrs, notes[expr]) if expr in notes else expr.attrs,
                type_args=expr.type_args,
            )
        elif isinstance(expr, relay.Tuple):
            new[expr] = _copy("relay.Tuple", expr, fields=[of(field) for field in expr.fields])
        elif isinstance(expr, relay.TupleGetItem):
            new[expr] = _copy(
                "relay.TupleGetItem", expr, tuple_value=of(expr.tuple_value), index=expr.index
            )
    return _copy(
        "relay.Function",
        main,
        params=main.params,
        body=of(main.body),
        ret_type=main.ret_type,
        type_params=main.type_params,
        attrs=main.attrs,
    )


def _copy(node: str, old: Any, **fields: Any) -> Any:
    """Make a node like `old`; the constructors of Python would lose the virtual device."""
    return tvm.ir.make_node(
        node,
        span=old.span,
        virtual_device_=old.virtual_device_,
        _checked_type_=old.checked_type,
        **fields,
    )


def _noted(attrs: Any, note: Mapping[str, str]) -> Any:
    metadata = dict(attrs.metadata)
    own = dict(metadata.get("relay_attrs", {}))
    metadata["relay_attrs"] = tvm.ir.make_node("DictAttrs", **own, **note)
    return tvm.ir.make_node("relay.attrs.CallLoweredAttrs", metadata=metadata)


def _target(mod: Any, extracted: ExtractedRelay) -> str:
    """Return the target of the kernels, as TVM's JSON; empty where it is not known yet."""
    target = tvm.target.Target.current(allow_none=True)
    for call in extracted.calls:
        if is_lowered(call) and isinstance(mod[call.args[0]], tvm.tir.PrimFunc):
            target = mod[call.args[0]].attrs["target"]
            break
    return "" if target is None else json.dumps(_plain(target.export()), sort_keys=True)


def _plain(value: Any) -> Any:
    """Return what TVM's containers hold as Python's own."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, tvm.ir.Map | dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, tvm.ir.Array | list | tuple):
        return [_plain(entry) for entry in value]
    return bool(value) if isinstance(value, bool) else int(value)
