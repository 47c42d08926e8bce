"""One door for every kind of model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm

from hios.errors import MissingFile, UnsupportedModel

__all__ = ["ImportedModel", "import_model"]

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """A model as a Relax module.

    Attributes
    ----------
    mod
        ``main`` takes the inputs and nothing else; weights are constants.
    name
        For people and file names.
    input_names, output_names
        As the model calls them, in order.
    source
        Kind of the source: ``onnx``, ``torch`` or ``relax``.
    """

    mod: Any
    name: str
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    source: str


def import_model(model: Any, shapes: Shapes | None = None) -> ImportedModel:
    """Import a model from a file or an object.

    Parameters
    ----------
    model : path, onnx.ModelProto, torch.export.ExportedProgram or tvm.IRModule
        Files by suffix: ``.onnx``, ``.pt2`` (PyTorch), ``.json`` (a Relax module as JSON).
    shapes : mapping, optional
        Shapes of inputs with dynamic dimensions, by input name.

    Raises
    ------
    MissingFile
        When the file does not exist.
    UnsupportedModel
        When the file is damaged or of another kind, when an operator cannot be imported, or
        when a dimension stays dynamic.
    """
    from relay_passes.frontends.onnx_model import import_onnx, read_onnx
    from relay_passes.frontends.relax_module import import_relax, read_relax
    from relay_passes.frontends.torch_export import import_torch, read_torch

    bound = dict(shapes or {})
    if isinstance(model, (str, Path)):
        path = Path(model)
        if not path.is_file():
            raise MissingFile(f"no such model file: {path}")
        suffix = path.suffix.lower()
        if suffix == ".onnx":
            return import_onnx(read_onnx(path), bound, path.stem, path)
        if suffix in (".pt2", ".pt"):
            return import_torch(read_torch(path), bound, path.stem)
        if suffix == ".json":
            return import_relax(read_relax(path), bound, path.stem)
        raise UnsupportedModel(
            f"{path}: unknown kind of model {suffix!r}; known are .onnx, .pt2 and .json (Relax)"
        )
    if isinstance(model, tvm.IRModule):
        return import_relax(model, bound, "relax")
    kind = type(model)
    if kind.__name__ == "ModelProto":
        return import_onnx(model, bound, str(model.graph.name) or "onnx", None)
    if kind.__name__ == "ExportedProgram":
        return import_torch(model, bound, "torch")
    # A TVMScript module class decorated with I.ir_module is an IRModule already; anything else
    # is a mistake of the caller.
    raise UnsupportedModel(
        f"cannot compile an object of type {kind.__module__}.{kind.__qualname__}; give a path, "
        "an onnx.ModelProto, a torch.export.ExportedProgram or a tvm.IRModule"
    )
