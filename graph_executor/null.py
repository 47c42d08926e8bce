"""The null backend: walks a plan, launches nothing, and emits the same events.

For dry runs and tests: it holds no device memory and needs no kernels. Outputs are zeros.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from graph_executor.backend import Array, DeviceInput, Program, Stamp
from graph_executor.dtypes import numpy_dtype
from graph_executor.plan import Copy, Launch, Record, Wait
from hios.errors import ExecutionError, InvalidOption

__all__ = ["NullBackend"]


class NullBackend:
    """Performs a plan without doing any of it (see the module).

    Attributes
    ----------
    walked
        Of the last run: (list, place) of every instruction, in the order in which the walk
        passed it.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self.walked: list[tuple[int, int]] = []
        self._stamps: list[Stamp] = []

    def borrow(self, value: Any) -> DeviceInput | None:
        """Return None: everything lies in host memory."""
        return None

    def place(self, inputs: Sequence[Array | DeviceInput]) -> None:
        """Do nothing: there is no memory."""

    def run(self) -> None:
        """Walk all lists, one instruction of each in turn.

        Raises
        ------
        ExecutionError
            When the lists wait for each other forever.
        """
        queues = self._program.plan.queues
        position = [0] * len(queues)
        recorded: set[int] = set()
        self.walked = []
        self._stamps = []
        left = sum(len(queue.instructions) for queue in queues)
        begin = time.perf_counter_ns()
        while left:
            before = left
            for number, queue in enumerate(queues):
                if position[number] == len(queue.instructions):
                    continue
                instruction = queue.instructions[position[number]]
                if isinstance(instruction, Wait) and instruction.event not in recorded:
                    continue
                if isinstance(instruction, Record):
                    recorded.add(instruction.event)
                elif isinstance(instruction, Launch | Copy):
                    now = (time.perf_counter_ns() - begin) / 1e3
                    self._stamps.append(Stamp(number, position[number], now, now))
                self.walked.append((number, position[number]))
                position[number] += 1
                left -= 1
            if left == before:
                raise ExecutionError(
                    f"plan of {self._program.plan.graph!r} deadlocks with {left} instructions "
                    "left; validate it"
                )

    def trace(self) -> tuple[float, tuple[Stamp, ...]]:
        """Walk once and return when each launch and copy was passed."""
        begin = time.perf_counter_ns()
        self.run()
        return (time.perf_counter_ns() - begin) / 1e3, tuple(self._stamps)

    def fetch(self) -> list[Array]:
        """Return zeros of the right shapes."""
        graph = self._program.graph
        return [
            np.zeros(graph.tensors[t].shape, numpy_dtype(graph.tensors[t].dtype))
            for t in graph.outputs
        ]

    def fetch_on_device(self, copy: bool) -> list[Any]:
        """Refuse: there is no device memory."""
        raise InvalidOption("outputs on the device of a CPU or dry run; ask for host arrays")

    def close(self) -> None:
        """Do nothing: nothing is held."""
