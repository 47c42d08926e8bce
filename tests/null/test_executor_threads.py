"""Gates, teams of threads, and the cores they get."""

import os
import subprocess
import sys
import threading
import time

import pytest

import graph_executor.cpu.gates as gates_module
from graph_executor.cpu.affinity import assign_cores, device_cores, may_spin, split_cores
from graph_executor.cpu.gates import SleepGate, SpinGate, spinning_is_available
from graph_executor.cpu.team import CallFailed, Team
from graph_executor.plan import Launch, Plan, Record, StreamQueue, Wait
from hios.errors import DeviceUnavailable
from hios.ir import Device, DeviceId, Machine, OpId, StageId, StreamId

GATES = [
    SleepGate,
    pytest.param(
        SpinGate, marks=pytest.mark.skipif(not spinning_is_available(), reason="no strverscmp")
    ),
]


def nothing() -> None:
    pass


@pytest.fixture
def team():
    made = Team(["a", "b"], [nothing, nothing])
    yield made
    made.close()


@pytest.mark.parametrize("kind", GATES)
def test_gate_lets_one_wait_pass_per_opening(kind):
    gate = kind()
    passed = []

    def walk():
        for turn in range(200):
            gate.wait()
            passed.append(turn)
            back.open()

    back = kind()
    walker = threading.Thread(target=walk)
    walker.start()
    for turn in range(200):
        assert passed == list(range(turn))
        gate.open()
        back.wait()
    walker.join(10)
    assert passed == list(range(200))


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("delay_s", [0.0, 0.02])
def test_nobody_passes_a_closed_gate(kind, delay_s):
    gate = kind()
    passed = threading.Event()

    def walk():
        gate.wait()
        passed.set()

    walker = threading.Thread(target=walk)
    walker.start()
    time.sleep(delay_s)  # long enough to fall asleep at the gate, or not
    assert not passed.is_set()
    gate.open()
    walker.join(10)
    assert passed.is_set()


@pytest.mark.parametrize("kind", GATES)
def test_reset_closes_and_force_open_never_blocks(kind):
    gate = kind()
    gate.force_open()
    gate.force_open()
    gate.wait()
    gate.force_open()
    gate.reset()
    gate.reset()
    passed = threading.Event()
    walker = threading.Thread(target=lambda: (gate.wait(), passed.set()))
    walker.start()
    time.sleep(0.01)
    assert not passed.is_set()
    gate.open()
    walker.join(10)


@pytest.mark.skipif(not spinning_is_available(), reason="no strverscmp")
def test_no_wake_up_is_lost_or_left_over_when_waits_end_in_sleep(monkeypatch):
    # With hardly any spinning every pass takes the sleeping path or races with it.
    monkeypatch.setattr(gates_module._SPINS, "value", 1)
    there, back = SpinGate(), SpinGate()

    def walk():
        for _ in range(3000):
            there.wait()
            back.open()

    walker = threading.Thread(target=walk)
    walker.start()
    for _ in range(3000):
        there.open()
        back.wait()
    walker.join(10)
    assert not walker.is_alive()
    for gate in (there, back):
        assert gate._asleep == []
        assert gate._wake.locked()


def test_team_runs_all_lists_every_time(team):
    seen = []
    for turn in range(50):
        team.run([[lambda t=turn: seen.append(("a", t))], [lambda t=turn: seen.append(("b", t))]])
        assert sorted(seen[-2:]) == [("a", turn), ("b", turn)]


def test_stamps_stand_between_calls(team):
    begin, stamps = team.run_stamped([[lambda: time.sleep(0.01), nothing], []])
    assert [len(own) for own in stamps] == [3, 1]
    assert stamps[0][1] - stamps[0][0] >= 10_000_000
    assert begin <= stamps[0][0] <= stamps[0][1] <= stamps[0][2]


