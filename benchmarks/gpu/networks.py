"""Compiled networks in a small folder, for a machine that has a GPU and no compiler.

============================  ==================================================================
``graph.json``                the operator graph
``kernels.so``                machine code for one architecture
``network.json``              its reference, target, TVM version, hash of the kernels, where weights
                              come from
``weights.safetensors``       weights that do not come from elsewhere
``virtual_machine.so``        the same kernels as an executable of TVM's virtual machine
``virtual_machine_graph.so``  the same with its CUDA graph
============================  ==================================================================

Large weights do not travel. Those that are a tensor of the model, its axes in another
order, are taken from the model, which is built anew from its reference when the folder is opened
(that needs the ``onnx`` package). The others are drawn: normal numbers of the mean and spread
that each had, from a seed. Times and bit-for-bit comparisons need no more; ONNX Runtime is
compared with on the networks that have all their weights.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from graph_executor.artifact import LoadedLibrary
from graph_executor.dtypes import numpy_dtype
from hios.errors import MissingFile
from hios.ir import CompiledGraph, OpGraph, TensorId

__all__ = ["find_networks", "has_all_weights", "load_network", "reference_of", "save_network"]

KEEPS_BYTES = 6 << 20
"""Weights together up to this size are kept, unless the model has them all."""

_EXACT_BYTES = 4 << 10


def save_network(
    folder: Path,
    compiled: CompiledGraph,
    keeps_bytes: int = KEEPS_BYTES,
    reference: str = "",
    model: Any = None,
) -> bool:
    """Write a network; return whether its weights are all kept or in its model.

    Parameters
    ----------
    folder
        Made where it is missing.
    compiled
        The network.
    keeps_bytes
        Weights together up to this size are kept, unless all of them are in the model.
    reference, model
        What `hios_tvm.sources.resolve_model` builds the model from again, and that
        ``onnx.ModelProto``; empty and None: weights that are not kept are drawn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph.json").write_bytes(compiled.graph.to_json())
    compiled.library.export(folder / "kernels.so")
    known = {} if model is None else _initializers(model)
    exact: dict[str, Any] = {}
    taken: dict[str, Any] = {}
    drawn: dict[str, Any] = {}
    for tensor, value in sorted(compiled.params.items()):
        key = str(int(tensor))
        if value.nbytes <= _EXACT_BYTES or value.dtype.kind != "f":
            exact[key] = np.ascontiguousarray(value)
            continue
        wide = value.astype(np.float64)
        drawn[key] = [float(wide.mean()), float(wide.std())]
        if (origin := _origin_of(value, known)) is not None:
            taken[key] = origin
    if len(taken) < len(drawn) and sum(v.nbytes for v in compiled.params.values()) <= keeps_bytes:
        exact = {str(int(t)): np.ascontiguousarray(v) for t, v in sorted(compiled.params.items())}
        taken, drawn = {}, {}
    safetensors.numpy.save_file(exact, folder / "weights.safetensors")
    kernels = (folder / "kernels.so").read_bytes()
    described = {
        "reference": reference,
        "target": compiled.library.target,
        "tvm_version": compiled.library.tvm_version,
        "sha256": hashlib.sha256(kernels).hexdigest(),
        "attrs": dict(compiled.attrs),
        "taken": taken,
        "drawn": drawn,
    }
    (folder / "network.json").write_text(json.dumps(described, indent=1))
    return len(taken) == len(drawn)


def load_network(folder: Path) -> CompiledGraph:
    """Read what `save_network` wrote, with the weights that were not kept.

    Raises
    ------
    MissingFile
        When it is no such folder.
    """
    described = _describe(folder)
    graph = OpGraph.from_json((folder / "graph.json").read_bytes(), str(folder))
    params: dict[TensorId, Any] = {
        TensorId(int(key)): value
        for key, value in safetensors.numpy.load_file(folder / "weights.safetensors").items()
    }
    taken = described["taken"] if find_spec("onnx") is not None else {}
    known = {}
    if taken:
        from hios_tvm.sources import resolve_model

        known = _initializers(resolve_model(described["reference"]))
    for key, (mean, spread) in described["drawn"].items():
        tensor = graph.tensors[int(key)]
        if key in taken:
            name, axes, shape = taken[key]
            value = np.ascontiguousarray(known[name].transpose(axes)).reshape(shape)
        else:
            rng = np.random.default_rng(int(key))
            value = rng.standard_normal(tensor.shape, dtype=np.float32) * spread + mean
        params[tensor.id] = value.astype(numpy_dtype(tensor.dtype), copy=False)
    library = LoadedLibrary(
        folder / "kernels.so",
        described["target"],
        described["tvm_version"],
        described["sha256"],
    )
    return CompiledGraph(graph, library, params, described["attrs"])


def reference_of(folder: Path) -> str:
    """Return what a network was compiled from; empty where that is not known."""
    return str(_describe(folder)["reference"])


def has_all_weights(folder: Path) -> bool:
    """Return whether `load_network` gives a network the weights of its model."""
    described = _describe(folder)
    missing = described["drawn"].keys() - described["taken"].keys()
    return not missing and (not described["drawn"] or find_spec("onnx") is not None)


def _describe(folder: Path) -> Any:
    if not (folder / "network.json").is_file():
        raise MissingFile(f"no network {str(folder)!r}; make gpu-bundle packs some")
    return json.loads((folder / "network.json").read_text())


def _initializers(model: Any) -> dict[str, np.ndarray[Any, Any]]:
    from onnx import numpy_helper

    return {part.name: numpy_helper.to_array(part) for part in model.graph.initializer}


def _origin_of(
    value: np.ndarray[Any, Any], known: Mapping[str, np.ndarray[Any, Any]]
) -> tuple[str, tuple[int, ...], tuple[int, ...]] | None:
    """Return name, order of axes and final shape of the tensor that holds these very numbers."""
    flat = value.ravel()
    for name, tensor in known.items():
        if tensor.size != value.size or tensor.dtype != value.dtype or tensor.ndim > 4:
            continue
        for axes in permutations(range(tensor.ndim)):
            turned = tensor.transpose(axes)
            if np.array_equal(turned[(0,) * (tensor.ndim - 1)], flat[: turned.shape[-1]]) and (
                np.array_equal(turned.ravel(), flat)
            ):
                return name, axes, value.shape
    return None


def find_networks(folder: Path, wanted: Sequence[str] = ()) -> list[Path]:
    """Return the networks in a folder, all or those named.

    Raises
    ------
    MissingFile
        When there are none.
    """
    found = sorted(path.parent for path in folder.glob("*/network.json"))
    if wanted:
        found = [path for path in found if path.name in wanted]
    if not found:
        raise MissingFile(f"no networks in {str(folder)!r}; make gpu-bundle packs some")
    return found
