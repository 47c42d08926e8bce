"""hios-tvm as a backend of ONNX, so that anyone can point ONNX's own tests at it.

::

    from onnx.backend.test import BackendTest
    from hios_tvm.onnx_backend import HiosBackend

    globals().update(BackendTest(HiosBackend, __name__).include("test_conv_").test_cases)

A compiled network has static shapes. Where a model leaves a dimension open, and where ONNX lets
an *input* decide a shape (the new shape of ``Reshape``, the axes of ``Unsqueeze``, ...), the
model is compiled when the values are known: at a run, and again when they change.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from onnx.backend.base import Backend, BackendRep, Device, DeviceType, namedtupledict

from hios.errors import InputMismatch
from hios_tvm.api import build
from hios_tvm.model import Model

__all__ = ["SUPPORTED_OPERATORS", "UNSUPPORTED_CASES", "HiosBackend", "HiosBackendRep"]

SUPPORTED_OPERATORS: tuple[str, ...] = (
    *("Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan"),
    *("Atanh", "AveragePool", "BatchNormalization", "BitShift", "Cast", "Ceil", "Clip"),
    *("Concat", "ConstantOfShape", "Conv", "Cos", "DepthToSpace", "Div", "Dropout", "Einsum"),
    *("Elu", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherElements"),
    *("GatherND", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "Greater"),
    *("GreaterOrEqual", "GroupNormalization", "HardSigmoid", "HardSwish", "Hardmax"),
    *("Identity", "InstanceNormalization", "IsNaN", "LRN", "LayerNormalization", "LeakyRelu"),
    *("Less", "LessOrEqual", "Log", "LogSoftmax", "LpPool", "MatMul", "MatMulInteger", "Max"),
    *("MaxPool", "Mean", "Min", "Mul", "Neg", "Not", "Or", "PRelu", "Pad", "Reciprocal"),
    *("ReduceL1", "ReduceL2", "ReduceMean", "ReduceProd", "ReduceSum", "Relu", "Reshape"),
    *("Round", "Selu", "Shape", "Sigmoid", "Sign", "Sin", "Size", "Slice", "Softmax"),
    *("Softplus", "Softsign", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tan", "Tanh"),
    *("ThresholdedRelu", "Tile", "Transpose", "Unsqueeze", "Where", "Xor"),
)
"""Operators whose node tests pass, all but those of `UNSUPPORTED_CASES`."""

UNSUPPORTED_CASES: dict[str, str] = {
    r"_training_mode|test_training_dropout": "training; a network is compiled for inference",
    r"test_dropout_default_mask": "the mask of Dropout as an output",
    r"test_maxpool_with_argmax": "the indices of MaxPool as a second output",
    r"test_bitshift_.*(negative_shift|shift_ge_width)": "shifts that leave the width of the type",
    r"test_slice_start_out_of_bounds|zero_size|allowzero_reordered": "tensors without elements",
}
"""Patterns of node test names, and what is not supported in them."""

# Inputs whose values decide shapes, or that TVM wants constant, by position.
_CONSTANT_OPERANDS: dict[str, tuple[int, ...]] = {
    "Clip": (1, 2),
    "ConstantOfShape": (0,),
    "Dropout": (1, 2),
    "Expand": (1,),
    "Pad": (1, 2, 3),
    "Reshape": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "Unsqueeze": (1,),
} | {f"Reduce{kind}": (1,) for kind in ("L1", "L2", "Max", "Mean", "Min", "Prod", "Sum")}

Array = npt.NDArray[Any]


class HiosBackendRep(BackendRep):  # type: ignore[misc]
    """A model that is ready to run.

    Parameters
    ----------
    model
        An ``onnx.ModelProto``.
    devices
        How many logical CPU devices to use.
    """

    def __init__(self, model: onnx.ModelProto, devices: int = 1) -> None:
        super().__init__()
        self._model = model
        self._devices = devices
        weights = {initializer.name for initializer in model.graph.initializer}
        self._inputs = [given for given in model.graph.input if given.name not in weights]
        used = {
            node.input[position]
            for node in model.graph.node
            for position in _CONSTANT_OPERANDS.get(node.op_type, ())
            if position < len(node.input)
        }
        self._constants = [given.name for given in self._inputs if given.name in used]
        self._ready: Model | None = None
        self._key: object = None
        if not self._constants and all(_is_static(given) for given in self._inputs):
            self._compile({})

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Run once.

        Parameters
        ----------
        inputs
            One array per input of the model, in its order; a single array for a single input.

        Returns
        -------
        namedtuple
            The outputs, by position or by name.

        Raises
        ------
        HiosError
            When the model cannot be compiled or the inputs do not fit.
        """
        del kwargs
        values = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
        if len(values) != len(self._inputs):
            raise InputMismatch(
                f"{len(values)} inputs given; the model takes {len(self._inputs)}: "
                f"{', '.join(given.name for given in self._inputs)}"
            )
        arrays = {
            given.name: np.asarray(value) for given, value in zip(self._inputs, values, strict=True)
        }
        ready = self._compile(arrays)
        feeds = {name: array for name, array in arrays.items() if name not in self._constants}
        outputs = ready.run(feeds)
        names = [output.name for output in self._model.graph.output]
        result: tuple[Any, ...] = namedtupledict("Outputs", names)(*outputs.values())
        return result

    def close(self) -> None:
        """Give threads and memory back."""
        if self._ready is not None:
            self._ready.close()
            self._ready = None

    def _compile(self, arrays: dict[str, Array]) -> Model:
        """Return the model for these shapes and constants, compiled when they are new."""
        shapes = {
            given.name: arrays[given.name].shape
            for given in self._inputs
            if given.name in arrays and not _is_static(given)
        }
        constants = {name: arrays[name] for name in self._constants}
        key = (
            sorted(shapes.items()),
            [(name, array.shape, array.tobytes()) for name, array in constants.items()],
        )
        if self._ready is None or key != self._key:
            self.close()
            self._ready = build(
                _bind(self._model, constants),
                devices=self._devices,
                costs="analytic",
                shapes={name: shape for name, shape in shapes.items() if name not in constants},
                select=False,
            )
            self._key = key
        return self._ready


