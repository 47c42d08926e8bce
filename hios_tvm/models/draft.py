"""An ONNX model in the making, its weights still to be drawn.

A draft knows the shape of every weight but holds none, so operators, parameters and work of a
network of hundreds of megabytes can be counted at once; `OnnxDraft.to_model` draws the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from hios.errors import InvalidGraph
from hios_tvm.models.weights import WeightSpec, draw

__all__ = ["IR_VERSION", "OPSET", "OnnxDraft"]

OPSET = 17
"""Old enough for every importer of today, new enough for LayerNormalization."""

IR_VERSION = 8


class OnnxDraft:
    """Collects inputs, weights, operators and outputs; all floating tensors are float32.

    Parameters
    ----------
    name : str
        Name of the network.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.weights: dict[str, WeightSpec] = {}
        self._arrays: dict[str, npt.NDArray[Any]] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._nodes: list[Any] = []
        self._used: set[str] = set()

    def input(self, name: str, shape: Sequence[int]) -> str:
        """Declare a graph input and return its name."""
        self._claim(name)
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        return name

    def output(self, name: str, shape: Sequence[int]) -> None:
        """Declare that a tensor of an operator is a graph output."""
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def weight(self, name: str, shape: Sequence[int], std: float, mean: float = 0.0) -> str:
        """Declare a weight to be drawn and return its name."""
        self._claim(name)
        spec = WeightSpec(name, tuple(shape), std, mean)
        spec.validate()
        self.weights[name] = spec
        return name

    def given_weight(self, name: str, values: npt.NDArray[np.float32]) -> str:
        """Declare a weight with its values and return its name."""
        self.weight(name, values.shape, 0.0)
        self._arrays[name] = np.ascontiguousarray(values, dtype=np.float32)
        return name

    def constant(self, name: str, values: npt.NDArray[Any]) -> str:
        """Add a constant that is no parameter (a shape, a scale) and return its name.

        The same name with the same values may be asked for again.
        """
        known = self._arrays.get(name)
        if known is not None and name not in self.weights and np.array_equal(known, values):
            return name
        self._claim(name)
        self._arrays[name] = values
        return name

    def op(self, kind: str, inputs: Sequence[str], name: str, **attributes: object) -> str:
        """Add an operator with one output and return the name of that output.

        Parameters
        ----------
        kind : str
            ONNX operator type.
        inputs : sequence of str
            Tensor names.
        name : str
            Name of the operator and of its output.
        **attributes
            ONNX attributes.
        """
        self._claim(name)
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    @property
    def parameters(self) -> int:
        """Number of elements of all weights."""
        return sum(spec.size for spec in self.weights.values())

    def to_model(self, seed: int = 0) -> onnx.ModelProto:
        """Draw the weights and return the model.

        Parameters
        ----------
        seed : int
            Same seed, same model, byte for byte.
        """
        # Checked as a skeleton: the checker copies all weights, and nothing about them can be
        # wrong that the skeleton does not show.
        model = self.skeleton()
        del model.graph.input[len(self._inputs) :]
        for name, spec in self.weights.items():
            values = self._arrays[name] if name in self._arrays else draw(spec, seed)
            # Filled in place, since assembling a graph of finished tensors copies them twice.
            tensor = model.graph.initializer.add()
            tensor.name = name
            tensor.data_type = TensorProto.FLOAT
            tensor.dims.extend(spec.shape)
            tensor.raw_data = values.astype("<f4", copy=False).tobytes()
        return model

    def skeleton(self) -> onnx.ModelProto:
        """Return the model, checked, with its weights as further graph inputs, for counting."""
        weights = [
            helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, list(spec.shape))
            for spec in self.weights.values()
        ]
        constants = [
            numpy_helper.from_array(values, name)
            for name, values in self._arrays.items()
            if name not in self.weights
        ]
        graph = helper.make_graph(
            self._nodes, self.name, self._inputs + weights, self._outputs, constants
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="hios-tvm",
        )
        onnx.checker.check_model(model)
        return model

    def _claim(self, name: str) -> None:
        if name in self._used:
            raise InvalidGraph(f"network {self.name!r} has two tensors named {name!r}")
        self._used.add(name)