@pytest.mark.parametrize("kind", GATES)
def test_a_failure_frees_whoever_waits_and_the_team_goes_on(team, kind):
    gate = kind()
    wait = team.gate(gate)
    reached = []

    def fail():
        raise ValueError("broken")

    for _ in range(20):
        with pytest.raises(CallFailed) as caught:
            team.run([[nothing, fail, gate.open], [wait, lambda: reached.append(1)]])
        assert (caught.value.worker, caught.value.position) == (0, 1)
        assert str(caught.value.reason) == "broken"
    assert reached == []
    team.run([[gate.open], [wait, lambda: reached.append(1)]])
    assert reached == [1]


def test_an_interrupt_waits_for_the_workers(team, monkeypatch):
    done = []

    class Interrupted:
        """The lock at which the caller sleeps; the first attempt is interrupted."""

        def __init__(self, lock):
            self.lock = lock
            self.is_first = True

        def acquire(self):
            if self.is_first:
                self.is_first = False
                raise KeyboardInterrupt
            return self.lock.acquire()

        def release(self):
            self.lock.release()

    team._state.done = Interrupted(team._state.done)
    with pytest.raises(KeyboardInterrupt):
        team.run([[lambda: time.sleep(0.02), lambda: done.append(1)], []])
    assert done == [1]
    team.run([[lambda: done.append(2)], []])
    assert done == [1, 2]


class InterruptingLock:
    """A lock after one of whose calls Ctrl-C comes, once."""

    def __init__(self, lock, call):
        self.lock = lock
        self.call = call

    def interrupt(self, call):
        if self.call == call:
            self.call = None
            raise KeyboardInterrupt

    def acquire(self, *arguments):
        taken = self.lock.acquire(*arguments)
        self.interrupt("acquire")
        return taken

    def release(self):
        self.lock.release()
        self.interrupt("release")


def interrupted_runs(team, programs):
    """Run in a thread of its own, so that a run that never ends fails and does not hang."""
    caught = []

    def ask():
        try:
            team.run(programs)
        except KeyboardInterrupt as problem:
            caught.append(problem)

    asker = threading.Thread(target=ask, daemon=True)
    asker.start()
    asker.join(5)
    assert not asker.is_alive(), "the run never returns"
    return len(caught)


def test_an_interrupt_right_after_the_end_is_no_second_wait():
    team = Team(["a", "b"], [nothing] * 2)
    team._state.done = InterruptingLock(team._state.done, "acquire")
    seen = []
    assert interrupted_runs(team, [[lambda: (time.sleep(0.02), seen.append(1))], []]) == 1
    assert seen == [1]
    assert interrupted_runs(team, [[lambda: seen.append(2)], [lambda: seen.append(2)]]) == 0
    assert seen == [1, 2, 2]
    team.close()


def test_an_interrupt_between_two_starts_leaves_no_half_started_run():
    team = Team(["a", "b"], [nothing] * 2)
    team._state.start[0] = InterruptingLock(team._state.start[0], "release")
    gate = SleepGate()
    wait = team.gate(gate)
    seen = []
    programs = [[wait, lambda: seen.append("a")], [gate.open, lambda: seen.append("b")]]
    assert interrupted_runs(team, programs) == 1
    assert sorted(seen) == ["a", "b"]
    assert interrupted_runs(team, programs) == 0
    assert sorted(seen) == ["a", "a", "b", "b"]
    team.close()


