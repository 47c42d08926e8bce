"""Tuning one tiny kernel end to end: search, database, comparison, compilation."""

import json
import os
import socket
import subprocess
import sys
import time
import warnings

import numpy as np
import onnx
import pytest
import tvm
from command_line import runner
from onnx import TensorProto, helper, numpy_helper

import hios_tvm
from hios.errors import DeviceUnavailable, InvalidOption, MissingFile
from hios_tvm.cli.options import parse_duration, parse_tracker
from relay_passes import compile_graph, resolve_target
from relay_passes.tuning import TuneOptions, TuningDatabase, TuningNote, tune, tuning_tasks
from relay_passes.tuning.database import Verdict
from relay_passes.tuning.workload import func_key


def one_convolution() -> onnx.ModelProto:
    """Return two convolutions in a row."""
    rng = np.random.default_rng(3)
    weights = {name: rng.standard_normal((8, 8, 1, 1), dtype=np.float32) / 3 for name in ("a", "b")}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["y"]),
        helper.make_node("Conv", ["y", "b"], ["z"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 12, 12])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 8, 12, 12])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


def convolution(tasks):
    return next(task for task in tasks if "conv2d" in task.name)


@pytest.fixture(scope="module")
def target():
    return resolve_target("llvm")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, target):
    """A database after two trials of each, its report, and the folder of the cache."""
    root = tmp_path_factory.mktemp("tuned")
    tasks = [convolution(tuning_tasks(one_convolution(), target))]
    database = TuningDatabase(root, target, create=True)
    seen = []
    report = tune(
        tasks,
        database,
        TuneOptions(2, batch=2, population=4),
        None,
        lambda *told: seen.append(told),
    )
    return root, report, seen


