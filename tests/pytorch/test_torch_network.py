"""ONNX networks rebuilt in PyTorch give ONNX Runtime's answer; run by `make torch-test`."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from hios.errors import UnsupportedModel
from hios_tvm.contest import relative_error
from hios_tvm.engines.torch_network import torch_module, unsupported
from hios_tvm.models import zoo
from hios_tvm.models.light import load_light

torch = pytest.importorskip("torch")

# Small images and few channels where the network allows it: the operators are the same.
SMALL = {
    "inception_v3": (75, 0.25),
    "nasnet_mobile": (32, 0.5),
    "randwire_small": (32, 0.25),
    "squeezenet_bypass": (64, 1.0),
    "resnet50": (32, 0.25),
    "alexnet": (63, 0.25),
    "retinanet": (64, 0.25),
    "bert_base": (8, 0.25),
    "moe_block": (8, 0.25),
}


def both(model):
    """Return the outputs of PyTorch and of ONNX Runtime."""
    rng = np.random.default_rng(3)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    inputs = {i.name: rng.standard_normal(i.shape, dtype=np.float32) for i in session.get_inputs()}
    with torch.no_grad():
        found = torch_module(model)(*(torch.from_numpy(x) for x in inputs.values()))
    return [out.numpy() for out in found], session.run(None, inputs)


@pytest.mark.parametrize("name", SMALL)
def test_networks_of_the_zoo(name):
    size, width = SMALL[name]
    found, wanted = both(zoo.build(name, size, width=width))
    assert all(np.ptp(out) > 1e-6 for out in wanted)
    assert relative_error(found, wanted) < 1e-4


@pytest.mark.parametrize(
    "name", sorted({"densenet121", "inception_v1", "shufflenet", "squeezenet"})
)
def test_networks_of_the_onnx_package(name):
    found, wanted = both(load_light(name))
    assert relative_error(found, wanted) < 1e-4


def test_what_has_no_counterpart_is_named():
    graph = helper.make_graph(
        [helper.make_node("Hardmax", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    assert unsupported(model) == "no PyTorch counterpart here for Hardmax"
    with pytest.raises(UnsupportedModel, match="Hardmax"):
        torch_module(model)
