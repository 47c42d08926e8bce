"""ONNX models, through TVM's importer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tvm
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from hios.errors import UnsupportedModel
from relay_passes.frontends.load import ImportedModel
from relay_passes.frontends.onnx_limits import refuse_mistranslated
from relay_passes.frontends.onnx_rewrites import rewrite_for_import

__all__ = ["import_onnx", "read_onnx"]


def read_onnx(path: Path) -> Any:
    """Read and check an ONNX file.

    Raises
    ------
    UnsupportedModel
        When the file is truncated or not ONNX.
    """
    import onnx

    try:
        model = onnx.load(path)
    except (DecodeError, OSError, ValueError) as error:
        raise UnsupportedModel(
            f"{path} is damaged or not an ONNX file ({_first_line(error)})"
        ) from None
    if not model.graph.node and not model.graph.output:
        raise UnsupportedModel(f"{path} is damaged or not an ONNX file (it holds no graph)")
    return model


def import_onnx(
    model: Any, shapes: Mapping[str, tuple[int, ...]], name: str, path: Path | None
) -> ImportedModel:
    """Import an ``onnx.ModelProto``.

    Parameters
    ----------
    model : onnx.ModelProto
        The model; not changed.
    shapes : mapping
        Shapes for inputs with dynamic dimensions.
    name : str
        Name of the graph.
    path : Path or None
        Where it came from, for messages.

    Raises
    ------
    UnsupportedModel
        When a dimension stays dynamic or an operator cannot be imported.
    """
    from tvm.relax.frontend.onnx import from_onnx

    graph = model.graph
    weights = {i.name for i in graph.initializer}
    inputs = [i for i in graph.input if i.name not in weights]
    names = tuple(i.name for i in inputs)
    unknown = sorted(set(shapes) - set(names))
    if unknown:
        raise UnsupportedModel(
            f"shapes name {', '.join(map(repr, unknown))}, which is no input; "
            f"inputs are {', '.join(names) or 'none'}"
        )
    refuse_mistranslated(model)
    model = rewrite_for_import(model)
    shape_dict = {i.name: list(_shape_of(i, shapes)) for i in inputs}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mod = from_onnx(model, shape_dict=shape_dict, keep_params_in_input=False)
    except tvm.error.OpNotImplemented as error:
        raise UnsupportedModel(_unsupported(model, str(error))) from None
    except (
        RuntimeError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        AssertionError,
        IndexError,
        NotImplementedError,
    ) as error:
        raise UnsupportedModel(_unsupported(model, str(error))) from None
    outputs = tuple(o.name for o in graph.output)
    return ImportedModel(mod, name, names, outputs, "onnx")


def _shape_of(value: Any, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    declared = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise UnsupportedModel(f"input {value.name!r} is not a tensor")
    given = shapes.get(value.name)
    if not declared.HasField("shape"):
        if given is None:
            raise UnsupportedModel(_dynamic(value.name, "of unknown rank"))
        return tuple(given)
    dims = declared.shape.dim
    if given is not None and len(given) != len(dims):
        raise UnsupportedModel(
            f"input {value.name!r} has {len(dims)} dimensions, the given shape {given} has "
            f"{len(given)}"
        )
    result = []
    for axis, dim in enumerate(dims):
        fixed = int(dim.dim_value) if dim.HasField("dim_value") else -1
        if given is not None:
            if fixed > 0 and fixed != given[axis]:
                raise UnsupportedModel(
                    f"input {value.name!r} has dimension {axis} fixed to {fixed}, "
                    f"the given shape {tuple(given)} says {given[axis]}"
                )
            result.append(int(given[axis]))
        elif fixed < 0 or (fixed == 0 and dim.dim_param):
            label = dim.dim_param or "?"
            raise UnsupportedModel(_dynamic(value.name, f"with dynamic dimension {axis} ({label})"))
        else:
            result.append(fixed)
    return tuple(result)


def _dynamic(name: str, how: str) -> str:
    return f"input {name!r} is {how}; give its shape, e.g. --shapes {name}:1x3x224x224"


def _unsupported(model: Any, message: str) -> str:
    from tvm.relax.frontend.onnx import onnx_frontend

    used = {n.op_type for n in model.graph.node}
    known = set(onnx_frontend._get_convert_map())
    missing = sorted(used - known)
    if missing:
        return f"ONNX operator {', '.join(missing)} is not supported by TVM's importer"
    named = [op for op in sorted(used, key=len, reverse=True) if op in message]
    where = f" (operator {named[0]})" if named else ""
    return f"TVM cannot import this ONNX model{where}: {_first_line(message)}"


def _first_line(error: object) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
