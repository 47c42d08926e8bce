"""Compiled networks in a small folder, for a machine that has a GPU and no compiler.

============================  ==================================================================
``graph.json``                the operator graph
``kernels.so``                machine code for one architecture
``network.json``              target, TVM version, hash of the kernels, how weights are drawn
``weights.safetensors``       the weights, where they are small; else those that are exact
``virtual_machine.so``        the same kernels as an executable of TVM's virtual machine
``virtual_machine_graph.so``  the same with its CUDA graph
``expected.npz``              inputs and ONNX Runtime's outputs, where the weights are all there
============================  ==================================================================

Weights of large networks are drawn anew when a folder is opened: normal numbers of the mean and
spread that each had, from a seed. Times and bit-for-bit comparisons need no more; comparisons
with ONNX Runtime run on the networks whose weights are kept.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from graph_executor.artifact import LoadedLibrary
from graph_executor.dtypes import numpy_dtype
from hios.errors import MissingFile
from hios.ir import CompiledGraph, OpGraph, TensorId

__all__ = ["find_networks", "load_network", "save_network"]

KEEPS_BYTES = 6 << 20
"""Weights together up to this size are kept."""

_EXACT_BYTES = 4 << 10


def save_network(folder: Path, compiled: CompiledGraph, keeps_bytes: int = KEEPS_BYTES) -> bool:
    """Write a network; return whether its weights are all kept."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph.json").write_bytes(compiled.graph.to_json())
    compiled.library.export(folder / "kernels.so")
    together = sum(value.nbytes for value in compiled.params.values())
    keeps_all = together <= keeps_bytes
    exact: dict[str, Any] = {}
    drawn: dict[str, Any] = {}
    for tensor, value in sorted(compiled.params.items()):
        if keeps_all or value.nbytes <= _EXACT_BYTES or value.dtype.kind != "f":
            exact[str(int(tensor))] = np.ascontiguousarray(value)
        else:
            wide = value.astype(np.float64)
            drawn[str(int(tensor))] = [float(wide.mean()), float(wide.std())]
    safetensors.numpy.save_file(exact, folder / "weights.safetensors")
    kernels = (folder / "kernels.so").read_bytes()
    described = {
        "target": compiled.library.target,
        "tvm_version": compiled.library.tvm_version,
        "sha256": hashlib.sha256(kernels).hexdigest(),
        "attrs": dict(compiled.attrs),
        "drawn": drawn,
    }
    (folder / "network.json").write_text(json.dumps(described, indent=1))
    return keeps_all


def load_network(folder: Path) -> CompiledGraph:
    """Read what `save_network` wrote, and draw the weights that were not kept.

    Raises
    ------
    MissingFile
        When it is no such folder.
    """
    if not (folder / "network.json").is_file():
        raise MissingFile(f"no network {str(folder)!r}; make gpu-bundle packs some")
    described = json.loads((folder / "network.json").read_text())
    graph = OpGraph.from_json((folder / "graph.json").read_bytes(), str(folder))
    params: dict[TensorId, Any] = {
        TensorId(int(key)): value
        for key, value in safetensors.numpy.load_file(folder / "weights.safetensors").items()
    }
    for key, (mean, spread) in described["drawn"].items():
        tensor = graph.tensors[int(key)]
        rng = np.random.default_rng(int(key))
        value = rng.standard_normal(tensor.shape, dtype=np.float32) * spread + mean
        params[tensor.id] = value.astype(numpy_dtype(tensor.dtype))
    library = LoadedLibrary(
        folder / "kernels.so",
        described["target"],
        described["tvm_version"],
        described["sha256"],
    )
    return CompiledGraph(graph, library, params, described["attrs"])


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
