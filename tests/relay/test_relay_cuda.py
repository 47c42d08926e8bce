"""`relay.build` for CUDA on a machine without a GPU: plans, launches, kernels."""

import shutil

import pytest
import tvm
from relay_modules import inception_block, module
from tvm import relay

import hios_tvm
from graph_executor.embedded import read_embedded
from graph_executor.executor import ExecutorOptions
from hios.errors import DeviceUnavailable, MissingDependency

TARGET = "cuda -arch=sm_90"


@pytest.fixture
def keep_sources():
    """Keep CUDA sources as they are: plans need no compiled kernels."""
    name = "tvm_callback_cuda_compile"
    before = tvm.get_global_func(name, allow_missing=True)
    tvm.register_func(name, lambda code, *_: code, override=True)
    yield
    if before is not None:
        tvm.register_func(name, before, override=True)


@pytest.mark.parametrize("devices", [2, 4])
def test_plans_for_several_gpus_know_the_launches(devices, keep_sources):
    names = [f"cuda:{i}" for i in range(devices)]
    with hios_tvm.pass_context(opt_level=3, devices=names, scheduler="hios-lp"):
        factory = relay.build(inception_block(64, 56), target=TARGET)
    embedded = read_embedded(factory)
    graph = embedded.compiled.graph
    assert [device.name for device in embedded.machine.devices] == names
    assert graph.operators
    for operator in graph.operators:
        assert operator.launch["grid"] >= 1, operator.name
        assert 1 <= operator.launch["block"] <= 1024, operator.name
    with hios_tvm.GraphExecutor(factory, options=ExecutorOptions(backend="null")) as executor:
        assert executor.plan.devices == devices


def test_a_grid_is_that_of_the_largest_launch(keep_sources):
    x = relay.var("x", shape=(1024, 256), dtype="float32")
    with hios_tvm.pass_context(devices=["cuda:0"]):
        factory = relay.build(module([x], relay.exp(x)), target=TARGET)
    (operator,) = read_embedded(factory).compiled.graph.operators
    assert operator.launch["grid"] * operator.launch["block"] == 1024 * 256


def test_device_memory_between_the_launches_of_an_operator_is_told(keep_sources):
    # A scan launches several kernels; what they hand on comes from a pool per thread.
    x = relay.var("x", shape=(64, 1024), dtype="float32")
    with hios_tvm.pass_context(devices=["cuda:0"]):
        factory = relay.build(module([x], relay.cumsum(x, axis=1)), target=TARGET)
    (operator,) = read_embedded(factory).compiled.graph.operators
    assert operator.attrs["workspace_bytes"] > 0


def test_running_without_gpus_is_refused(keep_sources):
    with hios_tvm.pass_context(devices=["cuda:0", "cuda:1"]):
        factory = relay.build(inception_block(), target=TARGET)
    # Where the bindings of CUDA are not installed, they are what is missing first.
    with pytest.raises((DeviceUnavailable, MissingDependency), match=r"cuda:0|CUDA devices need"):
        hios_tvm.GraphExecutor(factory)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc compiles CUDA ahead of time")
def test_kernels_compile_for_hopper():
    x = relay.var("x", shape=(1024,), dtype="float32")
    with hios_tvm.pass_context(devices=["cuda:0", "cuda:1"]):
        factory = relay.build(module([x], relay.exp(x)), target=TARGET)
    assert "__global__" in factory.lib.imported_modules[0].get_source()
