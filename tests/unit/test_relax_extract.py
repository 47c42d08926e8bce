"""What the operator graph of a network looks like, corner cases first."""

import numpy as np
import pytest
import tvm
from onnx import helper
from relax_fixtures import onnx_model, reference, relative_error, run_sequential
from tvm import relax, tirx

from hios.errors import UnsupportedModel
from relay_passes import compile_graph, resolve_target
from relay_passes.extract import extract_graph
from relay_passes.offset_factor import OFFSET_ELEMENTS
from relay_passes.pipeline import lowering_pipeline
from relay_passes.straight_line import tensor_constant


def values(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def node(kind, inputs, outputs, **attrs):
    return helper.make_node(kind, inputs.split(), outputs.split(), **attrs)


def agrees(model, *inputs):
    compiled = compile_graph(model)
    compiled.graph.validate()
    outs, refs = run_sequential(compiled, inputs), reference(model, inputs)
    for out, ref in zip(outs, refs, strict=True):
        assert out.shape == ref.shape
        assert relative_error(out, ref) < 1e-5
    return compiled


def test_several_inputs_and_outputs_keep_names_and_order():
    model = onnx_model(
        [node("Add", "b:0 a/x", "s"), node("Exp", "s", "e/1"), node("Mul", "s a/x", "m")],
        {"b:0": (2, 3), "a/x": (2, 3)},
        {"m": (2, 3), "e/1": (2, 3)},
    )
    graph = agrees(model, values(2, 3), values(2, 3, seed=1)).graph
    assert [graph.tensors[t].name for t in graph.inputs] == ["b:0", "a/x"]
    assert [graph.tensors[t].name for t in graph.outputs] == ["m", "e/1"]


def test_split_has_many_outputs_in_one_operator():
    model = onnx_model(
        [node("Split", "x", "a b c", axis=1), node("Mul", "a c", "y")],
        {"x": (2, 9)},
        {"y": (2, 3), "b": (2, 3)},
    )
    graph = agrees(model, values(2, 9)).graph
    assert max(len(op.outputs) for op in graph.operators) == 3


def test_reshape_is_a_view_that_carries_the_dependency():
    model = onnx_model(
        [node("MatMul", "x v", "a"), node("Reshape", "a s", "b"), node("MatMul", "b w", "y")],
        {"x": (2, 3, 4)},
        {"y": (6, 5)},
        {"s": np.array([6, 4], dtype=np.int64), "v": values(4, 4), "w": values(4, 5)},
    )
    graph = agrees(model, values(2, 3, 4)).graph
    assert len(graph.operators) == 2
    views = [t for t in graph.tensors if t.alias_of is not None]
    assert [v.shape for v in views] == [(6, 4)]
    assert list(graph.edges()) == [(0, 1)]


def test_output_may_be_input_constant_view_or_twice_the_same():
    x = relax.Var("x", relax.TensorType((2, 3), "float32"))
    weight = np.arange(4, dtype=np.int64)
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit(relax.op.nn.relu(x))
            view = builder.emit(relax.op.reshape(y, (3, 2)))
            out = builder.emit_output(
                relax.Tuple([x, tensor_constant(weight), y, view, y, relax.Tuple([x])])
            )
        builder.emit_func_output(out)
    compiled = compile_graph(builder.get())
    graph = compiled.graph
    data = values(2, 3)
    outs = run_sequential(compiled, [data])
    expected = [data, weight, np.maximum(data, 0), np.maximum(data, 0).reshape(3, 2)]
    for out, ref in zip(outs, [*expected, expected[2], data], strict=True):
        assert np.array_equal(out, ref)
    assert outs[1].dtype == np.int64
    assert graph.outputs[0] == graph.inputs[0]
    assert graph.outputs[2] == graph.outputs[4]
    assert graph.is_weight(graph.outputs[1])


def test_a_model_without_operators():
    x = relax.Var("x", relax.TensorType((2,), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            out = builder.emit_output(x)
        builder.emit_func_output(out)
    compiled = compile_graph(builder.get())
    assert compiled.graph.operators == ()
    assert compiled.graph.outputs == compiled.graph.inputs


def test_equal_operators_share_one_kernel_and_key():
    w = {f"w{i}": values(16, 16, 3, 3, seed=i) for i in range(3)}
    nodes = [node("Conv", f"t{i} w{i}", f"t{i + 1}", pads=[1, 1, 1, 1]) for i in range(3)]
    nodes[0].input[0], nodes[2].output[0] = "x", "y"
    compiled = agrees(
        onnx_model(nodes, {"x": (1, 16, 9, 9)}, {"y": (1, 16, 9, 9)}, w), values(1, 16, 9, 9)
    )
    convolutions = [op for op in compiled.graph.operators if op.kind == "conv2d"]
    assert len(convolutions) == 3
    assert len({op.kernel for op in convolutions}) == 1
    assert len({op.attrs["key"] for op in convolutions}) == 1
    assert len({op.name for op in convolutions}) == 3


def test_key_is_of_the_kernel_not_of_names():
    def compiled(name, weight):
        model = onnx_model(
            [node("Conv", f"{name} {weight}", "y", name=name)],
            {name: (1, 3, 8, 8)},
            {"y": (1, 4, 6, 6)},
            {weight: values(4, 3, 3, 3)},
        )
        return {op.attrs["key"] for op in compile_graph(model).graph.operators}

    assert compiled("x", "w") == compiled("image", "kernel")


def test_no_kernel_keeps_a_scratch_buffer_and_all_take_offsets(light_network):
    from hios_tvm.models.light import load_light
    from relay_passes.frontends import import_model

    target = resolve_target("llvm")
    with target:
        mod = lowering_pipeline(target)(import_model(load_light("squeezenet")).mod)
    kernels = [f for _, f in mod.functions_items() if isinstance(f, tirx.PrimFunc)]
    assert len(kernels) > 10
    for func in kernels:
        assert all(b.scope() != "global" for b in func.body.block.alloc_buffers)
        assert all(p.ty.offset_factor == OFFSET_ELEMENTS for p in func.params)
    extracted = extract_graph(mod, "squeezenet")
    padded = [op for op in extracted.graph.operators if op.attrs["workspaces"]]
    assert padded, "padding of 3×3 convolutions is an explicit scratch tensor"
    for op in padded:
        scratch = extracted.graph.tensors[op.outputs[-1]]
        assert scratch.consumers == ()
        assert op.bytes_written == sum(extracted.graph.tensors[t].bytes for t in op.outputs[:-1])


def test_kernels_run_at_an_offset_in_an_arena():
    compiled = compile_graph(onnx_model([node("Exp", "x", "y")], {"x": (5, 7)}, {"y": (5, 7)}))
    (op,) = compiled.graph.operators
    arena = tvm.runtime.empty((4096,), "uint8")
    x, y = (arena._create_view((5, 7), "float32", offset) for offset in (256, 1024))
    data = values(5, 7)
    x.copyfrom(data)
    compiled.library.module[op.kernel](x, y)
    assert relative_error(y.numpy(), np.exp(data)) < 1e-6


def test_control_flow_is_refused_by_name():
    x = relax.Var("x", relax.TensorType((2,), "float32"))
    c = relax.Var("c", relax.TensorType((), "bool"))
    branches = [
        relax.SeqExpr([relax.BindingBlock([relax.VarBinding(y, op(x, x))])], y)
        for op, y in (
            (relax.op.add, relax.Var("a", x.ty)),
            (relax.op.multiply, relax.Var("b", x.ty)),
        )
    ]
    builder = relax.BlockBuilder()
    with builder.function("main", [x, c]):
        builder.emit_func_output(builder.emit(relax.If(c, *branches)))
    with pytest.raises(UnsupportedModel, match="control flow"):
        compile_graph(builder.get())


def test_progress_rises_to_one():
    seen = []
    compile_graph(
        onnx_model([node("Exp", "x", "y")], {"x": (2,)}, {"y": (2,)}),
        progress=lambda phase, done: seen.append((phase, done)),
    )
    done = [d for _, d in seen]
    assert done == sorted(done)
    assert done[0] == 0.0
    assert done[-1] == 1.0


def test_kernels_can_be_exported_and_loaded(tmp_path):
    compiled = compile_graph(onnx_model([node("Exp", "x", "y")], {"x": (8,)}, {"y": (8,)}))
    path = tmp_path / "kernels.so"
    compiled.library.export(path)
    assert [p.name for p in tmp_path.iterdir()] == ["kernels.so"]
    module = tvm.runtime.load_module(str(path))
    x = tvm.runtime.tensor(values(8))
    y = tvm.runtime.empty((8,), "float32")
    module[compiled.graph.operators[0].kernel](x, y)
    assert relative_error(y.numpy(), np.exp(x.numpy())) < 1e-6


def test_export_into_a_missing_folder_is_a_storage_error(tmp_path):
    from hios.errors import StorageError

    compiled = compile_graph(onnx_model([node("Exp", "x", "y")], {"x": (8,)}, {"y": (8,)}))
    with pytest.raises(StorageError, match="cannot write"):
        compiled.library.export(tmp_path / "missing" / "kernels.so")
