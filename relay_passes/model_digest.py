"""The identity of a model's content, for the cache of whole builds."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]

__all__ = ["model_digest"]

_FILES = (".onnx", ".pt2", ".pt")


def model_digest(model: Any) -> str | None:
    """Return a hash of everything in a model that a build depends on.

    Parameters
    ----------
    model : path, onnx.ModelProto or anything else
        An ONNX file counts with the files that its external data stand in.

    Returns
    -------
    str or None
        None where the content has no bytes to hash (a Relax module, an exported program), or
        cannot be read; importing will say why.
    """
    try:
        if isinstance(model, (str, Path)):
            return _file_digest(Path(model))
        if type(model).__name__ == "ModelProto":
            if next(_external_tensors(model), None) is not None:
                return None
            return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    except (OSError, DecodeError, EncodeError, ValueError):
        return None
    return None


def _file_digest(path: Path) -> str | None:
    suffix = path.suffix.lower()
    if suffix not in _FILES:
        return None
    digest = hashlib.sha256(f"{suffix} {path.stem}\n".encode())
    _add_file(digest, path)
    if suffix == ".onnx":
        import onnx

        graph = onnx.load(path, load_external_data=False)
        locations = {
            entry.value
            for tensor in _external_tensors(graph)
            for entry in tensor.external_data
            if entry.key == "location"
        }
        for location in sorted(locations):
            _add_file(digest, path.parent / location)
    return digest.hexdigest()


def _add_file(digest: Any, path: Path) -> None:
    with path.open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())


def _external_tensors(model: Any) -> Any:
    """Give the tensors of a model whose data stand in other files."""
    from onnx.external_data_helper import uses_external_data

    yield from (tensor for tensor in model.graph.initializer if uses_external_data(tensor))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t") and uses_external_data(attribute.t):
                yield attribute.t
