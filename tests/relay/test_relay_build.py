"""`relay.build` in our pass context: same kernels, the plan inside, results bit for bit."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import tvm
from relay_modules import (
    chain_with_shared_storage,
    inception_block,
    views_and_tuples,
    with_free_weights,
)
from tvm import relay
from tvm.contrib.graph_executor import GraphModule
from tvm.relay.backend import Executor

import hios_tvm
from graph_executor.embedded import read_embedded
from graph_executor.executor import ExecutorOptions, random_inputs
from hios.ir import Schedule

MODULES = [views_and_tuples, inception_block, chain_with_shared_storage, with_free_weights]
POISONED = ExecutorOptions(is_poisoned=True)


def build(mod, devices=2, **options):
    with hios_tvm.pass_context(opt_level=3, devices=devices, scheduler="hios-lp"):
        return relay.build(mod, target="llvm", **options)


def without_notes(graph_json):
    graph = json.loads(graph_json)
    for node in graph["nodes"]:
        for name in [name for name in node.get("attrs", {}) if name.startswith("hios_")]:
            del node["attrs"][name]
    return graph


def source_of(factory):
    """Return the LLVM IR of the kernels; TVM writes addresses of objects into its labels."""
    return re.sub("0x[0-9a-f]+", "0x", factory.lib.get_source())


def by_tvm(factory, inputs):
    module = GraphModule(factory["default"](tvm.cpu()))
    module.run(**inputs)
    return [module.get_output(i).numpy() for i in range(module.get_num_outputs())]


def assert_runs_like_tvm(factory, source=None):
    with hios_tvm.GraphExecutor(source or factory, options=POISONED) as executor:
        inputs = random_inputs(executor.graph)
        for _ in range(2):
            found = list(executor.run(inputs).values())
        expected = by_tvm(factory, inputs)
        assert len(found) == len(expected)
        for own, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(own, other)


@pytest.mark.parametrize("make", MODULES)
def test_kernels_and_graph_are_those_of_a_build_without_the_pass(make):
    with_pass = build(make())
    with tvm.transform.PassContext(opt_level=3):
        without = relay.build(make(), target="llvm")
    assert without_notes(with_pass.graph_json) == json.loads(without.graph_json)
    assert source_of(with_pass) == source_of(without)
    assert sorted(with_pass.function_metadata.keys()) == sorted(without.function_metadata.keys())


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("make", MODULES)
def test_outputs_are_bit_identical_to_the_graph_executor(make, devices):
    assert_runs_like_tvm(build(make(), devices))


def test_the_plan_is_there_before_the_context_is_left():
    with hios_tvm.pass_context(devices=2):
        factory = relay.build(inception_block(), target="llvm")
        embedded = read_embedded(factory)
    assert len(embedded.schedule.placements) == len(embedded.compiled.graph.operators)
    assert [device.name for device in embedded.machine.devices] == ["cpu:0", "cpu:1"]


def test_every_operator_tells_its_place_in_the_graph_json():
    factory = build(inception_block())
    nodes = [node["attrs"] for node in json.loads(factory.graph_json)["nodes"] if "attrs" in node]
    schedule = Schedule.from_json(nodes[0]["hios_schedule"])
    told = {int(n["hios_op"]): (int(n["hios_device"]), int(n["hios_stream"])) for n in nodes}
    assert told == {p.op: (p.device, p.stream) for p in schedule.placements}


def test_both_devices_work_and_copies_are_made():
    with hios_tvm.pass_context(devices=2, scheduler="hios-lp"):
        factory = relay.build(inception_block(64, 56), target="llvm")
    with hios_tvm.GraphExecutor(factory, options=POISONED) as executor:
        assert executor.schedule.devices_used() == (0, 1)
        assert executor.plan.events > 0
    assert_runs_like_tvm(factory)


def test_views_have_no_kernel_and_weights_no_producer():
    graph = read_embedded(build(views_and_tuples())).compiled.graph
    views = [tensor for tensor in graph.tensors if tensor.alias_of is not None]
    assert {tensor.shape for tensor in views} == {(8, 8)}
    assert all(op.kernel for op in graph.operators)
    assert [op.kind for op in graph.operators if len(op.outputs) == 2] == ["split"]
    assert sum(graph.is_weight(t.id) for t in graph.tensors) == 2


def test_an_exported_library_loads_with_its_plan(tmp_path):
    factory = build(inception_block())
    path = tmp_path / "block.so"
    factory.export_library(str(path))
    loaded = tvm.runtime.load_module(str(path))
    assert read_embedded(loaded).schedule == read_embedded(factory).schedule
    assert_runs_like_tvm(factory, loaded)


def test_an_exported_library_runs_in_a_new_process(tmp_path):
    factory = build(views_and_tuples())
    factory.export_library(str(tmp_path / "views.so"))
    x = np.random.default_rng(3).standard_normal((1, 64), dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    program = (
        "import sys, numpy, tvm, hios_tvm\n"
        "loaded = tvm.runtime.load_module(sys.argv[1] + '/views.so')\n"
        "with hios_tvm.GraphExecutor(loaded) as executor:\n"
        "    outputs = executor.run({'x': numpy.load(sys.argv[1] + '/x.npy')})\n"
        "numpy.savez(sys.argv[1] + '/found.npz', *outputs.values())\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=120)
    with np.load(tmp_path / "found.npz") as found:
        for i, expected in enumerate(by_tvm(factory, {"x": x})):
            np.testing.assert_array_equal(found[f"arr_{i}"], expected)


def test_parameters_may_come_apart():
    factory = build(inception_block())
    triple = (factory.get_graph_json(), factory.get_lib(), factory.get_params())
    assert_runs_like_tvm(factory, triple)
    saved = relay.save_param_dict(factory.get_params())
    assert_runs_like_tvm(factory, (*triple[:2], saved))


def test_parameters_may_be_linked_into_the_kernels():
    factory = build(inception_block(), executor=Executor("graph", {"link-params": True}))
    assert not factory.get_params()
    assert_runs_like_tvm(factory)


def test_a_saved_module_builds_to_the_same_schedule():
    mod = inception_block()
    again = tvm.ir.load_json(tvm.ir.save_json(mod))
    first, second = read_embedded(build(mod)), read_embedded(build(again))
    assert first.schedule == second.schedule
    assert first.compiled.graph == second.compiled.graph


def test_params_given_to_relay_build_become_weights():
    params = {"w": np.random.default_rng(5).standard_normal((4, 8)).astype("float32")}
    factory = build(with_free_weights(), params=params)
    assert list(read_embedded(factory).compiled.graph.inputs) == [0]
    assert_runs_like_tvm(factory)


def test_an_artifact_of_a_factory_runs_again(tmp_path):
    factory = build(inception_block())
    with hios_tvm.build(factory, devices=2, costs="analytic", select=False) as model:
        inputs = random_inputs(model.graph)
        model.save(tmp_path / "block.hios")
        expected = by_tvm(factory, inputs)[0]
        np.testing.assert_array_equal(model.run(inputs)["output_0"], expected)
    with hios_tvm.load(tmp_path / "block.hios") as again:
        np.testing.assert_array_equal(again.run(inputs)["output_0"], expected)


def test_the_schedule_survives_further_instruments_and_options():
    names = []

    @tvm.instrument.pass_instrument
    class Listen:
        def run_before_pass(self, _mod, info):
            names.append(info.name)

    with hios_tvm.pass_context(
        opt_level=2, devices=2, instruments=[Listen()], disabled_pass=["AlterOpLayout"]
    ) as context:
        factory = relay.build(inception_block(), target="llvm")
    assert context.opt_level == 2
    assert "AlterOpLayout" not in names
    assert "FuseOps" in names
    assert_runs_like_tvm(factory)
