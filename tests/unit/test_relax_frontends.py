"""Reading models: what is accepted, and the one line that says what is wrong."""

import numpy as np
import pytest
import tvm
from onnx import helper
from relax_fixtures import onnx_model, reference, relative_error, run_sequential
from tvm import relax

from hios.errors import HiosError, InvalidOption, MissingFile, UnsupportedModel
from relay_passes import compile_graph


def one_node(kind="Relu", shape=(1, 3, 8, 8), **attrs):
    return onnx_model(
        [helper.make_node(kind, ["in/put:0"], ["y"], **attrs)], {"in/put:0": shape}, {"y": None}
    )


def refused(model, match, **options):
    with pytest.raises(HiosError, match=match) as caught:
        compile_graph(model, **options)
    assert "\n" not in str(caught.value)
    return caught.value


def test_onnx_file(tmp_path):
    path = tmp_path / "relu.onnx"
    path.write_bytes(one_node().SerializeToString())
    compiled = compile_graph(str(path))
    assert compiled.graph.name == "relu"
    assert [compiled.graph.tensors[t].name for t in compiled.graph.inputs] == ["in/put:0"]


def test_missing_file(tmp_path):
    error = refused(tmp_path / "no.onnx", "no such model file")
    assert isinstance(error, MissingFile)


def test_truncated_file(tmp_path):
    path = tmp_path / "cut.onnx"
    data = one_node().SerializeToString()
    path.write_bytes(data[: len(data) // 2])
    refused(path, "cut.onnx is damaged or not an ONNX file")


@pytest.mark.parametrize("content", [b"", b"\x00" * 40, b"<html></html>"])
def test_foreign_file(tmp_path, content):
    path = tmp_path / "page.onnx"
    path.write_bytes(content)
    refused(path, "damaged or not an ONNX file")


def test_unknown_suffix(tmp_path):
    path = tmp_path / "net.tflite"
    path.write_bytes(b"TFL3")
    refused(path, "unknown kind of model '.tflite'")


def test_foreign_object():
    refused({"a": 1}, "cannot compile an object of type builtins.dict")


def test_operator_unknown_to_the_importer_is_named():
    refused(
        onnx_model([helper.make_node("Det", ["x"], ["y"])], {"x": (2, 2)}, {"y": None}),
        "ONNX operator Det is not supported",
    )


def test_training_mode_is_refused():
    ones = np.ones(3, np.float32)
    node = helper.make_node("BatchNormalization", list("xabcd"), ["y"], training_mode=1)
    refused(
        onnx_model([node], {"x": (2, 3, 4, 4)}, {"y": None}, dict.fromkeys("abcd", ones), opset=15),
        "BatchNormalization.*training mode",
    )


def test_dynamic_dimension_needs_a_shape():
    model = one_node(shape=("batch", 3, "h", 8))
    refused(model, r"input 'in/put:0' is with dynamic dimension 0 \(batch\).*--shapes")
    compiled = compile_graph(model, shapes={"in/put:0": (2, 3, 5, 8)})
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 8), dtype=np.float32)
    assert relative_error(run_sequential(compiled, [x])[0], reference(model, [x])[0]) == 0


def test_shapes_are_checked():
    model = one_node(shape=("n", 3, 8, 8))
    refused(model, "no input; inputs are in/put:0", shapes={"data": (1, 3, 8, 8)})
    refused(model, "has 4 dimensions", shapes={"in/put:0": (1, 3, 8)})
    refused(model, "dimension 1 fixed to 3", shapes={"in/put:0": (1, 4, 8, 8)})


def test_bad_target():
    error = refused(one_node(), "target .* is not understood", target={"kind": "abacus"})
    assert isinstance(error, InvalidOption)


def relax_module(shape):
    x = relax.Var("x", relax.TensorType(shape, "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            out = builder.emit_output(relax.op.multiply(x, relax.const(2.0)))
        builder.emit_func_output(out)
    return builder.get()


def test_relax_module_and_its_json_file(tmp_path):
    mod = relax_module((2, 3))
    path = tmp_path / "double.json"
    path.write_text(tvm.ir.save_json(mod))
    x = np.ones((2, 3), np.float32)
    for model in (mod, path):
        (out,) = run_sequential(compile_graph(model), [x])
        assert np.array_equal(out, 2 * x)


def test_relax_symbolic_dimension():
    n = tvm.tirx.Var("n", "int64")
    mod = relax_module((n, 3))
    refused(mod, r"input 'x' is with dynamic dimension 0 \(n\)")
    compiled = compile_graph(mod, shapes={"x": (4, 3)})
    assert compiled.graph.tensors[compiled.graph.outputs[0]].shape == (4, 3)


def test_relax_file_of_something_else(tmp_path):
    path = tmp_path / "other.json"
    path.write_text('{"a": 1}')
    refused(path, "damaged or not a Relax module")


def test_module_without_main():
    refused(tvm.IRModule({}), "no Relax function 'main'")


def test_torch_file_without_torch(tmp_path):
    path = tmp_path / "net.pt2"
    path.write_bytes(b"PK\x03\x04")
    error = refused(path, "torch|PyTorch")
    assert isinstance(error, HiosError)


def test_caller_keeps_its_model():
    model = one_node("LRN", size=3)
    before = model.SerializeToString()
    compile_graph(model)
    assert model.SerializeToString() == before
    with pytest.raises(UnsupportedModel):
        compile_graph(
            onnx_model([helper.make_node("Det", ["x"], ["y"])], {"x": (2, 2)}, {"y": None})
        )
