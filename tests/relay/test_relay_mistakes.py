"""What cannot be scheduled or run is refused in one line that says what to do."""

import json

import numpy as np
import pytest
import tvm
from relay_modules import (
    inception_block,
    module,
    views_and_tuples,
    weight,
    with_free_weights,
)
from tvm import relay
from tvm.relay.backend import Executor, Runtime

import hios_tvm
from graph_executor.embedded import read_embedded
from graph_executor.graph_json import read_notes
from hios.errors import ArtifactMismatch, InputMismatch, InvalidOption, UnsupportedModel
from relay_passes import HIOSPartition


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"executor": Executor("aot")}, "executor 'aot'"),
        ({"runtime": Runtime("crt")}, "runtime 'crt'"),
    ],
)
def test_other_executors_and_runtimes_are_refused(options, told):
    with hios_tvm.pass_context(devices=2), pytest.raises(InvalidOption, match=told):
        relay.build(with_free_weights(), target="llvm", **options)


def test_the_virtual_machine_is_refused():
    with hios_tvm.pass_context(devices=2), pytest.raises(InvalidOption, match="graph"):
        relay.vm.compile(with_free_weights(), target="llvm")


def test_an_aot_factory_is_refused():
    with tvm.transform.PassContext(opt_level=3):
        factory = relay.build(with_free_weights(), target="llvm", executor=Executor("aot"))
    with pytest.raises(ArtifactMismatch, match="no graph executor factory"):
        hios_tvm.GraphExecutor(factory)


def test_a_factory_without_a_plan_is_refused():
    with tvm.transform.PassContext(opt_level=3):
        factory = relay.build(with_free_weights(), target="llvm")
    with pytest.raises(ArtifactMismatch, match="pass_context"):
        hios_tvm.GraphExecutor(factory)


@pytest.mark.parametrize("wrong", [3, "factory", (1, 2, 3), {}])
def test_other_objects_are_refused(wrong):
    with pytest.raises(ArtifactMismatch, match="no graph executor factory"):
        hios_tvm.GraphExecutor(wrong)


def test_costs_that_need_kernels_are_refused():
    with pytest.raises(InvalidOption, match="before they are"):
        hios_tvm.pass_context(devices=2, costs="profile")


def test_control_flow_is_refused():
    x = relay.var("x", shape=(), dtype="bool")
    y = relay.var("y", shape=(4,), dtype="float32")
    mod = module([x, y], relay.If(x, relay.exp(y), relay.tanh(y)))
    with pytest.raises(UnsupportedModel, match="control flow"):
        HIOSPartition(["cpu:0"])(mod)


def test_dynamic_shapes_are_refused():
    x = relay.var("x", shape=(relay.Any(), 4), dtype="float32")
    with pytest.raises(UnsupportedModel, match="static shape"):
        HIOSPartition(["cpu:0"])(module([x], relay.exp(x)))


def test_missing_parameters_are_named():
    with hios_tvm.pass_context(devices=1):
        factory = relay.build(inception_block(), target="llvm")
    params = dict(factory.get_params())
    del params["p3"]
    with pytest.raises(ArtifactMismatch, match="'p3'"):
        read_embedded((factory.get_graph_json(), factory.get_lib(), params))


def test_wrong_inputs_are_named():
    with hios_tvm.pass_context(devices=1):
        factory = relay.build(with_free_weights(), target="llvm")
    with (
        hios_tvm.GraphExecutor(factory) as executor,
        pytest.raises(InputMismatch, match="'w' is missing"),
    ):
        executor.run({"x": np.zeros((2, 8), "float32")})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda nodes: nodes.pop(),
        lambda nodes: nodes[-1]["attrs"].update(func_name="other"),
        lambda nodes: nodes[-1]["attrs"].pop("hios_op"),
        lambda nodes: nodes[-1]["inputs"].pop(),
    ],
)
def test_notes_about_another_graph_are_refused(spoil):
    with hios_tvm.pass_context(devices=1):
        factory = relay.build(views_and_tuples(), target="llvm")
    graph = json.loads(factory.graph_json)
    read_notes(json.dumps(graph))
    spoil(graph["nodes"])
    with pytest.raises(ArtifactMismatch, match="build again"):
        read_notes(json.dumps(graph))


def test_text_that_is_no_graph_is_refused():
    with pytest.raises(ArtifactMismatch, match="no graph JSON"):
        read_notes("[]")


def test_a_module_for_several_targets_is_refused():
    x = relay.var("x", shape=(4, 8), dtype="float32")
    on_gpu = relay.annotation.on_device(relay.nn.dense(x, weight(8, 8)), tvm.cuda(0))
    mod = module([x], relay.annotation.on_device(relay.exp(on_gpu), tvm.cpu(0)))
    targets = {"cpu": tvm.target.Target("llvm"), "cuda": tvm.target.Target("cuda -arch=sm_90")}
    with (
        hios_tvm.pass_context(devices=2),
        pytest.raises(UnsupportedModel, match="several targets"),
    ):
        relay.build(mod, target=targets)
