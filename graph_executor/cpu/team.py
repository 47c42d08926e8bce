"""Worker threads that run lists of calls, all started together and awaited together.

The thread that asks for a run sleeps meanwhile: it takes no core from the workers. A call is
anything without arguments, bound beforehand; between two calls a worker spends well under a
microsecond. When a call raises, the run is given up: every gate is forced open, and workers
that pass one find the run given up and stop. The team can run again afterwards.

Ctrl-C may raise between any two steps of the thread that asks. Every run has a number for that
reason: starting a worker twice, or waiting for a run that has ended, does nothing, so after an
interrupt both are simply done again until the run has come to its end.
"""

import itertools
import operator
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from graph_executor.cpu.gates import Gate

__all__ = ["CallFailed", "Step", "Team"]

Step = Callable[[], object]


class CallFailed(Exception):
    """The call at `position` of the list of `worker` raised `reason`."""

    def __init__(self, worker: int, position: int, reason: BaseException) -> None:
        super().__init__(worker, position, reason)
        self.worker = worker
        self.position = position
        self.reason = reason


class _GivenUp(Exception):
    pass


@dataclass(slots=True)
class _State:
    """What workers share with the team; holds no reference to it, so it can be collected."""

    start: list[threading.Lock]
    done: threading.Lock
    finished: "itertools.count[int]"
    programs: Sequence[Sequence[Step]] = ()
    stamps: list[list[int]] | None = None
    gates: list[Gate] = field(default_factory=list)
    failures: list[tuple[int, int, BaseException]] = field(default_factory=list)
    turn: int = 0
    """The run that workers are to do."""
    turn_done: int = 0
    """The run that all workers have done."""
    is_given_up: bool = False
    is_closing: bool = False


class Team:
    """A fixed number of worker threads.

    Parameters
    ----------
    names
        One thread each; shown by debuggers and profilers.
    setups
        What each thread calls once when it starts (its cores, its pool).

    Raises
    ------
    CallFailed
        When a setup raises.
    """

    def __init__(self, names: Sequence[str], setups: Sequence[Step]) -> None:
        self._state = _State([threading.Lock() for _ in names], threading.Lock(), itertools.count())
        for lock in (*self._state.start, self._state.done):
            lock.acquire()
        self._threads = [
            threading.Thread(target=_work, args=(self._state, i), name=name, daemon=True)
            for i, name in enumerate(names)
        ]
        for thread in self._threads:
            thread.start()
        try:
            self.run([[setup] for setup in setups])
        except CallFailed:
            self.close()
            raise

    def gate(self, gate: Gate) -> Step:
        """Adopt `gate` and return the call that waits at it."""
        state = self._state
        state.gates.append(gate)
        wait = gate.wait

        def pass_gate() -> None:
            wait()
            if state.is_given_up:
                raise _GivenUp

        return pass_gate

    def run(self, programs: Sequence[Sequence[Step]]) -> None:
        """Have every worker run its list; return when all are done.

        Raises
        ------
        CallFailed
            With the first failure.
        """
        state = self._state
        if not state.start:  # a graph without operators: nobody would ever say that it is done
            return
        if state.turn != state.turn_done or state.is_given_up:
            self._settle()
        turn = state.turn + 1
        state.programs = programs
        state.finished = itertools.count(1)
        interrupt: BaseException | None = None
        while state.turn_done != turn:
            try:
                state.turn = turn
                for lock in state.start:
                    _unlock(lock)
                while state.turn_done != turn:
                    state.done.acquire()
            except BaseException as problem:  # noqa: BLE001 - raised again below
                # Ctrl-C: the workers still use the memory, so see them to the end first.
                interrupt = problem
        failures = state.failures
        if state.is_given_up:
            self._settle()
        if interrupt is not None:
            raise interrupt
        if failures:
            raise CallFailed(*failures[0])

    def _settle(self) -> None:
        """Wait for a run that an interrupt left behind, and forget what went wrong in it."""
        state = self._state
        while state.turn_done != state.turn:
            state.done.acquire()
        for gate in state.gates:
            gate.reset()
        state.failures = []
        state.is_given_up = False

    def run_stamped(self, programs: Sequence[Sequence[Step]]) -> tuple[int, list[list[int]]]:
        """Run and return the start and, for each worker, the times between its calls, in ns.

        A list of n calls has n + 1 times: call i ran between times i and i + 1.
        """
        state = self._state
        stamps: list[list[int]] = [[] for _ in programs]
        try:
            state.stamps = stamps
            begin = time.perf_counter_ns()
            self.run(programs)
            return begin, stamps
        finally:
            state.stamps = None

    def close(self) -> None:
        """End all threads; may be called twice."""
        self._state.is_closing = True
        for lock in self._state.start:
            _unlock(lock)
        for thread in self._threads:
            thread.join()
        self._state.programs = ()
        self._state.gates.clear()

    def __del__(self) -> None:
        # Threads do not know their team: without this they would sleep forever.
        state = getattr(self, "_state", None)
        if state is not None:
            state.is_closing = True
            for lock in state.start:
                _unlock(lock)


def _unlock(lock: threading.Lock) -> None:
    try:
        lock.release()
    except RuntimeError:
        return  # unlocked already: whoever waits for it will find it so


def _work(state: _State, worker: int) -> None:
    start = state.start[worker]
    turn = 0
    while True:
        start.acquire()
        if state.is_closing:
            return
        if turn == state.turn:
            continue
        turn = state.turn
        steps = iter(state.programs[worker])
        try:
            if state.stamps is None:
                for step in steps:
                    step()
            else:
                _run_stamped(steps, state.stamps[worker])
        except _GivenUp:
            pass
        except BaseException as problem:  # noqa: BLE001 - handed to the thread that waits
            position = len(state.programs[worker]) - operator.length_hint(steps) - 1
            state.failures.append((worker, position, problem))
            state.is_given_up = True
            for gate in state.gates:
                gate.force_open()
        del steps
        if next(state.finished) == len(state.start):
            state.turn_done = turn
            _unlock(state.done)


def _run_stamped(steps: Iterator[Step], stamps: list[int]) -> None:
    clock = time.perf_counter_ns
    note = stamps.append
    note(clock())
    for step in steps:
        step()
        note(clock())