class HiosBackend(Backend):  # type: ignore[misc]
    """The entry points that ONNX's test suite calls."""

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **kwargs: Any) -> HiosBackendRep:
        """Make a model ready to run.

        Parameters
        ----------
        model
            An ``onnx.ModelProto``.
        device
            ``CPU``.
        **kwargs
            Of `HiosBackendRep`; others, such as the tolerances of ONNX's runner, are ignored.

        Raises
        ------
        HiosError
            When the model cannot be compiled.
        """
        super().prepare(model, device, **kwargs)
        return HiosBackendRep(model, kwargs.get("devices", 1))

    @classmethod
    def run_model(cls, model: Any, inputs: Any, device: str = "CPU", **kwargs: Any) -> Any:
        """Compile a model, run it once, and give everything back."""
        prepared = cls.prepare(model, device, **kwargs)
        try:
            return prepared.run(inputs)
        finally:
            prepared.close()

    @classmethod
    def run_node(
        cls,
        node: Any,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run one node on arrays, in the newest opset."""
        del outputs_info
        arrays = [np.asarray(value) for value in inputs]
        names = [name for name in node.input if name]
        given = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in zip(names, arrays, strict=True)
        ]
        outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
        model = helper.make_model(helper.make_graph([node], "node", given, outputs))
        prepared = HiosBackendRep(model, kwargs.get("devices", 1))
        try:
            return prepared.run(arrays)
        finally:
            prepared.close()

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Return whether tests for `device` make sense here."""
        return bool(Device(device).type == DeviceType.CPU)


def _is_static(given: Any) -> bool:
    tensor = given.type.tensor_type
    return tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim)


def _bind(model: onnx.ModelProto, constants: dict[str, Array]) -> onnx.ModelProto:
    """Return the model with some inputs turned into weights."""
    if not constants:
        return model
    bound = onnx.ModelProto()
    bound.CopyFrom(model)
    kept = [given for given in bound.graph.input if given.name not in constants]
    del bound.graph.input[:]
    bound.graph.input.extend(kept)
    bound.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in constants.items()
    )
    return bound
