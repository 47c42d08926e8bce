"""Relax modules: objects, and files written by ``tvm.ir.save_json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tvm
from tvm import relax, tirx

from hios.errors import UnsupportedModel
from relay_passes.frontends.load import ImportedModel

__all__ = ["bind_shapes", "import_relax", "read_relax"]


def read_relax(path: Path) -> Any:
    """Read a module from JSON.

    Raises
    ------
    UnsupportedModel
        When the file holds no TVM module.
    """
    try:
        text = path.read_text(encoding="utf-8")
        mod = tvm.ir.load_json(text)
    except (RuntimeError, ValueError, TypeError, KeyError, OSError, UnicodeDecodeError) as e:
        reason = str(e).strip().splitlines()[-1] if str(e).strip() else type(e).__name__
        raise UnsupportedModel(f"{path} is damaged or not a Relax module: {reason}") from None
    if not isinstance(mod, tvm.IRModule):
        raise UnsupportedModel(f"{path} holds a {type(mod).__name__}, not a Relax module")
    return mod


def import_relax(mod: Any, shapes: Mapping[str, tuple[int, ...]], name: str) -> ImportedModel:
    """Take a Relax module with a function ``main``.

    Raises
    ------
    UnsupportedModel
        When there is no ``main``, or a dimension stays dynamic.
    """
    known = {str(g.name_hint) for g in mod.get_global_vars()}
    if "main" not in known or not isinstance(mod["main"], relax.Function):
        raise UnsupportedModel(
            f"the module has no Relax function 'main'; it has {', '.join(sorted(known)) or 'none'}"
        )
    mod = bind_shapes(mod, shapes)
    names = tuple(str(p.name) for p in mod["main"].params)
    outputs = _count_outputs(mod["main"].ret_ty)
    labels = ("output",) if outputs == 1 else tuple(f"output_{i}" for i in range(outputs))
    return ImportedModel(mod, name, names, labels, "relax")


def bind_shapes(mod: Any, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """Fix the dynamic dimensions of ``main`` to the given input shapes.

    Raises
    ------
    UnsupportedModel
        When a shape names no input or contradicts it, or a dimension stays dynamic.
    """
    params = {str(p.name): p for p in mod["main"].params}
    unknown = sorted(set(shapes) - set(params))
    if unknown:
        raise UnsupportedModel(
            f"shapes name {', '.join(map(repr, unknown))}, which is no input; "
            f"inputs are {', '.join(params) or 'none'}"
        )
    binding: dict[Any, int] = {}
    for label, param in params.items():
        ty = param.ty
        if not isinstance(ty, relax.TensorType) or not isinstance(ty.shape, relax.ShapeExpr):
            raise UnsupportedModel(f"input {label!r} is not a tensor of known rank")
        dims = list(ty.shape.values)
        given = shapes.get(label)
        if given is not None and len(given) != len(dims):
            raise UnsupportedModel(
                f"input {label!r} has {len(dims)} dimensions, the given shape has {len(given)}"
            )
        for axis, dim in enumerate(dims):
            if isinstance(dim, tirx.IntImm):
                if given is not None and int(dim) != given[axis]:
                    raise UnsupportedModel(
                        f"input {label!r} has dimension {axis} fixed to {int(dim)}, "
                        f"the given shape says {given[axis]}"
                    )
            elif (
                isinstance(dim, tirx.Var)
                and given is not None
                and binding.setdefault(dim, int(given[axis])) != int(given[axis])
            ):
                raise UnsupportedModel(
                    f"dimension {dim.name!r} is given both as {binding[dim]} and as "
                    f"{given[axis]} (input {label!r})"
                )
    for label, param in params.items():
        for axis, dim in enumerate(param.ty.shape.values):
            if not isinstance(dim, tirx.IntImm) and dim not in binding:
                raise UnsupportedModel(
                    f"input {label!r} is with dynamic dimension {axis} ({dim}); "
                    f"give its shape, e.g. --shapes {label}:1x3x224x224"
                )
    if not binding:
        return mod
    return relax.transform.BindSymbolicVars(binding, "main")(mod)


def _count_outputs(ty: Any) -> int:
    if isinstance(ty, relax.TupleType):
        return sum(_count_outputs(f) for f in ty.fields)
    return 1
