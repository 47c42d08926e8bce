"""From a Relay ``main`` to the operator graph.

Three forms of a call are operators: a primitive function as ``FuseOps`` makes it, a lowered call
(``call_lowered``) as ``LowerTE`` makes it, and a bare operator in a module that is not fused yet.
A call that only reshapes is a view. Tuples and their fields dissolve, constants become weights.
Operators are numbered in post-order, arguments first: the order in which TVM's graph executor
runs them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import tvm
from tvm import relay

from hios.errors import UnsupportedModel
from hios.ir import Operator, OpGraph, OpId, Tensor, TensorId
from relay_passes.relay.dataflow import dataflow_order
from relay_passes.relay.launch import launch_of, workspace_of
from relay_passes.relay.work import Work, work_of_call, work_of_function

__all__ = ["ExtractedRelay", "extract_relay", "is_lowered"]

_RESHAPE_ONLY = "relay.reshape_only"
_RESHAPES = frozenset(
    {"reshape", "contrib_reverse_reshape", "expand_dims", "squeeze", "nn.batch_flatten"}
)


@dataclass(frozen=True, slots=True)
class ExtractedRelay:
    """What `extract_relay` found.

    Attributes
    ----------
    graph
        The operator graph.
    calls
        The Relay call of each operator, by operator id.
    constants
        The Relay constants that hold the weights.
    """

    graph: OpGraph
    calls: tuple[Any, ...]
    constants: Mapping[TensorId, Any]


def is_lowered(call: Any) -> bool:
    """Return whether a Relay call names a compiled kernel."""
    return isinstance(call.op, tvm.ir.Op) and str(call.op.name) == "call_lowered"


def extract_relay(mod: Any, name: str, fused: Mapping[str, Any] | None = None) -> ExtractedRelay:
    """Read the operator graph out of a typed Relay module.

    Parameters
    ----------
    mod : tvm.IRModule
        Its ``main`` is pure dataflow, fused, lowered or neither.
    name : str
        Name of the graph.
    fused : mapping, optional
        For a lowered module: the primitive functions that were lowered, by their ``hash``. They
        tell the kinds and the work of operators.

    Raises
    ------
    UnsupportedModel
        When ``main`` holds control flow, a dynamic shape, or is split over several targets.
    """
    return _Extractor(mod, fused or {}).run(name)


class _Extractor:
    def __init__(self, mod: Any, fused: Mapping[str, Any]) -> None:
        self.mod = mod
        self.fused = fused
        self.tensors: list[Tensor] = []
        self.operators: list[Operator] = []
        self.calls: list[Any] = []
        self.constants: dict[TensorId, Any] = {}
        self.values: dict[Any, Any] = {}  # expression -> tensor id, or nested tuple of them
        self._names: dict[str, int] = {}
        self._work: dict[Any, Work] = {}
        self._launches: dict[str, tuple[dict[str, int], int]] = {}

    def run(self, name: str) -> ExtractedRelay:
        main = self.mod["main"]
        inputs = []
        for param in main.params:
            inputs.append(self._tensor(str(param.name_hint), param.checked_type))
            self.values[param] = inputs[-1]
        for expr in dataflow_order(main.body):
            if expr not in self.values:
                self._visit(expr)
        outputs = _flatten(self._value(main.body))
        graph = OpGraph(
            name, tuple(self.operators), tuple(self.tensors), tuple(inputs), tuple(outputs)
        )
        graph.validate()
        return ExtractedRelay(graph, tuple(self.calls), self.constants)

    # -- values -------------------------------------------------------------------------------

    def _visit(self, expr: Any) -> None:
        if isinstance(expr, relay.Call):
            self.values[expr] = self._call(expr)
        elif isinstance(expr, relay.Tuple):
            self.values[expr] = tuple(self._value(field) for field in expr.fields)
        elif isinstance(expr, relay.TupleGetItem):
            self.values[expr] = self._value(expr.tuple_value)[expr.index]
        elif isinstance(expr, relay.Constant):
            weight = self._tensor(f"weight.{len(self.constants)}", expr.checked_type)
            self.values[expr] = weight
            self.constants[weight] = expr
        elif not isinstance(expr, tvm.ir.Op | tvm.ir.GlobalVar | relay.Function):
            raise UnsupportedModel(
                f"Relay expression {type(expr).__name__} is no dataflow; only graphs without "
                "control flow can be scheduled"
            )

    def _value(self, expr: Any) -> Any:
        if expr not in self.values:
            self._visit(expr)
        return self.values[expr]

    def _tensor(self, name: str, kind: Any, **fields: Any) -> TensorId:
        if not isinstance(kind, relay.TensorType):
            raise UnsupportedModel(
                f"value {name!r} is a {type(kind).__name__}, need a tensor; run InferType first "
                "and pass tuples field by field"
            )
        extents = list(kind.shape)
        if not all(isinstance(extent, tvm.tir.IntImm) for extent in extents):
            raise UnsupportedModel(
                f"tensor {name!r} has no static shape; give the shapes of all inputs"
            )
        shape = tuple(int(extent) for extent in extents)
        dtype = str(kind.dtype)
        size = math.prod(shape) * -(-int(tvm.DataType(dtype).bits) // 8)
        tensor = TensorId(len(self.tensors))
        self.tensors.append(Tensor(tensor, name, shape, dtype, size, **fields))
        return tensor

    # -- calls --------------------------------------------------------------------------------

    def _call(self, call: Any) -> Any:
        if isinstance(call.op, tvm.ir.Op):
            called = str(call.op.name)
            if called == "call_lowered":
                return self._lowered(call)
            if called == "on_device":
                return self._value(call.args[0])
            if called == "device_copy":
                raise UnsupportedModel(
                    "this module is split over several targets (device_copy); build it for one "
                    "target, its devices are given to the HIOS pass"
                )
            if called in _RESHAPES:
                return self._view(call, call.args[0], called)
            work = work_of_call(call)
            return self._operator(call, called, "", work, call.args, "", {}, 0)
        if isinstance(call.op, relay.Function):
            attrs = call.op.attrs or {}
            label = _name_of(call.op)
            if _RESHAPE_ONLY in attrs:
                return self._view(call, call.args[0], label)
            key = str(attrs["hash"]) if "hash" in attrs else ""
            return self._operator(call, label, "", self._known(call.op), call.args, key, {}, 0)
        raise UnsupportedModel(
            f"call of a {type(call.op).__name__} in Relay main; inline functions first "
            "(relay.transform.Inline)"
        )

    def _lowered(self, call: Any) -> Any:
        kernel = str(call.args[0].name_hint)
        metadata = call.attrs.metadata
        own = dict(metadata.get("relay_attrs", {}))
        arguments = call.args[1]
        if _RESHAPE_ONLY in metadata or _RESHAPE_ONLY in own:
            return self._view(call, arguments.fields[0], kernel)
        key = str(own["hash"]) if "hash" in own else ""
        source = self.fused.get(key)
        work = self._known(source) if source is not None else Work("other", 0.0)
        if kernel not in self._launches:
            func = self.mod[call.args[0]]
            is_kernel = isinstance(func, tvm.tir.PrimFunc)
            self._launches[kernel] = (
                (launch_of(func.body), workspace_of(func.body)) if is_kernel else ({}, 0)
            )
        launch, scratch = self._launches[kernel]
        label = kernel.removeprefix("tvmgen_default_")
        return self._operator(call, label, kernel, work, arguments.fields, key, launch, scratch)

    def _known(self, function: Any) -> Work:
        if function not in self._work:
            self._work[function] = work_of_function(function)
        return self._work[function]

    def _view(self, call: Any, source: Any, name: str) -> TensorId:
        base = self._value(source)
        tensor = self._tensor(self._unique(name), call.checked_type)
        view = self.tensors.pop()
        if view.shape == self.tensors[base].shape:
            return TensorId(base)
        self.tensors.append(replace(view, alias_of=base))
        return tensor

    def _operator(
        self,
        call: Any,
        name: str,
        kernel: str,
        work: Work,
        arguments: Any,
        key: str,
        launch: Mapping[str, int],
        scratch: int,
    ) -> Any:
        inputs = tuple(leaf for arg in arguments for leaf in _flatten(self._value(arg)))
        op = OpId(len(self.operators))
        label = self._unique(name)
        kind = call.checked_type
        is_multiple = isinstance(kind, relay.TupleType)
        types = list(kind.fields) if is_multiple else [kind]
        outputs = tuple(
            self._tensor(f"{label}.{i}" if is_multiple else label, own, producer=op)
            for i, own in enumerate(types)
        )
        for used in dict.fromkeys(inputs):
            old = self.tensors[used]
            self.tensors[used] = replace(old, consumers=(*old.consumers, op))
        attrs: dict[str, str | int | float] = {"workspace_bytes": scratch} if scratch else {}
        if key:
            attrs["key"] = key
        self.operators.append(
            Operator(
                id=op,
                name=label,
                kind=work.kind,
                kernel=kernel,
                inputs=inputs,
                outputs=outputs,
                flops=work.flops,
                bytes_read=sum(self.tensors[t].bytes for t in dict.fromkeys(inputs)),
                bytes_written=sum(self.tensors[t].bytes for t in outputs),
                launch=dict(launch),
                attrs=attrs,
            )
        )
        self.calls.append(call)
        return outputs if is_multiple else outputs[0]

    def _unique(self, base: str) -> str:
        count = self._names.get(base, 0)
        self._names[base] = count + 1
        return base if count == 0 else f"{base}#{count}"


def _name_of(function: Any) -> str:
    """Return ``fused_a_b`` after the operators inside, as TVM names its kernels."""
    names = [
        str(expr.op.name).replace(".", "_")
        for expr in dataflow_order(function.body)
        if isinstance(expr, relay.Call) and isinstance(expr.op, tvm.ir.Op)
    ]
    return "_".join(["fused", *names])


def _flatten(value: Any) -> list[TensorId]:
    if isinstance(value, tuple):
        return [leaf for part in value for leaf in _flatten(part)]
    return [value]