def test_a_search_tells_what_it_did(tuned):
    root, report, seen = tuned
    assert (report.trials, report.stopped) == (2, "trials")
    assert report.failed < 2
    (kernel,) = report.kernels
    assert kernel.count >= 1
    assert kernel.trials == 2
    assert kernel.verdict.error <= 1e-5
    assert set(kernel.verdict.rule_us) == {str(n) for n in {1, len(os.sched_getaffinity(0))}}
    fractions = [done for _, done in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    (folder,) = root.iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["tvm_version"] == tvm.__version__
    assert len((folder / "records.json").read_text().splitlines()) == 2 - report.failed


def test_a_search_that_is_done_does_nothing(tuned, target):
    root, report, _ = tuned
    tasks = [convolution(tuning_tasks(one_convolution(), target))]
    again = tune(tasks, TuningDatabase(root, target), TuneOptions(2 - report.failed))
    assert (again.trials, again.stopped) == (0, "trials")
    assert again.kernels[0].verdict == report.kernels[0].verdict


def run(database, cache=False):
    x = np.random.default_rng(0).standard_normal((1, 8, 12, 12), dtype=np.float32)
    with hios_tvm.build(
        one_convolution(), devices=1, costs="analytic", select=False, cache=cache, database=database
    ) as model:
        keys = {op.attrs["key"] for op in model.graph.operators if op.kind == "conv2d"}
        return keys, model.run({"x": x})["z"]


def decide(root, target, is_faster):
    """Write a verdict about the tuned kernel."""
    database = TuningDatabase(root, target)
    task = convolution(tuning_tasks(one_convolution(), target))
    found = database.best(task.workload)
    key = f"{func_key(task.rule)}-{func_key(found)}"
    database.store_verdict(key, Verdict({"1": 2.0}, {"1": 1.0}, 0.0, is_faster))


def test_a_faster_kernel_is_taken_and_gives_the_same_numbers(tuned, target, tmp_path):
    root = tuned[0]
    plain_keys, plain = run(None, tmp_path)
    decide(root, target, True)
    keys, found = run(root, tmp_path)
    assert keys != plain_keys
    assert np.linalg.norm(found - plain) <= 1e-5 * np.linalg.norm(plain)
    # The cache of builds knows that the database has changed.
    decide(root, target, False)
    keys, found = run(root, tmp_path)
    assert keys == plain_keys
    assert np.array_equal(found, plain)


def test_what_was_never_compared_is_compared_now(tuned, target):
    root = tuned[0]
    verdicts = next(root.iterdir()) / "verdicts.json"
    verdicts.unlink()
    run(root)
    assert verdicts.is_file()
    assert len(TuningDatabase(root, target).verdicts) == 1


def test_records_of_another_target_are_left_alone(tuned):
    other = {"kind": "llvm", "mcpu": "x86-64-v2"}
    with pytest.warns(TuningNote, match=r"no records for target .*x86-64-v2.*; our rules' kernels"):
        compile_graph(one_convolution(), other, database=tuned[0])


def test_a_database_that_is_not_there(tmp_path):
    with pytest.raises(MissingFile, match=r"no tuning database .* make one with `hios tune"):
        compile_graph(one_convolution(), database=tmp_path / "nowhere")


def test_an_unfinished_line_is_dropped(tuned, target, tmp_path):
    folder = next(tuned[0].iterdir())
    copy = tmp_path / folder.name
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    records = copy / "records.json"
    whole = records.read_bytes()
    records.write_bytes(whole + whole[: len(whole) // 3])
    with pytest.warns(TuningNote, match="ends in an unfinished line"):
        TuningDatabase(tmp_path, target)
    assert records.read_bytes() == whole
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TuningDatabase(tmp_path, target)


def test_the_command_and_a_tracker(tmp_path, capfd, monkeypatch):
    """Two trials on a machine lent by a tracker, both on loopback."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    onnx.save(one_convolution(), tmp_path / "tiny.onnx")
    hios = runner(capfd)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = f"127.0.0.1:{port}"
    tracker = subprocess.Popen(
        [
            *(sys.executable, "-m", "tvm.exec.rpc_tracker", "--host", "127.0.0.1"),
            *("--port", str(port), "--port-end", str(port + 1)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "tvm.exec.rpc_server", "--host", "127.0.0.1"),
            *("--tracker", place, "--key", "here", "--no-fork"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        command = ["tune", tmp_path / "tiny.onnx", "--trials", "2", "--batch", "2", "--json"]
        command += ["--population", "4"]
        command += ["--database", tmp_path / "db", "--tracker", place, "--key", "here"]
        until = time.monotonic() + 300
        while True:
            code, out, err = hios(*command)
            if code == 0 or time.monotonic() > until:
                break
            assert place in err
            time.sleep(0.5)
        assert code == 0, err
        told = json.loads(out)
        assert told["trials"] == 2
        measured = [k["verdict"] for k in told["kernels"] if k["verdict"] is not None]
        assert measured
        assert all("remote" in verdict["rule_us"] for verdict in measured)
    finally:
        for process in (server, tracker):
            process.terminate()
            process.wait()


def test_no_tracker_answers():
    from relay_passes.tuning.search import Tracker, _runner

    with pytest.raises(DeviceUnavailable, match=r"no RPC tracker answers at 127\.0\.0\.1:9"):
        _runner(Tracker("127.0.0.1", 9, "nobody"))


@pytest.mark.parametrize("text", ["", "m", "10 m", "-3", "0", "1d", "1e3"])
def test_a_budget_that_is_none(text):
    with pytest.raises(InvalidOption, match="--budget"):
        parse_duration(text)


def test_budgets_and_trackers():
    assert [parse_duration(t) for t in ("90", "90s", "10m", "1.5h")] == [90.0, 90.0, 600.0, 5400.0]
    assert parse_tracker("host:9190") == ("host", 9190)
    for text in ("host", ":9190", "host:", "host:0", "host:70000"):
        with pytest.raises(InvalidOption, match="--tracker"):
            parse_tracker(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "2"], "--database DIR is needed"),
        (["--database", "d", "--tracker", "h:1"], "--key KEY belong together"),
        (["--database", "d", "--budget", "soon"], "--budget 'soon' is no duration"),
        (["--database", "d", "--cache", "c", "--no-cache"], "--no-cache: give one of them"),
    ],
)
def test_mistakes_are_one_line(capfd, arguments, message):
    code, out, err = runner(capfd)("tune", "light:squeezenet", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
