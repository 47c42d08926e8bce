"""From a lowered Relax ``main`` to the operator graph.

Every ``call_tir`` becomes an operator, every reshape a view, every constant a weight. Tuples and
their fields dissolve. Kernels of equal structure become one function of the library, named after
what is fused in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import ir, relax, tirx

from hios.errors import UnsupportedModel
from hios.ir import Operator, OpGraph, OpId, Tensor, TensorId
from relay_passes.convolutions import convolution_identity, recorded_convolutions
from relay_passes.features import FLOPS, KIND, RULE, launch_of
from relay_passes.hoist_workspace import WORKSPACES
from relay_passes.straight_line import constant_of, dtype_of, op_name, static_shape

__all__ = ["ExtractedGraph", "extract_graph"]


@dataclass(frozen=True, slots=True)
class ExtractedGraph:
    """What `extract_graph` found.

    Attributes
    ----------
    graph
        The operator graph.
    kernels
        The distinct kernels by the name that operators use.
    params
        Data of the weights.
    constants
        The Relax constants that hold them.
    """

    graph: OpGraph
    kernels: Mapping[str, tirx.PrimFunc]
    params: Mapping[TensorId, np.ndarray[Any, Any]]
    constants: Mapping[TensorId, Any]


def extract_graph(
    mod: Any,
    name: str,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> ExtractedGraph:
    """Read the operator graph out of a lowered module.

    Parameters
    ----------
    mod : tvm.IRModule
        Result of `relay_passes.pipeline.lowering_pipeline`.
    name : str
        Name of the graph.
    input_names, output_names : sequence of str, optional
        As the model calls them; by default the names of the Relax variables.

    Raises
    ------
    UnsupportedModel
        When ``main`` holds something that is no kernel call, naming the operator.
    """
    return _Extractor(mod).run(name, input_names, output_names)


class _Extractor:
    def __init__(self, mod: Any) -> None:
        self.mod = mod
        self.convolutions = recorded_convolutions(mod["main"])
        self.tensors: list[Tensor] = []
        self.operators: list[Operator] = []
        self.params: dict[TensorId, np.ndarray[Any, Any]] = {}
        self.values: dict[Any, Any] = {}  # variable -> tensor id, or nested tuple of them
        self.constants: dict[Any, TensorId] = {}
        self.kernels: dict[str, tirx.PrimFunc] = {}
        self._kernel_of: dict[str, tuple[str, str]] = {}
        self._by_hash: dict[int, list[tuple[str, tirx.PrimFunc]]] = {}
        self._names: dict[str, int] = {}

    def run(
        self, name: str, input_names: Sequence[str] | None, output_names: Sequence[str] | None
    ) -> ExtractedGraph:
        func = self.mod["main"]
        inputs = []
        for index, param in enumerate(func.params):
            label = str(param.name) if input_names is None else input_names[index]
            inputs.append(self._tensor(label, param))
            self.values[param] = inputs[-1]
        for block in func.body.blocks:
            for binding in block.bindings:
                self.values[binding.var] = self._value(binding.value, str(binding.var.name))
        outputs = _flatten(self._value(func.body.body, "output"))
        if output_names is not None and len(output_names) == len(outputs):
            self._name_outputs(outputs, output_names)
        graph = OpGraph(
            name, tuple(self.operators), tuple(self.tensors), tuple(inputs), tuple(outputs)
        )
        graph.validate()
        constants = {tensor: expr for expr, tensor in self.constants.items()}
        return ExtractedGraph(graph, self.kernels, self.params, constants)

    # -- values -------------------------------------------------------------------------------

    def _tensor(self, name: str, expr: Any, **fields: Any) -> TensorId:
        shape = static_shape(expr)
        if shape is None:
            raise UnsupportedModel(
                f"tensor {name!r} has no static shape; give the shapes of all inputs"
            )
        dtype = dtype_of(expr)
        size = math.prod(shape) * -(-int(tvm.DataType(dtype).bits) // 8)
        tensor = TensorId(len(self.tensors))
        self.tensors.append(Tensor(tensor, name, shape, dtype, size, **fields))
        return tensor

    def _value(self, expr: Any, name: str) -> Any:
        if isinstance(expr, relax.Var):
            if expr not in self.values:
                raise UnsupportedModel(
                    f"the shape at {name!r} depends on data; a compiled model has static shapes"
                )
            return self.values[expr]
        if isinstance(expr, relax.Tuple):
            return tuple(self._value(f, f"{name}.{i}") for i, f in enumerate(expr.fields))
        if isinstance(expr, relax.TupleGetItem):
            return self._value(expr.tuple_value, name)[expr.index]
        array = constant_of(expr)
        if array is not None:
            return self._constant(expr, array, name)
        called = op_name(expr)
        if called == "relax.call_tir":
            return self._operator(expr, name)
        if called in ("relax.reshape", "relax.memory.view"):
            return self._view(expr, name)
        what = called or type(expr).__name__
        raise UnsupportedModel(
            f"operator {what!r} (at {name!r}) has no kernel; it cannot be lowered to TIR"
        )

    def _constant(self, expr: Any, array: np.ndarray[Any, Any], name: str) -> TensorId:
        if expr not in self.constants:
            weight = self._tensor(f"weight.{len(self.params)}", expr)
            self.constants[expr] = weight
            self.params[weight] = np.asarray(array, order="C")  # keeps scalars scalar
        return self.constants[expr]

    def _view(self, expr: Any, name: str) -> TensorId:
        base = self._value(expr.args[0], name)
        if static_shape(expr) == self.tensors[base].shape:
            return TensorId(base)
        return self._tensor(name, expr, alias_of=base)

    # -- operators ----------------------------------------------------------------------------

    def _operator(self, call: Any, name: str) -> Any:
        gvar, args = call.args[0], call.args[1]
        func = self.mod[gvar] if isinstance(gvar, ir.GlobalVar) else None
        if not isinstance(func, tirx.PrimFunc) or len(call.args) > 2:
            raise UnsupportedModel(f"call at {name!r} is not a plain kernel call")
        fields = args.fields if isinstance(args, relax.Tuple) else None
        inputs = (
            tuple(self._value(f, f"{name}.arg{i}") for i, f in enumerate(fields))
            if fields is not None
            else tuple(_flatten(self._value(args, name)))
        )
        kernel, key = self._kernel(gvar, func)
        op = OpId(len(self.operators))
        label = self._unique(kernel)
        own = call.ty_args[0]
        multiple = isinstance(own, relax.TupleType)
        types = list(own.fields) if multiple else [own]
        outputs = []
        for i, ty in enumerate(types):
            part = f"{label}.{i}" if multiple else label
            outputs.append(self._tensor(part, _Typed(ty), producer=op))
        for used in dict.fromkeys(inputs):
            self._read(used, op)
        scratch = int(func.attrs[WORKSPACES]) if WORKSPACES in func.attrs else 0
        written = outputs[: len(outputs) - scratch]
        kind = str(func.attrs[KIND]) if KIND in func.attrs else "other"
        self.operators.append(
            Operator(
                id=op,
                name=label,
                kind=kind,
                kernel=kernel,
                inputs=inputs,
                outputs=tuple(outputs),
                flops=float(str(func.attrs[FLOPS])) if FLOPS in func.attrs else 0.0,
                bytes_read=sum(self.tensors[t].bytes for t in dict.fromkeys(inputs)),
                bytes_written=sum(self.tensors[t].bytes for t in written),
                launch=launch_of(func),
                attrs={
                    "key": key,
                    "workspaces": scratch,
                    **_rule(func),
                    **self._facts(kind, inputs, outputs[0]),
                },
            )
        )
        return tuple(outputs) if multiple else outputs[0]

    def _facts(
        self, kind: str, inputs: Sequence[TensorId], output: TensorId
    ) -> Mapping[str, str | int | float]:
        """Return what is known of the convolution in a kernel, if it holds one."""
        if kind not in ("conv2d", "depthwise") or not self.convolutions:
            return {}
        shape = self.tensors[output].shape
        for weight in dict.fromkeys(inputs):
            if weight not in self.params:
                continue
            identity = convolution_identity(self.params[weight], math.prod(shape))
            facts = self.convolutions.get(identity)
            if facts is not None:
                n, c, h, w = facts.shape
                for axis, order in ((3, (n, h, w, c)), (1, (n, c, h, w))):
                    if shape == order:
                        return {**facts.attrs, "channel_axis": axis}
        return {}

    def _read(self, tensor: TensorId, op: OpId) -> None:
        old = self.tensors[tensor]
        self.tensors[tensor] = replace(old, consumers=(*old.consumers, op))

    def _kernel(self, gvar: Any, func: tirx.PrimFunc) -> tuple[str, str]:
        called = str(gvar.name_hint)
        if called not in self._kernel_of:
            # Names stay out of the identity: equal kernels of two models share one key.
            plain = func
            for attr in ("global_symbol", "op_pattern"):
                if attr in plain.attrs:
                    plain = plain.without_attr(attr)
            digest = int(tvm_ffi.structural_hash(plain)) & 0xFFFFFFFFFFFFFFFF
            twins = self._by_hash.setdefault(digest, [])
            for known, other in twins:
                if tvm_ffi.structural_equal(plain, other):
                    kernel = known
                    break
            else:
                kernel = called
                twins.append((kernel, plain))
                self.kernels[kernel] = plain.with_attr("global_symbol", kernel)
            self._kernel_of[called] = (kernel, f"{digest:016x}")
        return self._kernel_of[called]

    def _unique(self, base: str) -> str:
        count = self._names.get(base, 0)
        self._names[base] = count + 1
        return base if count == 0 else f"{base}#{count}"

    def _name_outputs(self, outputs: Sequence[TensorId], names: Sequence[str]) -> None:
        for tensor, label in zip(outputs, names, strict=True):
            old = self.tensors[tensor]
            if old.producer is not None or old.alias_of is not None:
                self.tensors[tensor] = replace(old, name=label)


@dataclass(frozen=True, slots=True)
class _Typed:
    """A type in the place of an expression."""

    ty: Any


def _rule(func: tirx.PrimFunc) -> dict[str, str]:
    """Return the rule that scheduled a kernel, where it is noted."""
    return {"rule": str(func.attrs[RULE])} if RULE in func.attrs else {}


def _flatten(value: Any) -> list[TensorId]:
    if isinstance(value, tuple):
        return [leaf for part in value for leaf in _flatten(part)]
    return [value]
