"""The whole road for CUDA on a machine without a GPU, and real kernels on a model of one."""

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from command_line import runner, small_network
from cuda_model import ModelDriver

from graph_executor.artifact import load_artifact
from graph_executor.cuda.detect import count_devices
from graph_executor.executor import ExecutorOptions, GraphExecutor
from hios.costs.analytic import AnalyticCosts
from hios.ir import Device, DeviceId, Machine, Placement, Schedule
from hios.ir.presets import preset
from hios.schedulers import schedule
from relay_passes.cuda.packing import packed_format

needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc to compile with")
no_gpu = pytest.mark.skipif(count_devices() > 0, reason="this machine has a GPU")


@pytest.fixture
def hios(capfd):
    return runner(capfd)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "small.onnx"
    onnx.save(small_network(), path)
    return path


@needs_nvcc
@no_gpu
def test_compile_inspect_and_run_where_there_is_no_gpu(hios, model, tmp_path):
    artifact = tmp_path / "small.hios"
    code, out, err = hios(
        "compile",
        model,
        "-o",
        artifact,
        "--target",
        "cuda:sm_90",
        "--devices",
        2,
        "--machine",
        "2xA40-NVLink",
        "--scheduler",
        "hios-lp",
        "--json",
    )
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["device_names"] == ["cuda:0", "cuda:1"]
    assert [row["device"] for row in told["memory"]] == ["cuda:0", "cuda:1"]
    assert told["memory"][0]["arena_bytes"] >= told["memory"][0]["lower_bound_bytes"] > 0
    # Nothing was measured: the simulated times say why this schedule was kept.
    assert not any(note.startswith("measured_") for note in told["notes"])
    simulated = {k: v for k, v in told["notes"].items() if k.startswith("simulated_")}
    assert "simulated_sequential_us" in simulated
    assert told["makespan_us"] == pytest.approx(min(simulated.values()), abs=1e-3)

    loaded = load_artifact(artifact)
    assert packed_format((artifact / "kernels.so").read_bytes()) == "cubin"
    assert loaded.prediction is not None
    assert loaded.prediction.timeline is not None
    assert loaded.prediction.timeline.makespan_us == pytest.approx(told["makespan_us"])
    assert [use.device for use in loaded.prediction.memory] == ["cuda:0", "cuda:1"]

    code, out, _ = hios("inspect", artifact, "--operators", "--json")
    seen = json.loads(out)
    assert code == 0
    assert seen["memory"] == told["memory"]
    assert {row["device_name"] for row in seen["operators_list"]} <= {"cuda:0", "cuda:1"}
    code, out, _ = hios("inspect", artifact, "--operators")
    assert code == 0
    assert "cuda:0" in out

    for verb in ("run", "bench", "trace"):
        extra = ("-o", tmp_path / "x.png") if verb == "trace" else ()
        code, out, err = hios(verb, artifact, *extra)
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert "device 'cuda:0' is not there: no CUDA device on this machine" in err


@needs_nvcc
@no_gpu
def test_a_cuda_target_alone_means_gpus(hios, model, tmp_path):
    code, out, _ = hios(
        "compile",
        model,
        "-o",
        tmp_path / "x.hios",
        "--target",
        "cuda",
        "--streams",
        3,
        "--scheduler",
        "sequential",
        "--json",
        "--quiet",
    )
    told = json.loads(out)
    assert code == 0
    assert (told["device_names"], told["streams"]) == (["cuda:0"], 3)


@no_gpu
def test_mistakes_are_one_line(hios, model, tmp_path):
    target = tmp_path / "x.hios"
    for words, arguments in (
        ("use cuda:ARCH", ("--target", "cuda:sm_1")),
        ("cannot run on cpu devices", ("--target", "cuda", "--devices", "cpu:0")),
        ("is not there", ("--devices", "cuda:0", "--costs", "profile")),
        ("TF32 is a format of NVIDIA GPUs", ("--devices", "cpu:0", "--allow-tf32")),
    ):
        code, out, err = hios("compile", model, "-o", target, "--quiet", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert words in err
        assert not target.exists()


def test_artifacts_of_before_have_no_prediction(light_network, tmp_path):
    from graph_executor.artifact import save_artifact

    compiled = light_network("squeezenet").compiled
    machine = Machine("one", (Device("cpu:0", "cpu", cores=(0,)),))
    order = compiled.graph.topological_order()
    in_order = Schedule("sequential", tuple(Placement(op, DeviceId(0)) for op in order))
    folder = save_artifact(tmp_path / "x.hios", compiled, machine, in_order)
    found = load_artifact(folder)
    assert found.prediction is not None
    assert found.prediction.timeline is None
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]["prediction.json"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "prediction.json").unlink()
    assert load_artifact(folder).prediction is None


@pytest.mark.parametrize(
    ("scheduler", "mode", "one_gpu"),
    [("hios-lp", "graph", False), ("hios-lp", "eager", True), ("nimble", "graph", True)],
)
def test_real_kernels_give_the_sequential_bits(light_network, scheduler, mode, one_gpu):
    """Kernels for the CPU, launched by the CUDA backend on the model of CUDA."""
    network = light_network("squeezenet")
    compiled = replace_target(network.compiled)
    graph = compiled.graph
    inputs = {network.input_name: network.inputs[0]}
    one = Machine("one", (Device("cpu:0", "cpu", cores=(0,)),))
    order = graph.topological_order()
    in_order = Schedule("sequential", tuple(Placement(op, DeviceId(0)) for op in order))
    with GraphExecutor(network.compiled, one, in_order) as executor:
        (wanted,) = executor.run(inputs).values()
    place = preset("2xA40-NVLink", 3)
    if one_gpu:
        place = replace(place, devices=tuple(replace(d, hardware="cuda:0") for d in place.devices))
    decided = schedule(scheduler, graph, place, AnalyticCosts(graph, place))
    driver = ModelDriver(2, seed=11)
    options = ExecutorOptions(mode=mode, is_poisoned=True, driver=driver)
    with GraphExecutor(compiled, place, decided, options) as executor:
        for _ in range(2):
            (found,) = executor.run(inputs).values()
            assert np.array_equal(found, wanted)
        if mode == "graph":
            assert executor.graph_nodes >= len(graph.operators)
    assert driver.leaks == []


def replace_target(compiled):
    """The same kernels, said to be for CUDA: the model does not mind."""

    class Library:
        target = '{"kind":"cuda"}'
        tvm_version = compiled.library.tvm_version
        module = compiled.library.module

    return replace(compiled, library=Library())