def test_interrupts_at_any_moment_leave_whole_runs():
    """Real signals, at moments that move through the whole of a run."""
    code = """
import signal, time
from graph_executor.cpu.gates import SleepGate
from graph_executor.cpu.team import Team

def interrupt(*_):
    raise KeyboardInterrupt

team = Team(["a", "b"], [lambda: None] * 2)
gate = SleepGate()
wait = team.gate(gate)
counts = [0, 0]
def count(worker):
    counts[worker] += 1
programs = [[wait, lambda: count(0)], [gate.open, lambda: count(1)]]
caught = 0
signal.signal(signal.SIGALRM, interrupt)
for turn in range(4000):
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + turn % 100))
        team.run(programs)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        caught += 1
    assert counts[0] == counts[1], counts
signal.setitimer(signal.ITIMER_REAL, 0)
team.close()
assert caught > 100, caught
print(counts)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_many_workers_may_give_up_at_once():
    """Forcing a gate open that another thread opens at that moment is no failure."""
    gate = SleepGate()
    lock = gate._lock

    class Raced:
        def locked(self):
            found = lock.locked()
            if found:
                lock.release()  # the other thread is a moment faster
            return found

        def release(self):
            lock.release()

    gate._lock = Raced()
    gate.force_open()
    gate._lock = lock
    gate.wait()


def test_a_failing_setup_ends_the_threads():
    before = threading.active_count()

    def fail():
        raise RuntimeError("no such core")

    with pytest.raises(CallFailed):
        Team(["a", "b"], [nothing, fail])
    assert threading.active_count() == before


def test_close_twice_is_fine():
    before = threading.active_count()
    made = Team(["a"], [nothing])
    made.close()
    made.close()
    assert threading.active_count() == before


# Cores.


def test_cores_are_shared_evenly():
    assert split_cores((0, 1, 2, 3), 1) == [(0, 1, 2, 3)]
    assert split_cores((0, 1, 2), 2) == [(0,), (1, 2)]
    assert split_cores((5,), 2) == [(5,), (5,)]


def plan_of(*queues: StreamQueue, devices: int = 1) -> Plan:
    return Plan("x", devices, queues, (), 9)


def queue(device: int, stream: int, *instructions) -> StreamQueue:
    return StreamQueue(DeviceId(device), StreamId(stream), instructions)


def launch(op: int, stage: int | None = None) -> Launch:
    return Launch(OpId(op), None if stage is None else StageId(stage))


def test_an_operator_alone_in_its_stage_is_wide_and_groups_share():
    plan = plan_of(
        queue(0, 0, launch(0, 0), launch(1, 1), Record(0), launch(3, 2)),
        queue(0, 1, Wait(1), launch(2, 1), Record(2)),
    )
    assert assign_cores(plan, [(0, 1)]) == [
        [(0, 1), (0,), (0,), (0, 1)],
        [(0, 1), (1,), (1,)],
    ]


def test_streams_without_stages_share_their_device():
    plan = plan_of(queue(0, 0, launch(0)), queue(0, 1, launch(1)))
    assert assign_cores(plan, [(0, 1)]) == [[(0,)], [(1,)]]
    assert assign_cores(plan_of(queue(0, 0, launch(0))), [(0, 1)]) == [[(0, 1)]]


def test_waits_spin_only_on_a_core_of_their_own():
    alone = plan_of(queue(0, 0, Wait(0), launch(0)), queue(1, 0, launch(1)), devices=2)

    def safe(plan: Plan, cores) -> set:
        return may_spin(plan, cores, assign_cores(plan, cores))

    assert safe(alone, [(0,), (1,)]) == {(0, 0)}
    assert safe(alone, [(0,), (0,)]) == set()
    unstaged = plan_of(queue(0, 0, launch(0)), queue(0, 1, Wait(0), launch(1)))
    assert safe(unstaged, [(0, 1)]) == set()
    staged = plan_of(
        queue(0, 0, launch(0, 0), Wait(1), launch(2, 1), launch(4, 2)),
        queue(0, 1, launch(1, 0), Wait(0), launch(3, 1), Wait(2), launch(5, 3)),
    )
    # The last wait of the second stream lasts over the wide stage 2, which needs its core.
    assert safe(staged, [(0, 1)]) == {(0, 1), (1, 1)}
    assert safe(staged, [(0,)]) == set()


def test_devices_need_cores_that_exist():
    own = sorted(os.sched_getaffinity(0))[0]

    def of(*devices: Device):
        return device_cores(Machine("m", devices))

    assert of(Device("cpu:0", "cpu", cores=(own,))) == ((own,),)
    for device, message in (
        (Device("cuda:0", "cuda"), "kind 'cuda'"),
        (Device("cpu:0", "cpu"), "names no cores"),
        (Device("cpu:0", "cpu", cores=(99_999,)), "needs core 99999"),
    ):
        with pytest.raises(DeviceUnavailable, match=message):
            of(device)
