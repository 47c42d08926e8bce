"""The verbs that compile and run, from a model file to pictures."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from command_line import runner, small_network

from graph_executor.artifact import load_artifact
from graph_executor.executor import random_inputs
from hios.defaults import DEFAULT_SCHEDULER


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model, an artifact of it, and a cache of its measurements."""
    where = tmp_path_factory.mktemp("cli")
    onnx.save(small_network(), where / "small.onnx")
    return where


@pytest.fixture
def hios(capfd, folder, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    return runner(capfd)


@pytest.fixture
def artifact(hios, folder):
    path = folder / "small.hios"
    if not path.exists():
        arguments = ("--devices", "cpu:0,cpu:1", "--no-select", "-o", path, "--json")
        code, out, err = hios("compile", folder / "small.onnx", *arguments)
        assert (code, err) == (0, "")
        told = json.loads(out)
        assert told["artifact"] == str(path)
        assert (told["scheduler"], told["devices"]) == (DEFAULT_SCHEDULER, 2)
        assert told["makespan_us"] >= told["lower_bound_us"] > 0
    return path


def test_run_gives_the_numbers_of_onnx_runtime(hios, artifact, folder):
    x = np.random.default_rng(1).standard_normal((1, 3, 16, 16), dtype=np.float32)
    np.savez(folder / "x.npz", data=x)
    arguments = ("--input", folder / "x.npz", "-o", folder / "y.npz", "--json")
    code, out, err = hios("run", artifact, *arguments)
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert [(row["name"], row["shape"]) for row in told["outputs"]] == [("logits", [1, 10])]
    session = onnxruntime.InferenceSession(
        small_network().SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (reference,) = session.run(None, {"data": x})
    assert np.ptp(reference) > 1e-3
    with np.load(folder / "y.npz") as found:
        np.testing.assert_allclose(found["logits"], reference, rtol=1e-4, atol=1e-5)


def test_run_draws_inputs_from_the_seed(hios, artifact, folder):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert hios("run", artifact, "--seed", seed, "-o", folder / f"{name}.npz")[0] == 0
    a, b, c = (np.load(folder / f"{name}.npz")["logits"] for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    graph = load_artifact(artifact).compiled.graph
    assert list(random_inputs(graph, 3)) == ["data"]


def test_run_compiles_a_model_with_dynamic_dimensions(hios, tmp_path):
    onnx.save(small_network("n"), tmp_path / "free.onnx")
    arguments = ("--shapes", "data:2x3x16x16", "--costs", "analytic", "--devices", 1, "--json")
    code, out, err = hios("run", tmp_path / "free.onnx", *arguments)
    assert (code, err) == (0, "")
    assert json.loads(out)["outputs"][0]["shape"] == [2, 10]


def test_bench_times_both_in_turn(hios, artifact):
    code, out, err = hios("bench", artifact, "--repeat", 6, "--warmup", 1, "--json")
    assert (code, err) == (0, "")
    base, ours = json.loads(out)["rows"]
    assert base["speedup"] == 1.0
    assert ours["name"].startswith(f"{DEFAULT_SCHEDULER}, ")
    for row in (base, ours):
        assert row["repeat"] == len(row["samples_us"]) == 6
        assert 0 < row["p10_us"] <= row["median_us"] <= row["p90_us"] <= row["p99_us"]
    assert ours["speedup_low"] <= ours["speedup"] <= ours["speedup_high"]
    code, out, _ = hios("bench", artifact, "--repeat", 3, "--alone")
    assert code == 0
    assert "median" in out
    assert "one after another" not in out


def test_bench_takes_another_schedule(hios, artifact, folder):
    saved = folder / "sequential.json"
    arguments = ("--scheduler", "sequential", "--save-schedule", saved)
    assert hios("schedule", artifact, *arguments)[0] == 0
    arguments = ("--load-schedule", saved, "--repeat", 3, "--alone", "--json")
    code, out, _ = hios("bench", artifact, *arguments)
    assert code == 0
    assert json.loads(out)["rows"][0]["name"] == "sequential, 1 device"


def test_trace_writes_prediction_and_measurement(hios, artifact, folder):
    png, trace = folder / "t.png", folder / "t.json"
    arguments = ("-o", png, "-o", trace, "--runs", 3, "--json")
    code, out, err = hios("trace", artifact, *arguments)
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["measured_us"] > 0
    assert told["predicted_us"] > 0
    assert png.read_bytes().startswith(b"\x89PNG")
    events = json.loads(trace.read_text())["traceEvents"]
    names = {e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert names == {f"{o} · cpu:{i}" for o in ("predicted", "measured") for i in (0, 1)}
    graph = load_artifact(artifact).compiled.graph
    slices = [event for event in events if event["ph"] == "X" and event["cat"] != "copy"]
    assert len(slices) == 2 * len(graph.operators)


def test_inspect_an_artifact(hios, artifact):
    code, out, err = hios("inspect", artifact, "--operators", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["scheduler"] == DEFAULT_SCHEDULER
    assert told["inputs"] == [{"name": "data", "shape": [1, 3, 16, 16], "dtype": "float32"}]
    kinds = {row["kind"]: row for row in told["kinds"]}
    assert kinds["conv2d"]["operators"] == 3
    # 2 · 16² · (3·8·9 + 8·8·9 + 8·8) for the convolutions, biases and activations apart.
    assert kinds["conv2d"]["flops"] >= 2 * 16 * 16 * (216 + 576 + 64)
    assert sum(row["operators"] for row in told["kinds"]) == told["operators"]
    assert all({"device", "stream"} <= row.keys() for row in told["operators_list"])
    code, out, _ = hios("inspect", artifact, "--operators")
    assert code == 0
    assert "conv2d" in out


def test_inspect_a_model_and_a_graph_file(hios, folder, tmp_path):
    code, out, _ = hios("inspect", folder / "small.onnx", "--json")
    assert code == 0
    assert json.loads(out)["width"] >= 2
    path = tmp_path / "g.json"
    path.write_text(
        '{"operators": [{"id": 5, "time_us": 2}, {"id": 7, "time_us": 3}], "edges": []}'
    )
    code, out, _ = hios("inspect", path, "--json")
    told = json.loads(out)
    assert (code, told["operators"], told["width"], told["time_us"]) == (0, 2, 2, 5.0)


def test_schedule_a_model_for_a_described_machine(hios, folder):
    arguments = ("--machine", "2xA40-NVLink", "--json")
    code, out, err = hios("schedule", folder / "small.onnx", *arguments)
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["device_names"] == ["cuda:0", "cuda:1"]
    assert told["makespan_us"] > 0


def test_compile_keeps_what_is_fastest(hios, folder):
    arguments = ("--devices", 2, "-o", folder / "kept.hios", "--json")
    code, out, err = hios("compile", folder / "small.onnx", *arguments)
    assert (code, err) == (0, "")
    notes = json.loads(out)["notes"]
    assert {f"measured_{DEFAULT_SCHEDULER}_us", "measured_sequential_us"} <= notes.keys()
    code, out, _ = hios("inspect", folder / "kept.hios")
    assert code == 0
