"""Measuring on other machines, all of them this one: a tracker, two servers, a collector."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from itertools import combinations

import networkx
import psutil
import pytest
from small_kernels import build_kernels, cpu_machine, random_compiled

pytest.importorskip("tornado")
pytest.importorskip("cloudpickle")

from cost_model.store import read_records
from graph_executor.artifact import load_artifact, save_artifact
from graph_executor.group_timer import GroupOptions
from graph_executor.measure_service import GroupAnswer, GroupRequest, ServiceFacts
from graph_executor.tvm_runtime.rpc import RemoteService, count_servers
from hios.errors import DeviceUnavailable, ExecutionError, InvalidOption
from hios.ir import DeviceId, Placement, Schedule
from hios.ir.serial import decode_json, encode_json

CORES = tuple(sorted(os.sched_getaffinity(0)))[:2]
QUICK = GroupOptions(rounds=3, most_rounds=3, budget_ms=1.0, drift=1e9, longest_s=60.0)
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
KEY = "loopback"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end(process):
    """End a process with all that it started."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(30)
    process.kill()
    process.wait(30)
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()


def start(*command):
    return subprocess.Popen(
        [sys.executable, *command], env=ENVIRONMENT, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def tracker():
    from tvm.rpc.tracker import Tracker

    port = free_port()
    running = Tracker("127.0.0.1", port, port + 1, silent=True)
    try:
        yield ("127.0.0.1", port)
    finally:
        running.terminate()


@pytest.fixture(scope="module")
def servers(tracker):
    """Two servers of one command, one for each device."""
    process = start(
        "-m", "hios_tvm", "serve-measure", "--tracker", f"{tracker[0]}:{tracker[1]}", "--key", KEY,
        "--devices", "cpu:0,cpu:1" if len(CORES) > 1 else "cpu:0",
        "--host", "127.0.0.1", "--port", str(free_port()), "--json",
    )  # fmt: skip
    try:
        told = json.loads(process.stdout.readline())
        deadline = time.monotonic() + 60
        while count_servers(tracker, KEY) < len(told["servers"]):
            assert time.monotonic() < deadline, "the servers do not register"
            time.sleep(0.1)
        yield told["servers"]
    finally:
        end(process)
        process.stdout.close()


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    compiled = random_compiled(11, build_kernels(), operators=30)
    operators = tuple(
        replace(op, attrs={"key": f"{op.id:016x}"}) for op in compiled.graph.operators
    )
    compiled = replace(compiled, graph=replace(compiled.graph, operators=operators))
    order = compiled.graph.topological_order()
    schedule = Schedule("sequential", tuple(Placement(op, DeviceId(0)) for op in order))
    path = tmp_path_factory.mktemp("artifact") / "small.hios"
    return save_artifact(path, compiled, cpu_machine([CORES], 1), schedule)


def independent_pair(artifact):
    """Return two operators of an artifact of which neither needs the other."""
    graph = load_artifact(artifact).compiled.graph
    reached = networkx.transitive_closure_dag(networkx.DiGraph(list(graph.edges())))
    reached.add_nodes_from(op.id for op in graph.operators)
    pairs = combinations(graph.topological_order(), 2)
    return next((a, b) for a, b in pairs if not reached.has_edge(a, b))


def test_a_session_measures_and_tells_mistakes(tracker, servers, artifact):
    service = RemoteService(tracker, KEY)
    try:
        facts = decode_json(service.open(str(artifact)), ServiceFacts, ExecutionError, "facts")
        assert (facts.device.kind, facts.device.units) == ("cpu", servers[0]["cores"])
        assert service.open(str(artifact)) == encode_json(facts).decode()
        first, second = independent_pair(artifact)
        request = GroupRequest(str(artifact), ((first,), (second,)), QUICK)
        answer = decode_json(
            service.measure(encode_json(request).decode()), GroupAnswer, ExecutionError, "answer"
        )
        assert answer.timing.reject == ""
        assert len(answer.timing.group_us) == 3
        wrong = replace(request, groups=((first,), (999,)))
        with pytest.raises(ExecutionError, match="operator 999"):
            service.measure(encode_json(wrong).decode())
        with pytest.raises(InvalidOption, match="open it first"):
            service.measure(encode_json(replace(request, artifact="other")).decode())
    finally:
        service.close()
    with pytest.raises(ExecutionError, match="closed"):
        service.open(str(artifact))


def test_a_collection_uses_all_servers(tracker, servers, artifact, tmp_path):
    path = tmp_path / "g.jsonl"
    done = subprocess.run(
        [
            sys.executable, "-m", "hios_tvm", "collect", "--models", str(artifact), "--groups",
            "30", "--out", str(path), "--tracker", f"{tracker[0]}:{tracker[1]}", "--key", KEY,
            "--drift", "1e9", "--longest", "60s", "--json",
        ],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["devices"][0]
    assert told["valid"] >= 30
    records = read_records(path).records
    repeated = [r for r in records if int(r.group_id, 16) % 20 == 0]
    assert len({r.group_id for r in records}) == told["valid"]
    assert told["repeated"] == len(repeated) // 2
    assert {r.device.units for r in records} == {servers[0]["cores"]}


def test_no_process_stays_when_the_server_is_killed(tracker):
    process = start(
        "-m", "hios_tvm", "serve-measure", "--tracker", f"{tracker[0]}:{tracker[1]}", "--key",
        "short", "--host", "127.0.0.1", "--port", str(free_port()), "--json",
    )  # fmt: skip
    try:
        assert json.loads(process.stdout.readline())["key"] == "short"
        family = psutil.Process(process.pid).children(recursive=True)
        assert family
        process.kill()
        _, alive = psutil.wait_procs(family, timeout=30)
        assert alive == []
    finally:
        end(process)
        process.stdout.close()


def test_wrong_addresses_and_keys_are_told_at_once(tracker):
    begin = time.monotonic()
    with pytest.raises(DeviceUnavailable, match="no tracker answers"):
        RemoteService(("127.0.0.1", free_port()), KEY)
    with pytest.raises(DeviceUnavailable, match="'nobody' is free"):
        RemoteService(tracker, "nobody", patience_s=0.1)
    assert time.monotonic() - begin < 20
