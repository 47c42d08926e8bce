"""The schedule inside an ordinary Relax executable."""

import numpy as np
import pytest
import tvm
from relax_fixtures import relative_error, run_sequential
from tvm import relax

from hios.costs.analytic import AnalyticCosts
from hios.errors import ArtifactMismatch, InvalidOption
from hios.ir import CompiledGraph, Machine, OpGraph, Schedule
from hios.schedulers.run import schedule
from hios_tvm.models.light import load_light
from relay_passes import resolve_target
from relay_passes.frontends import import_model
from relay_passes.partition import read_embedded, register_pipeline, relax_pipeline
from relay_passes.straight_line import tensor_constant


@pytest.fixture(scope="module")
def machine():
    from hios_tvm.machines import resolve_machine

    return resolve_machine(2, None, None)


@pytest.fixture(scope="module")
def squeezenet(machine):
    seen = []

    def decide(graph):
        seen.append(graph)
        return schedule("hios-lp", graph, machine, AnalyticCosts(graph, machine))

    mod = import_model(load_light("squeezenet")).mod
    pipeline = relax_pipeline(decide, machine)
    executable = tvm.compile(mod, target=resolve_target("llvm"), relax_pipeline=pipeline)
    assert len(seen) == 1
    return executable


class Library:
    def __init__(self, module):
        self.module = _ByName(module)


class _ByName:
    def __init__(self, module):
        self._module = module

    def __getitem__(self, name):
        return self._module.get_function(name, query_imports=True)


def embedded(executable):
    graph_json, schedule_json, weights, module = read_embedded(executable)
    graph = OpGraph.from_json(graph_json)
    found = Schedule.from_json(schedule_json)
    return CompiledGraph(graph, Library(module), weights), found


def test_virtual_machine_runs_it_unchanged_and_so_do_its_kernels(
    squeezenet, light_network, tmp_path
):
    network = light_network("squeezenet")
    path = tmp_path / "squeezenet.so"
    squeezenet.export_library(str(path))
    for executable in (squeezenet, tvm.runtime.load_module(str(path))):
        vm = relax.VirtualMachine(executable, tvm.cpu())
        out = vm["main"](tvm.runtime.tensor(network.inputs[0])).numpy()
        assert relative_error(out, network.references[0]) < 1e-4
        compiled, found = embedded(executable)
        assert {p.op for p in found.placements} == {op.id for op in compiled.graph.operators}
        assert np.array_equal(run_sequential(compiled, [network.inputs[0]])[0], out)


def test_machine_and_manifest_are_embedded(squeezenet, machine):
    vm = relax.VirtualMachine(squeezenet, tvm.cpu())
    assert Machine.from_json(str(vm["hios_machine"]())) == machine


def double():
    x = relax.Var("x", relax.TensorType((2, 3), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit(relax.op.multiply(x, relax.const(2.0)))
            out = builder.emit_output(
                relax.Tuple([y, tensor_constant(np.arange(5, dtype=np.int64))])
            )
        builder.emit_func_output(out)
    return builder.get()


def test_registered_by_name_and_dtypes_survive():
    from hios_tvm.machines import resolve_machine

    place = resolve_machine(1, None, None)

    def make():
        return relax_pipeline(
            lambda graph: schedule("sequential", graph, place, AnalyticCosts(graph, place)), place
        )

    register_pipeline(make, "hios-test")
    executable = tvm.compile(
        double(), target=resolve_target("llvm"), relax_pipeline=relax.get_pipeline("hios-test")
    )
    compiled, _ = embedded(executable)
    x = np.ones((2, 3), np.float32)
    outs = run_sequential(compiled, [x])
    assert np.array_equal(outs[0], 2 * x)
    assert outs[1].dtype == np.int64


def test_ordinary_executable_carries_no_schedule():
    executable = tvm.compile(double(), target="llvm")
    with pytest.raises(ArtifactMismatch, match="carries no schedule"):
        read_embedded(executable)


def test_pipeline_needs_a_target():
    with pytest.raises(InvalidOption, match="needs a target"):
        relax_pipeline(lambda graph: None)(double())
