"""Networks: the builder of IOS and HIOS users, and a zoo of branchy ones. All come out as ONNX."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hios_tvm.models.blocks import Block
from hios_tvm.models.builder import (
    activation,
    addition,
    conv2d,
    element,
    get_parts,
    identity,
    linear,
    multiply,
    new_name,
    placeholder,
    pool2d,
    relu,
    relu_conv,
    relu_sep_conv,
    reset_name,
    rwconv2d,
    sep_conv,
    sequential,
    sigmoid,
    tanh,
)
from hios_tvm.models.graph import Graph
from hios_tvm.models.node import Node
from hios_tvm.models.nodes import (
    Activation,
    Conv,
    Element,
    Identity,
    Linear,
    Placeholder,
    Pool,
    Relu,
    Sequential,
)
from hios_tvm.models.values import Value

if TYPE_CHECKING:
    from hios_tvm.models import zoo
    from hios_tvm.models.study import dump_results, optimize

__all__ = [
    "Activation",
    "Block",
    "Conv",
    "Element",
    "Graph",
    "Identity",
    "Linear",
    "Node",
    "Placeholder",
    "Pool",
    "Relu",
    "Sequential",
    "Value",
    "activation",
    "addition",
    "conv2d",
    "dump_results",
    "element",
    "get_parts",
    "identity",
    "linear",
    "multiply",
    "new_name",
    "optimize",
    "placeholder",
    "pool2d",
    "relu",
    "relu_conv",
    "relu_sep_conv",
    "reset_name",
    "rwconv2d",
    "sep_conv",
    "sequential",
    "sigmoid",
    "tanh",
    "zoo",
]


def __getattr__(name: str) -> Any:
    # These need ONNX and the schedulers; whoever only writes a network does not wait for them.
    if name == "zoo":
        return importlib.import_module("hios_tvm.models.zoo")
    if name in ("optimize", "dump_results"):
        return getattr(importlib.import_module("hios_tvm.models.study"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
