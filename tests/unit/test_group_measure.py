"""Groups measured with real kernels: what is timed is what runs, and it is right."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from small_kernels import build_kernels, cpu_machine, random_compiled

from cost_model.candidates import candidate_groups, identity_of
from cost_model.collect import CollectOptions, collect
from cost_model.lane import Job, Lane
from cost_model.noise import noise_floor
from cost_model.repeats import repeat_some
from cost_model.store import RecordStore, read_records
from cost_model.visits import by_group
from graph_executor.artifact import save_artifact
from graph_executor.group_graph import InputPool, group_graph
from graph_executor.group_measure import CpuGroupTimer
from graph_executor.group_timer import GroupOptions, time_group
from graph_executor.measure_service import GroupAnswer, GroupRequest, MeasureService
from graph_executor.second_process import SecondProcess
from hios.errors import DeviceUnavailable, ExecutionError, InvalidOption
from hios.ir import DeviceId, Placement, Schedule
from hios.ir.serial import decode_json, encode_json
from hios_tvm.cli.main import main

CORES = tuple(sorted(os.sched_getaffinity(0)))[:2]
MACHINE = cpu_machine([CORES], 2)
DEVICE = MACHINE.devices[0]
# Drift says nothing on a machine that tests share.
QUICK = GroupOptions(rounds=3, most_rounds=4, budget_ms=1.0, drift=1e9, longest_s=60.0)


@pytest.fixture(scope="module")
def compiled():
    found = random_compiled(11, build_kernels(), operators=30)
    graph = found.graph
    operators = tuple(replace(op, attrs={"key": f"{op.id:016x}"}) for op in graph.operators)
    return replace(found, graph=replace(graph, operators=operators))


@pytest.fixture(scope="module")
def groups(compiled):
    found = list(candidate_groups(compiled.graph, 0))
    assert len(found) > 20
    return found


@pytest.fixture(scope="module")
def artifact(compiled, tmp_path_factory):
    order = compiled.graph.topological_order()
    schedule = Schedule("sequential", tuple(Placement(op, DeviceId(0)) for op in order))
    path = tmp_path_factory.mktemp("artifact") / "small.hios"
    return save_artifact(path, compiled, MACHINE, schedule)


@pytest.fixture
def timer(compiled):
    made = CpuGroupTimer(compiled, DEVICE)
    yield made
    made.close()


def larger(groups):
    return next(c for c in groups if len(c) >= 2 and max(map(len, c)) >= 2)


def test_all_is_measured_of_pairs_and_of_larger_groups(timer, groups):
    for chains in (groups[0], larger(groups)):
        timing = time_group(timer, chains, QUICK)
        count = sum(map(len, chains))
        assert timing.reject == ""
        assert len(timing.solo_us) == len(timing.narrow_us) == count
        samples = [*timing.solo_us, *timing.narrow_us, timing.serial_us, timing.group_us]
        assert {len(times) for times in samples} <= {3, 4}
        assert all(time > 0 for times in samples for time in times)
        for serial, *solo in zip(timing.serial_us, *timing.solo_us, strict=True):
            assert serial > max(solo) * 0.01
        assert timer.widths(chains) == (
            (1,) * len(chains) if len(CORES) <= len(chains) else timer.widths(chains)
        )
        assert timer.order(chains) == ()


def test_longer_work_takes_longer(compiled, groups):
    """The serial run of a chain of many operators is about as much longer as it has operators."""
    timer = CpuGroupTimer(compiled, DEVICE)
    options = replace(QUICK, rounds=20, most_rounds=20)
    try:
        pair = time_group(timer, groups[0], options)
        four = time_group(timer, [chain * 4 for chain in groups[0]], options)
    finally:
        timer.close()
    assert np.median(four.serial_us) > 1.5 * np.median(pair.serial_us)


def test_the_small_graph_repeats_operators_on_their_own_buffers(compiled, groups):
    chains = larger(groups)
    made = group_graph(compiled, chains, InputPool())
    graph = made.compiled.graph
    graph.validate()
    assert graph.inputs == ()
    count = sum(map(len, chains))
    assert len(made.serial) == len(made.group) == len(made.solo) == count
    assert len(graph.operators) == 3 * count + 2
    written = [t for op in graph.operators for t in op.outputs]
    assert len(written) == len(set(written))
    stages = made.schedule.stages()[DeviceId(0)]
    assert [len(stage) for stage in stages] == [1, len(chains), 1]
    # Within a part operators read each other as in the large graph, never another part.
    part_of = {op: part for part in (made.serial, made.group, made.solo) for op in part}
    for before, after in graph.edges():
        assert part_of.get(before) == part_of.get(after)
    inner = sum(
        compiled.graph.producer(t) in chain
        for chain in chains
        for op in chain
        for t in set(compiled.graph.operators[op].inputs)
    )
    assert len([e for e in graph.edges() if part_of.get(e[0]) == made.group]) <= inner


def test_results_of_both_halves_are_compared(timer, groups):
    run = timer.open(groups[0])
    try:
        assert run.difference() == ""
        # Make the kernel of a grouped operator see other data than that of the serial run.
        wide, _ = run._both()
        program = wide._backend
        graph = run._graph
        victim = graph.compiled.graph.operators[graph.group[0]].outputs[0]
        spoil = program._memory.array(DeviceId(0), victim)

        def poison():
            spoil[...] = 7.0

        program._steps[0].append(poison)
        assert "operator" in run.difference()
    finally:
        run.close()


def test_a_failing_kernel_and_a_closed_run_are_told(compiled, groups):
    wrong = tuple(replace(op, kernel="nobody") for op in compiled.graph.operators)
    broken = replace(compiled, graph=replace(compiled.graph, operators=wrong))
    timer = CpuGroupTimer(broken, DEVICE)
    timing = time_group(timer, groups[0], QUICK)
    assert "nobody" in timing.reject
    assert timing.group_us == ()
    timer.close()
    timer = CpuGroupTimer(compiled, DEVICE)
    run = timer.open(groups[0])
    run.close()
    run.close()
    with pytest.raises(InvalidOption, match="closed"):
        run.rounds(1)
    with pytest.raises(InvalidOption, match="no operators"):
        time_group(timer, [])
    with pytest.raises(DeviceUnavailable):
        CpuGroupTimer(compiled, replace(DEVICE, kind="cuda"))


def test_groups_that_take_too_long_are_rejected(timer, groups):
    timing = time_group(timer, groups[0], replace(QUICK, longest_s=1e-6))
    assert timing.reject.startswith("too long")


class Drifting:
    """A timer whose sentinel takes longer each time it is asked."""

    def __init__(self, timer, steps):
        self._timer = timer
        self._steps = iter(steps)
        self.asked = 0

    def __getattr__(self, name):
        return getattr(self._timer, name)

    def sentinel(self, count):
        self.asked += 1
        return [next(self._steps)] * count


def test_a_machine_that_changes_is_waited_for_and_then_rejected(timer, groups):
    options = replace(QUICK, drift=0.02, attempts=3)
    # before, after, asked again: 10 % longer twice, then steady.
    steady = Drifting(timer, [100, 110, 110, 100, 90, 90, 100, 101])
    timing = time_group(steady, groups[0], options)
    assert (timing.reject, timing.attempts) == ("", 3)
    assert timing.drift == pytest.approx(0.01)
    by_chance = time_group(Drifting(timer, [100, 103, 100]), groups[0], options)
    assert (by_chance.reject, by_chance.attempts) == ("", 1)
    never = time_group(Drifting(timer, [100, 110, 110] * 3), groups[0], options)
    assert "sentinel changed by +10.0%" in never.reject
    assert len(never.group_us) >= 3  # kept, but not valid


def test_the_device_is_described(timer):
    facts = timer.device
    assert (facts.kind, facts.units) == ("cpu", len(CORES))
    assert facts.name
    assert facts.bandwidth_gb_s is None or facts.bandwidth_gb_s > 0


def jobs_of(groups):
    return [Job(0, chains) for chains in groups]


def lane_here(artifact, service=None):
    return Lane("here", service or MeasureService(DEVICE), lambda _model: artifact)


def test_a_collection_goes_on_where_it_was(compiled, groups, artifact, tmp_path):
    path = tmp_path / "g.jsonl"
    told = []
    options = CollectOptions(6, None, QUICK)
    graphs, models = [compiled.graph], ["small"]
    with RecordStore(path) as store:
        first = collect(
            graphs,
            models,
            jobs_of(groups[:4]),
            [lane_here(artifact)],
            store,
            options,
            lambda text, fraction: told.append((text, fraction)),
        )
    assert (first.valid, first.known, first.rejected) == (4, 0, 0)
    assert first.is_complete  # all candidates, though fewer than asked for
    assert [fraction for _, fraction in told] == sorted(fraction for _, fraction in told)
    with RecordStore(path) as store:
        second = collect(graphs, models, jobs_of(groups), [lane_here(artifact)], store, options)
    assert (second.valid, second.known) == (2, 4)
    records = read_records(path).records
    assert len(records) == 6
    assert len({record.group_id for record in records}) == 6
    for record, chains in zip(records, groups, strict=False):
        assert record.source.groups == chains
        assert record.source.model == "small"
        keys = tuple(sorted(tuple(op.key for op in chain) for chain in record.chains))
        assert keys == identity_of(compiled.graph, chains)
        assert all(op.solo_us and op.narrow_us for op in record.ops)


class Restless(MeasureService):
    """Says of each group that the machine changed meanwhile."""

    def measure(self, request):
        answer = decode_json(super().measure(request), GroupAnswer, ExecutionError, "answer")
        timing = replace(answer.timing, reject="the sentinel changed by +3.0%")
        return encode_json(replace(answer, timing=timing)).decode()


def test_rejected_groups_are_kept_with_their_reason(compiled, groups, artifact, tmp_path):
    path = tmp_path / "g.jsonl"

    def gather(service, options):
        with RecordStore(path) as store:
            lanes = [lane_here(artifact, service)]
            jobs = jobs_of(groups[:3])
            return collect([compiled.graph], ["small"], jobs, lanes, store, options)

    slow = gather(None, CollectOptions(1, None, replace(QUICK, longest_s=1e-6)))
    assert (slow.valid, slow.rejected, slow.reasons) == (0, 3, {"too long": 3})
    # These will take as long the next time ...
    assert gather(None, CollectOptions(3, None, QUICK)).valid == 0
    path.unlink()
    options = CollectOptions(3, None, QUICK)
    moved = gather(Restless(DEVICE), options)
    assert (moved.valid, moved.reasons) == (0, {"the machine changed meanwhile": 3})
    # ... but the machine may be steady by then.
    again = gather(None, options)
    assert (again.valid, again.known) == (3, 0)
    assert [record.valid for record in read_records(path).records] == [False] * 3 + [True] * 3


def test_a_budget_ends_it(compiled, groups, artifact, tmp_path):
    with RecordStore(tmp_path / "g.jsonl") as store:
        made = collect(
            [compiled.graph],
            ["small"],
            jobs_of(groups),
            [lane_here(artifact)],
            store,
            CollectOptions(len(groups), 1e-9, QUICK),
        )
    assert (made.valid, made.is_complete) == (0, False)


class Dying(MeasureService):
    """Measures twice, then is gone."""

    left = 2

    def measure(self, request):
        if self.left == 0:
            raise ExecutionError("the measuring server is gone")
        self.left -= 1
        return super().measure(request)


def test_other_lanes_take_over_from_one_that_dies(compiled, groups, artifact, tmp_path):
    path = tmp_path / "g.jsonl"
    options = CollectOptions(8, None, QUICK)
    lanes = [lane_here(artifact, Dying(DEVICE)), lane_here(artifact)]
    with RecordStore(path) as store:
        made = collect([compiled.graph], ["small"], jobs_of(groups), lanes, store, options)
    assert (made.valid, made.known) == (8, 0)
    records = read_records(path).records
    # What the dying lane could not do was done by the other one.
    first = {identity_of(compiled.graph, chains) for chains in groups[:8]}
    assert {identity_of(compiled.graph, record.source.groups) for record in records} >= first
    with (
        RecordStore(tmp_path / "h.jsonl") as store,
        pytest.raises(ExecutionError, match="gone"),
    ):
        collect(
            [compiled.graph],
            ["small"],
            jobs_of(groups),
            [lane_here(artifact, Dying(DEVICE))],
            store,
            options,
        )
    assert len(read_records(tmp_path / "h.jsonl").records) == 2


def test_another_process_measures_some_groups_again(compiled, groups, artifact, tmp_path):
    path = tmp_path / "g.jsonl"
    options = CollectOptions(60, None, QUICK)
    graphs, models = [compiled.graph], ["small"]
    with RecordStore(path) as store:
        collect(graphs, models, jobs_of(groups[:60]), [lane_here(artifact)], store, options)
    records = read_records(path).records
    assert noise_floor(records) is None
    due = [record for record in records if int(record.group_id, 16) % 20 == 0]
    assert due, "none of these groups is one of the twentieth; take more"
    with SecondProcess(DEVICE) as other, RecordStore(path) as store:
        assert other.pid != os.getpid()
        lane = lane_here(artifact, other)
        assert repeat_some(graphs, models, records, lane, store, options) == len(due)
        with pytest.raises(ExecutionError, match="operator 999"):
            other.measure(encode_json(GroupRequest(str(artifact), ((999,),), QUICK)).decode())
    after = read_records(path).records
    noise = noise_floor(after)
    assert noise is not None
    assert noise.pairs == len(due)
    assert {record.session for record in after[: len(records)]} != {after[-1].session}
    with SecondProcess(DEVICE) as other, RecordStore(path) as store:
        lane = lane_here(artifact, other)  # nothing left to do, so nothing is even opened
        assert repeat_some(graphs, models, after, lane, store, options) == 0


def test_every_group_is_visited_so_often(artifact, tmp_path, capsys):
    path = tmp_path / "g.jsonl"
    command = [
        "collect", "--models", str(artifact), "--groups", "5", "--out", str(path), "--devices",
        "cpu:0", "--visits", "2", "--rounds", "3", "--drift", "1000", "--no-repeat", "--json",
    ]  # fmt: skip
    assert main(command) == 0
    (told,) = json.loads(capsys.readouterr().out)["devices"]
    assert (told["valid"], told["known"], told["complete"]) == (10, 0, True)
    groups = by_group(read_records(path).records)
    assert [len(visits) for visits in groups.values()] == [2] * 5
    assert main(command) == 0
    (told,) = json.loads(capsys.readouterr().out)["devices"]
    assert (told["valid"], told["known"]) == (0, 5)


def test_a_process_that_dies_is_told(artifact, groups):
    with SecondProcess(DEVICE) as other:
        other.open(str(artifact))
        request = encode_json(GroupRequest(str(artifact), groups[0], QUICK)).decode()
        answer = decode_json(other.measure(request), GroupAnswer, ExecutionError, "answer")
        assert answer.timing.reject == ""
        os.kill(other.pid, signal.SIGKILL)
        with pytest.raises(ExecutionError, match="died"):
            other.measure(request)


def test_requests_are_checked(artifact):
    service = MeasureService(DEVICE)
    with pytest.raises(InvalidOption, match="open it first"):
        service.measure(encode_json(GroupRequest(str(artifact), ((0,),), QUICK)).decode())
    service.open(str(artifact))
    with pytest.raises(InvalidOption, match="operator 1000"):
        service.measure(encode_json(GroupRequest(str(artifact), ((1000,),), QUICK)).decode())
    with pytest.raises(InvalidOption, match="request to measure"):
        service.measure("no request")
    service.close()


def test_killing_a_collection_loses_at_most_the_running_group(artifact, tmp_path):
    path = tmp_path / "g.jsonl"
    command = [
        sys.executable, "-m", "hios_tvm", "collect", "--models", str(artifact), "--groups", "500",
        "--out", str(path), "--devices", "cpu:0", "--no-repeat", "--json",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    running = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if path.exists() and path.read_bytes().count(b"\n") >= 3:
                break
            assert running.poll() is None, running.stderr.read().decode()
            time.sleep(0.02)
        # A second collector of the same file is refused, and told by whom.
        second = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert second.returncode == 2
        assert f"is being written by process {running.pid}" in second.stderr
    finally:
        running.kill()
        running.communicate()
    found = read_records(path)
    assert len(found.records) >= 3
    assert len(found.damaged) <= 1
    assert all(damage.is_torn for damage in found.damaged)
