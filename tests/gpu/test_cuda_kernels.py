"""Each family of CUDA kernels on a real GPU, against float64 numpy."""

import numpy as np
import pytest
import tvm
from convolution import convolve

pytest.importorskip("relay_passes", reason="TVM's compiler is not packed here")

from tvm import relax

from relay_passes import compile_graph
from relay_passes.straight_line import tensor_constant

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not tvm.cuda(0).exist, reason="no NVIDIA GPU here"),
]

FAMILIES = {
    # name: (inputs, convolution weight or None, attributes)
    "conv3x3": ((1, 64, 35, 35), (96, 64, 3, 3), {"padding": (1, 1, 1, 1)}),
    "conv1x1": ((2, 192, 17, 17), (128, 192, 1, 1), {}),
    "first": ((1, 3, 75, 75), (32, 3, 3, 3), {"strides": (2, 2)}),
    "dilated": ((1, 32, 21, 19), (40, 32, 3, 3), {"dilation": (2, 2), "padding": (2, 2, 2, 2)}),
    "grouped": ((1, 96, 14, 14), (112, 24, 1, 1), {"groups": 4}),
    "depthwise": ((1, 144, 28, 28), (144, 1, 5, 5), {"groups": 144, "padding": (2, 2, 2, 2)}),
}


@pytest.fixture(scope="module")
def architecture():
    """Return the architecture of the first GPU, as a target."""
    major, minor = tvm.cuda(0).compute_version.split(".")
    return f"cuda:sm_{major}{minor}"


def run(compiled, *inputs):
    """Run the operators of a graph one after another on the first GPU."""
    device, graph = tvm.cuda(0), compiled.graph
    values = {k: tvm.runtime.tensor(np.asarray(v), device) for k, v in compiled.params.items()}
    values |= {k: tvm.runtime.tensor(v, device) for k, v in zip(graph.inputs, inputs, strict=True)}

    def value(tensor):
        facts = graph.tensors[tensor]
        if tensor not in values:
            values[tensor] = value(facts.alias_of)._create_view(facts.shape, facts.dtype, 0)
        return values[tensor]

    for op in graph.operators:
        for tensor in op.outputs:
            facts = graph.tensors[tensor]
            values[tensor] = tvm.runtime.empty(facts.shape, facts.dtype, device)
        compiled.library.module[op.kernel](*(value(t) for t in (*op.inputs, *op.outputs)))
    device.sync()
    return [value(tensor).numpy() for tensor in graph.outputs]


@pytest.mark.parametrize("name", FAMILIES)
def test_convolutions(name, architecture) -> None:
    shape, weight, attrs = FAMILIES[name]
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal(shape, dtype=np.float32), rng.standard_normal(weight, dtype="f")
    builder = relax.BlockBuilder()
    data = relax.Var("x", relax.TensorType(shape, "float32"))
    with builder.function("main", [data]):
        with builder.dataflow():
            out = builder.emit_output(relax.op.nn.conv2d(data, tensor_constant(w), **attrs))
        builder.emit_func_output(out)
    wanted = convolve(
        x,
        w,
        attrs.get("strides", (1, 1)),
        attrs.get("padding", (0, 0, 0, 0)),
        attrs.get("dilation", (1, 1)),
        attrs.get("groups", 1),
    )
    (found,) = run(compile_graph(builder.get(), architecture), x)
    assert np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < 1e-5


@pytest.mark.parametrize("name", ["light:squeezenet", "light:shufflenet", "light:inception_v1"])
def test_networks(name, architecture) -> None:
    import onnxruntime

    from hios_tvm.models.reference import load_model_reference

    model = load_model_reference(name)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    port = session.get_inputs()[0]
    x = np.random.default_rng(0).standard_normal(port.shape, dtype=np.float32)
    wanted = session.run(None, {port.name: x})[0]
    (found,) = run(compile_graph(model, architecture), x)
    assert np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < 1e-5
