"""PyTorch exports (``torch.export``), through TVM's importer.

Torch itself is needed to read them and is imported only here.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hios.errors import MissingDependency, UnsupportedModel
from relay_passes.frontends.load import ImportedModel
from relay_passes.frontends.relax_module import bind_shapes

__all__ = ["import_torch", "read_torch"]


def read_torch(path: Path) -> Any:
    """Load a ``.pt2`` file.

    Raises
    ------
    MissingDependency
        When torch is not installed.
    UnsupportedModel
        When the file is damaged or no export.
    """
    try:
        import torch
    except ImportError:
        raise MissingDependency(
            f"{path} needs PyTorch to be read; install torch (a CPU build is enough)"
        ) from None
    if not zipfile.is_zipfile(path):  # torch would log a traceback before it raises
        raise UnsupportedModel(f"{path} is damaged or not a torch.export file: no zip archive")
    try:
        return torch.export.load(path)
    except (RuntimeError, OSError, ValueError, KeyError, EOFError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UnsupportedModel(f"{path} is damaged or not a torch.export file: {reason}") from None


def import_torch(program: Any, shapes: Mapping[str, tuple[int, ...]], name: str) -> ImportedModel:
    """Import a ``torch.export.ExportedProgram``; its weights become constants.

    Raises
    ------
    UnsupportedModel
        When an operator cannot be imported or a dimension stays dynamic.
    """
    from tvm.relax.frontend.torch import from_exported_program

    try:
        mod = from_exported_program(
            program, keep_params_as_input=False, unwrap_unit_return_tuple=True
        )
    except (
        RuntimeError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        AssertionError,
        NotImplementedError,
    ) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
        raise UnsupportedModel(f"TVM cannot import this PyTorch program: {reason}") from None
    mod = bind_shapes(mod, shapes)
    names = tuple(str(p.name) for p in mod["main"].params)
    labels = tuple(str(o) for o in program.graph_signature.user_outputs)
    return ImportedModel(mod, name, names, labels, "torch")
