"""The nine light networks through the stock `relay.build` with our pass."""

import numpy as np
import pytest

import hios_tvm
from graph_executor.embedded import read_embedded
from graph_executor.executor import ExecutorOptions
from hios.costs.analytic import AnalyticCosts
from hios_tvm.machines import resolve_machine
from hios_tvm.models.light import LIGHT_NETWORKS

# TVM 0.17 takes a minute and more to build each of these.
SLOW_TO_BUILD = {
    "vgg19",
    "densenet121",
    "bvlc_alexnet",
    "zfnet512",
    "resnet50",
    "inception_v1",
    "inception_v2",
}
NETWORKS = [
    pytest.param(name, marks=pytest.mark.full) if name in SLOW_TO_BUILD else name
    for name in LIGHT_NETWORKS
]


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_agree_with_both_references(name, light):
    network = light(name)
    embedded = read_embedded(network.factory)
    graph = embedded.compiled.graph
    reference = network.by_onnx_runtime
    for devices, streams, scheduler in [
        (1, 1, "sequential"),
        (1, 2, "nimble"),
        (2, 1, "hios-lp"),
        (2, 2, "hios-lp"),
    ]:
        machine = resolve_machine(devices, streams=streams)
        schedule = hios_tvm.schedule(graph, machine, AnalyticCosts(graph, machine), scheduler)
        with hios_tvm.GraphExecutor(
            embedded.compiled, machine, schedule, ExecutorOptions(is_poisoned=True)
        ) as executor:
            (found,) = executor.run({network.input_name: network.data}).values()
        np.testing.assert_array_equal(found, network.by_graph_executor)
        assert np.linalg.norm(found - reference) <= 1e-3 * np.linalg.norm(reference)


def test_the_embedded_schedule_runs(light):
    network = light("squeezenet")
    with hios_tvm.GraphExecutor(network.factory) as executor:
        assert executor.schedule.scheduler == "hios-lp"
        (found,) = executor.run({network.input_name: network.data}).values()
    np.testing.assert_array_equal(found, network.by_graph_executor)


def test_work_is_counted_whatever_the_layout(light):
    network = light("squeezenet")
    graph = read_embedded(network.factory).compiled.graph
    own = sum(op.flops for op in graph.operators if op.kind == "conv2d")
    expected = conv_flops(network.model)
    # Biases and activations that are fused into a convolution count as well.
    assert expected < own < 1.02 * expected


def conv_flops(model):
    """Count multiply-adds of convolutions from ONNX shapes, twice."""
    import onnx

    shapes = {}
    inferred = onnx.shape_inference.infer_shapes(model)
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        shapes[value.name] = [d.dim_value for d in value.type.tensor_type.shape.dim]
    weights = {i.name: list(i.dims) for i in model.graph.initializer}
    return sum(
        2.0 * np.prod(shapes[node.output[0]]) * np.prod(weights[node.input[1]][1:])
        for node in model.graph.node
        if node.op_type == "Conv"
    )
