"""An executable of TVM's virtual machine that carries its schedule runs on our devices too."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import tvm
from small_kernels import cpu_machine
from tvm import relax

import graph_executor.tvm_runtime as runtime_module
from graph_executor.artifact import load_artifact, save_artifact
from graph_executor.embedded import EMBEDDING_FORMAT, read_embedded
from graph_executor.executor import ExecutorOptions, GraphExecutor
from hios.costs.analytic import AnalyticCosts
from hios.errors import ArtifactMismatch, InvalidOption
from hios.schedulers.run import schedule
from relay_passes import resolve_target
from relay_passes.partition import relax_pipeline

CORES = sorted(os.sched_getaffinity(0))
MACHINE = cpu_machine([(CORES[0],), (CORES[-1],)], 1)
X = np.random.default_rng(0).standard_normal((8, 32), dtype=np.float32)


def branches():
    """Two branches of dense layers over one input, joined at the end."""
    rng = np.random.default_rng(1)
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((8, 32), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            ends = []
            for _ in range(2):
                value = x
                for _ in range(2):
                    weight = relax.const(rng.standard_normal((32, 32)).astype("float32"))
                    value = builder.emit(relax.op.nn.relu(relax.op.matmul(value, weight)))
                ends.append(value)
            out = builder.emit_output(relax.op.add(*ends))
        builder.emit_func_output(out)
    return builder.get()


def build(machine):
    def decide(graph):
        return schedule("hios-lp", graph, MACHINE, AnalyticCosts(graph, MACHINE))

    return tvm.compile(
        branches(), resolve_target("llvm"), relax_pipeline=relax_pipeline(decide, machine)
    )


@pytest.fixture(scope="module")
def executable():
    return build(MACHINE)


def only(outputs):
    (value,) = outputs.values()
    return value


def test_executor_and_virtual_machine_agree_bit_for_bit(executable, tmp_path):
    path = tmp_path / "net.so"
    executable.export_library(str(path))
    for source in (executable, tvm.runtime.load_module(str(path))):
        vm = relax.VirtualMachine(source, tvm.cpu())
        expected = vm["main"](tvm.runtime.tensor(X)).numpy()
        with GraphExecutor(source, options=ExecutorOptions(is_poisoned=True)) as executor:
            assert executor.machine == MACHINE
            name = next(iter(executor.input_signature))
            np.testing.assert_array_equal(only(executor.run({name: X})), expected)


def test_embedded_graph_can_be_saved_as_an_artifact(executable, tmp_path):
    embedded = read_embedded(executable)
    save_artifact(tmp_path / "net.hios", embedded.compiled, MACHINE, embedded.schedule)
    loaded = load_artifact(tmp_path / "net.hios")
    with (
        GraphExecutor(loaded.compiled, loaded.machine, loaded.schedule) as one,
        GraphExecutor(executable) as other,
    ):
        name = next(iter(one.input_signature))
        np.testing.assert_array_equal(only(one.run({name: X})), only(other.run({name: X})))


def test_an_executable_without_machine_needs_one():
    executable = build(None)
    assert read_embedded(executable).machine is None
    with pytest.raises(InvalidOption, match="no machine"):
        GraphExecutor(executable)
    machine = cpu_machine([(CORES[0],), (CORES[-1],)], 4)
    with GraphExecutor(executable, machine) as executor:
        assert executor.schedule.scheduler == "hios-lp"


def test_what_carries_no_schedule_is_refused():
    plain = tvm.compile(branches(), resolve_target("llvm"))
    with pytest.raises(ArtifactMismatch, match="carries no schedule"):
        GraphExecutor(plain)
    with pytest.raises(ArtifactMismatch, match="a int is no executable"):
        GraphExecutor(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hios_manifest": json.dumps({"format": 99})}, "embedding format 99"),
        ({"hios_manifest": "[]"}, "embedded manifest"),
        ({"hios_graph": None}, "lacks hios_graph"),
        ({"hios_graph": "{}"}, "embedded graph"),
        ({"hios_schedule": "{}"}, "embedded schedule"),
        ({"hios_weights": []}, "carries 0 weights"),
    ],
)
def test_foreign_embeddings_say_what_is_wrong(executable, monkeypatch, change, message):
    value, module = runtime_module.open_executable(executable)
    assert json.loads(value("hios_manifest"))["format"] == EMBEDDING_FORMAT
    monkeypatch.setattr(
        runtime_module,
        "open_executable",
        lambda _: ((lambda name: change[name] if name in change else value(name)), module),
    )
    with pytest.raises(ArtifactMismatch, match=message):
        read_embedded(SimpleNamespace())
