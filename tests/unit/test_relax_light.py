"""The light networks, lowered and run operator by operator, against ONNX Runtime."""

import numpy as np
import onnx
import pytest
from relax_fixtures import relative_error, run_sequential

from hios.errors import UnsupportedModel
from hios_tvm.models.light import LIGHT_NETWORKS, load_light


@pytest.mark.parametrize("name", LIGHT_NETWORKS)
def test_logits_agree_with_onnx_runtime(light_network, name):
    network = light_network(name)
    for x, ref in zip(network.inputs, network.references, strict=True):
        assert ref.std() > 0.1, "a flat reference proves nothing"
        (out,) = run_sequential(network.compiled, [x])
        assert out.shape == ref.shape
        assert relative_error(out, ref) <= 1e-3
    first, second = network.references[:2]
    assert relative_error(first, second) > 3e-3, "the reference must depend on the input"


@pytest.mark.parametrize("name", LIGHT_NETWORKS)
def test_graph_is_lean_and_described(light_network, name):
    network = light_network(name)
    graph = network.compiled.graph
    graph.validate()
    assert [graph.tensors[t].name for t in graph.inputs] == [network.input_name]
    kinds = {op.kind for op in graph.operators}
    assert "conv2d" in kinds
    # Batch norms, biases and activations are inside the convolutions.
    convolutions = sum(op.kind in ("conv2d", "depthwise") for op in graph.operators)
    assert len(graph.operators) <= 2.1 * convolutions + 11
    for op in graph.operators:
        assert op.bytes_read > 0
        assert op.bytes_written > 0
        assert op.launch["parallel_extent"] >= 1
        assert len(str(op.attrs["key"])) == 16
        assert (op.flops > 0) or op.kind in ("transpose", "concat", "copy")
    for tensor, data in network.compiled.params.items():
        assert graph.is_weight(tensor)
        assert data.shape == graph.tensors[tensor].shape
        assert str(data.dtype) == graph.tensors[tensor].dtype


def test_flops_count_the_network_not_the_tiles(light_network):
    graph = light_network("resnet50").compiled.graph
    useful = sum(op.flops for op in graph.operators if op.kind in ("conv2d", "dense"))
    # 4.1 billion multiply-adds, counted twice; 7×7, 3×3 and 1×1 kernels on a 224×224 image.
    assert useful == pytest.approx(8.2e9, rel=0.1)


def test_reseeding_is_deterministic_and_seeded():
    def weights(model):
        return [i.raw_data for i in model.graph.initializer]

    once, again, other = (load_light("squeezenet", seed) for seed in (0, 0, 1))
    assert once.SerializeToString() == again.SerializeToString()
    assert weights(once) != weights(other)
    assert not any(node.op_type in ("ConstantOfShape", "Softmax") for node in once.graph.node)
    onnx.checker.check_model(once)
    values = onnx.numpy_helper.to_array(once.graph.initializer[0])
    assert np.unique(values).size > 1


def test_unknown_light_network_is_named():
    with pytest.raises(UnsupportedModel, match="unknown light network 'lenet'"):
        load_light("lenet")
