"""The command line in this process, and a small network to point it at."""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hios_tvm.cli.main import main

Hios = Callable[..., tuple[int, str, str]]


def runner(capfd) -> Hios:
    """Return a function that runs `hios` and gives (exit code, standard output and error).

    The output is caught at the file descriptors: what native code prints counts too.
    """

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


def small_network(batch: int | str = 1) -> onnx.ModelProto:
    """Return a network of two branches of convolutions: 1×3×16×16 to 1×10."""
    rng = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {}

    def weight(name: str, *shape: int) -> str:
        weights[name] = rng.standard_normal(shape, dtype=np.float32) / 4
        return name

    nodes = [
        helper.make_node("Conv", ["data", weight("stem", 8, 3, 3, 3)], ["s"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["s"], ["t"]),
        helper.make_node("Conv", ["t", weight("left", 8, 8, 3, 3)], ["l"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["t", weight("right", 8, 8, 1, 1)], ["r"]),
        helper.make_node("Concat", ["l", "r"], ["c"], axis=1),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", weight("dense", 10, 16)], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [batch, 3, 16, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 10])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model
