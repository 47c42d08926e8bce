"""ONNX's own node tests, run through `hios_tvm.onnx_backend`."""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

from hios.errors import InputMismatch, UnsupportedModel
from hios_tvm.models.light import LIGHT_NETWORKS
from hios_tvm.onnx_backend import SUPPORTED_OPERATORS, UNSUPPORTED_CASES, HiosBackend

DOCUMENT = Path(__file__).parents[2] / "docs" / "supported-operators.md"
DTYPES = {
    *("bool", "float16", "float32", "float64"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
}


def arrays(values: list[Any]) -> list[np.ndarray[Any, Any]] | None:
    """Return a case's tensors as arrays; None for sequences, optionals and exotic types."""
    found = []
    for value in values:
        if isinstance(value, TensorProto):
            value = onnx.numpy_helper.to_array(value)
        if not isinstance(value, np.ndarray | np.generic) or value.dtype.name not in DTYPES:
            return None
        found.append(np.asarray(value))
    return found


def node_cases() -> Iterator[Any]:
    """Yield the cases of one supported operator each, on plain tensors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # making the references divides by zero on purpose
        cases = load_model_tests(kind="node")
    for case in sorted(cases, key=lambda case: case.name):
        kinds = {node.op_type for node in case.model.graph.node}
        plain = all(arrays(side) is not None for data in case.data_sets for side in data)
        left_out = any(re.search(pattern, case.name) for pattern in UNSUPPORTED_CASES)
        if len(kinds) == 1 and kinds <= {*SUPPORTED_OPERATORS} and plain and not left_out:
            yield pytest.param(case, id=case.name.removeprefix("test_"))


CASES = list(node_cases())


@pytest.mark.parametrize("case", CASES)
def test_node(case: Any) -> None:
    prepared = HiosBackend.prepare(case.model, "CPU")
    try:
        for inputs, reference in case.data_sets:
            outputs = prepared.run(arrays(inputs))
            Runner.assert_similar_outputs(arrays(reference), outputs, case.rtol, case.atol)
    finally:
        prepared.close()


def test_every_supported_operator_has_a_case() -> None:
    tested = {node.op_type for param in CASES for node in param.values[0].model.graph.node}
    assert tested == {*SUPPORTED_OPERATORS}


def test_every_operator_of_the_light_networks_is_supported() -> None:
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    networks = [onnx.load(folder / f"light_{name}.onnx") for name in LIGHT_NETWORKS]
    used = {node.op_type for network in networks for node in network.graph.node}
    assert "Conv" in used
    assert used <= {*SUPPORTED_OPERATORS}


def test_the_document_lists_just_the_supported_operators() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)
    assert listed == sorted(SUPPORTED_OPERATORS)
    for reason in UNSUPPORTED_CASES.values():
        assert reason in text


class TestBackend:
    def model(self, *shape: object) -> onnx.ModelProto:
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        given_shape = helper.make_tensor_value_info("s", TensorProto.INT64, [2])
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b"])
        nodes = [
            helper.make_node("Relu", ["x"], ["r"]),
            helper.make_node("Reshape", ["r", "s"], ["y"]),
        ]
        graph = helper.make_graph(nodes, "g", [given, given_shape], [output])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])

    def test_shapes_follow_the_inputs(self) -> None:
        prepared = HiosBackend.prepare(self.model("n", 6))
        try:
            for rows, shape in ((2, (3, 4)), (4, (6, 4)), (4, (12, 2))):
                x = np.linspace(-1, 1, rows * 6, dtype=np.float32).reshape(rows, 6)
                outputs = prepared.run([x, np.array(shape)])
                np.testing.assert_array_equal(outputs[0], np.maximum(x, 0).reshape(shape))
                np.testing.assert_array_equal(outputs["y"], outputs[0])
        finally:
            prepared.close()

    def test_two_devices_give_the_same(self) -> None:
        x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(2, 6)
        inputs = [x, np.array([4, 3])]
        (one,) = HiosBackend.run_model(self.model(2, 6), inputs)
        (two,) = HiosBackend.run_model(self.model(2, 6), inputs, devices=2)
        np.testing.assert_array_equal(one, two)

    def test_one_node(self) -> None:
        node = helper.make_node("Add", ["a", "b"], ["c"])
        outputs = HiosBackend.run_node(node, [np.float32([1, 2]), np.float32([3, 4])])
        np.testing.assert_array_equal(outputs.c, [4, 6])

    def test_wrong_number_of_inputs(self) -> None:
        with pytest.raises(InputMismatch, match="takes 2: x, s"):
            HiosBackend.run_model(self.model(2, 6), [np.zeros((2, 6), np.float32)])

    def test_unknown_operator(self) -> None:
        node = helper.make_node("Bernoulli", ["a"], ["c"])
        with pytest.raises(UnsupportedModel, match="Bernoulli"):
            HiosBackend.run_node(node, [np.float32([1, 2])])

    def test_devices(self) -> None:
        assert HiosBackend.supports_device("CPU")
        assert not HiosBackend.supports_device("CUDA")
