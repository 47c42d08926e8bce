"""The nine ``light_*`` networks of the ``onnx`` package, with weights that make their outputs tell.

The published files replace every weight by a ``ConstantOfShape`` node and their outputs are flat
(0.001 everywhere), which almost any wrong executor reproduces. `load_light` puts seeded,
He-scaled initialisers in the place of those nodes and cuts the final softmax off, so that logits
are compared: they differ from class to class and from input to input.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hios.errors import UnsupportedModel

if TYPE_CHECKING:
    import onnx

LIGHT_NETWORKS: tuple[str, ...] = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)
"""Short names of the networks, as in ``light_<name>.onnx``."""

# Operators that hand a parameter on without changing what it means to the operator behind them.
_PASS_THROUGH = frozenset({"Unsqueeze", "Squeeze", "Reshape", "Identity"})


def load_light(name: str, seed: int = 0) -> onnx.ModelProto:
    """Load one light network with reseeded weights and without its final softmax.

    Parameters
    ----------
    name : str
        One of `LIGHT_NETWORKS`; a leading ``light_`` is accepted.
    seed : int
        Seed of the weights. The same name and seed give the same model, byte for byte.

    Returns
    -------
    onnx.ModelProto
        A checked model whose only graph inputs are data and whose only output is the logits.

    Raises
    ------
    UnsupportedModel
        If there is no such network in the installed ``onnx`` package.
    """
    import onnx
    from onnx import numpy_helper

    short = name.removeprefix("light_")
    if short not in LIGHT_NETWORKS:
        raise UnsupportedModel(
            f"unknown light network {name!r}; the onnx package has {', '.join(LIGHT_NETWORKS)}"
        )
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    model = onnx.load(folder / f"light_{short}.onnx")
    graph = model.graph

    initializers = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    roles = _parameter_roles(graph)
    shapes: dict[str, tuple[int, ...]] = {}
    nodes = []
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            shapes[node.output[0]] = tuple(int(d) for d in initializers[node.input[0]])
        else:
            nodes.append(node)
    for key, value in initializers.items():
        # An initializer nobody reads (the queue counter of zfnet512) has no role and stays.
        if value.dtype == np.float32 and key in roles:
            shapes.setdefault(key, value.shape)

    rng = np.random.default_rng(seed)
    seeded = {key: _draw(rng, roles.get(key, ("", 0, 1.0)), shape) for key, shape in shapes.items()}
    read = {i for node in nodes for i in node.input}
    kept = {k: v for k, v in initializers.items() if k in read and k not in seeded} | seeded

    nodes = _without_final_softmax(nodes, graph)
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.initializer[:]
    graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in kept.items())
    data = [i for i in graph.input if i.name in read and i.name not in kept]
    del graph.input[:]
    graph.input.extend(data)
    del graph.value_info[:]
    # Format 3 demands that initializers are inputs too; from 4 on they are weights alone.
    model.ir_version = 4
    return model


def _parameter_roles(graph: onnx.GraphProto) -> dict[str, tuple[str, int, float]]:
    """Map every tensor to ``(operator kind, input position, weight gain)`` of its first reader."""
    roles: dict[str, tuple[str, int, float]] = {}
    for node in reversed(graph.node):
        gain = 1.0
        if node.op_type == "Gemm":
            gain = float(next((a.i for a in node.attribute if a.name == "transB"), 0))
        for position, name in enumerate(node.input):
            if node.op_type in _PASS_THROUGH and position == 0:
                if node.output[0] in roles:
                    roles[name] = roles[node.output[0]]
            elif node.op_type not in _PASS_THROUGH:
                roles[name] = (node.op_type, position, gain)
    return roles


def _draw(
    rng: np.random.Generator, role: tuple[str, int, float], shape: tuple[int, ...]
) -> np.ndarray:
    kind, position, gain = role
    noise = rng.standard_normal(shape, dtype=np.float32)
    if kind in ("Conv", "Gemm") and position == 1:
        shared = shape[1:] if kind == "Conv" or gain else shape[:1]
        fan_in = math.prod(shared)
        return np.asarray(noise * np.float32(math.sqrt(2.0 / fan_in)), dtype=np.float32)
    if kind == "BatchNormalization" and position == 4:  # variance: positive, about one
        return np.asarray(0.75 + 0.5 * rng.random(shape, dtype=np.float32), dtype=np.float32)
    if (kind == "BatchNormalization" and position == 1) or kind == "Mul":  # scale, about one
        return np.asarray(1.0 + 0.1 * noise, dtype=np.float32)
    return np.asarray(0.1 * noise, dtype=np.float32)  # biases and means


def _without_final_softmax(
    nodes: list[onnx.NodeProto], graph: onnx.GraphProto
) -> list[onnx.NodeProto]:
    outputs = {o.name: o for o in graph.output}
    kept = []
    for node in nodes:
        if node.op_type == "Softmax" and node.output[0] in outputs:
            # The softmax keeps the shape, so its output's type describes the logits as well.
            outputs[node.output[0]].name = node.input[0]
        else:
            kept.append(node)
    return kept
