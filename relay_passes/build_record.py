"""A compiled graph as one run of bytes: graph, linked kernels, weights.

A JSON header with the sizes of what follows, then the shared library, then the weights, each
aligned, so that they are read as views without a copy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import msgspec
import numpy as np

from hios.errors import InvalidGraph
from hios.ir import CompiledGraph, OpGraph, TensorId
from hios.ir.serial import encode_json
from relay_passes.linked_library import LinkedKernelLibrary

__all__ = ["decode_build", "encode_build"]

_ALIGNMENT = 64
_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class _Weight:
    tensor: int
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Header:
    graph: str
    attrs: Mapping[str, str]
    target: str
    library_bytes: int
    weights: tuple[_Weight, ...]


def encode_build(compiled: CompiledGraph, library: bytes | memoryview) -> list[Any]:
    """Return the bytes of a compiled graph, in pieces.

    Parameters
    ----------
    compiled : CompiledGraph
        The graph, its weights and what is known of it.
    library : bytes-like
        Its kernels as a shared library.
    """
    weights = [(tensor, np.asarray(value)) for tensor, value in sorted(compiled.params.items())]
    header = encode_json(
        _Header(
            _text(compiled.graph.to_json()),
            dict(compiled.attrs),
            compiled.library.target,
            len(library),
            tuple(_Weight(int(t), value.dtype.name, value.shape) for t, value in weights),
        )
    )
    parts: list[Any] = [len(header).to_bytes(_LENGTH_BYTES, "little")]
    for content in (header, library):
        parts += [content, _padding(sum(map(len, parts)) + len(content))]
    for _, value in weights:
        flat = np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
        parts += [flat, _padding(value.nbytes)]
    return parts


def decode_build(data: memoryview) -> CompiledGraph | None:
    """Read a compiled graph back; None when these are the bytes of something else."""
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    try:
        header = msgspec.json.decode(data[_LENGTH_BYTES:end], type=_Header)
        graph = OpGraph.from_json(header.graph.encode(), "cached graph")
    except (msgspec.DecodeError, UnicodeDecodeError, InvalidGraph):
        return None
    start = end + len(_padding(end))
    library = data[start : start + header.library_bytes]
    start += header.library_bytes
    start += len(_padding(start))
    params: dict[TensorId, np.ndarray[Any, Any]] = {}
    for weight in header.weights:
        dtype = np.dtype(getattr(ml_dtypes, weight.dtype, weight.dtype))
        size = math.prod(weight.shape) * dtype.itemsize
        flat = np.frombuffer(data[start : start + size], np.uint8)
        params[TensorId(weight.tensor)] = flat.view(dtype).reshape(weight.shape)
        start += size + len(_padding(size))
    kernels = LinkedKernelLibrary(library, header.target)
    return CompiledGraph(graph, kernels, params, dict(header.attrs))


def _padding(size: int) -> bytes:
    """Return what brings `size` to a multiple of the alignment."""
    return bytes(-size % _ALIGNMENT)


def _text(data: bytes | str) -> str:
    return data.decode() if isinstance(data, bytes) else data
