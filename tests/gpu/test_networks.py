"""Whole networks on a GPU: the numbers of the sequential run, bit for bit, however scheduled."""

from pathlib import Path

import numpy as np
import pytest
from gpu_networks import FOLDER, names

from benchmarks.gpu.networks import has_all_weights, reference_of
from graph_executor.executor import ExecutorOptions, GraphExecutor, random_inputs
from hios.costs.analytic import AnalyticCosts
from hios.schedulers import schedule
from hios_tvm.sources import resolve_model

WAYS = [
    (devices, streams, scheduler, mode)
    for devices, streams, scheduler in (
        (1, 1, "sequential"),
        (1, 2, "ios"),
        (1, 4, "nimble"),
        (2, 1, "hios-lp"),
        (2, 2, "hios-lp"),
        (2, 4, "heft"),
    )
    for mode in ("graph", "eager")
]


def run_as(compiled, place, scheduler, mode, inputs, runs=1, poisoned=True):
    """Return the outputs of the last run, or of every run where `inputs` is a list."""
    graph = compiled.graph
    decided = schedule(scheduler, graph, place, AnalyticCosts(graph, place))
    options = ExecutorOptions(mode=mode, is_poisoned=poisoned)
    with GraphExecutor(compiled, place, decided, options) as executor:
        return [executor.run(values) for values in inputs for _ in range(runs)]


def same(one, other):
    return all(one[name].tobytes() == other[name].tobytes() for name in one)


@pytest.fixture(scope="module")
def sequential(compiled, machine):
    """Return a function from a network to its inputs and sequential outputs, kept."""
    kept = {}

    def get(name):
        if name not in kept:
            inputs = random_inputs(compiled(name).graph, 3)
            place = machine(1, 1)
            kept[name] = (
                inputs,
                run_as(compiled(name), place, "sequential", "eager", [inputs])[0],
            )
        return kept[name]

    return get


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way)))
@pytest.mark.parametrize("name", names())
def test_every_way_gives_the_sequential_bits(compiled, machine, sequential, name, way):
    devices, streams, scheduler, mode = way
    inputs, wanted = sequential(name)
    assert all(np.isfinite(array).all() for array in wanted.values())
    for found in run_as(
        compiled(name), machine(devices, streams), scheduler, mode, [inputs], runs=3
    ):
        assert same(found, wanted)


@pytest.mark.parametrize("name", names())
def test_two_logical_devices_on_one_gpu(compiled, machine, sequential, name):
    inputs, wanted = sequential(name)
    place = machine(2, 2, one_gpu=True)
    assert place.shares_hardware
    (found,) = run_as(compiled(name), place, "hios-lp", "graph", [inputs])
    assert same(found, wanted)


@pytest.mark.parametrize("name", names()[:1])
def test_a_thousand_replays_with_changing_inputs(compiled, machine, name):
    graph = compiled(name).graph
    inputs = [random_inputs(graph, seed) for seed in range(20)]
    wanted = run_as(compiled(name), machine(1, 1), "sequential", "eager", inputs)
    place = machine(2, 4)
    decided = schedule("hios-lp", graph, place, AnalyticCosts(graph, place))
    with GraphExecutor(compiled(name), place, decided) as executor:
        for turn in range(1000):
            assert same(executor.run(inputs[turn % 20], copy=False), wanted[turn % 20]), turn


@pytest.mark.parametrize("name", names())
def test_the_numbers_are_those_of_the_reference(compiled, machine, name):
    """ONNX Runtime on the CPU, with the same weights; TF32 rounds factors to ten bits."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime to compare with")
    if not FOLDER or not has_all_weights(Path(FOLDER, name)):
        pytest.skip("nothing to compare with: weights drawn anew, or compiled here")
    model = resolve_model(reference_of(Path(FOLDER, name)))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    inputs = random_inputs(compiled(name).graph, 5)
    wanted = session.run(None, inputs)
    (found,) = run_as(compiled(name), machine(1, 2), "hios-lp", "graph", [inputs])
    tolerance = 1e-2 if name.endswith("_tf32") else 1e-4
    for array, other in zip(found.values(), wanted, strict=True):
        error = np.linalg.norm(array - other) / np.linalg.norm(other)
        print(f"{name}: relative error {error:.1e}")
        assert error < tolerance
