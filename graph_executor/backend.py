"""What an executor asks of the thing that performs a plan.

A backend is a plan made ready on its devices: memory allocated, weights in place, kernels
bound. It then runs the plan any number of times. The instruction lists, their events and the
memory map come from the plan; a backend decides nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from graph_executor.plan import Plan
from hios.ir.graph import OpGraph
from hios.ir.ids import TensorId
from hios.ir.machine import Machine

__all__ = ["Array", "Backend", "DeviceInput", "KernelFailed", "Program", "Stamp"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Program:
    """Everything that a backend is made from.

    Attributes
    ----------
    plan, graph, machine
        What to run, on what.
    module
        The loaded kernel library; None for a dry run.
    params
        Data of the weights.
    is_poisoned
        Fill every arena with NaN bytes before each run, so that a missing copy or a buffer
        read too early shows.
    """

    plan: Plan
    graph: OpGraph
    machine: Machine
    module: Any
    params: Mapping[TensorId, npt.NDArray[Any]]
    is_poisoned: bool = False


@dataclass(frozen=True, slots=True)
class DeviceInput:
    """An input that lies in device memory already.

    Attributes
    ----------
    shape, dtype
        As those of an array.
    place
        Where it lies, in the backend's own terms.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    place: Any


@dataclass(frozen=True, slots=True)
class Stamp:
    """When one launch or copy ran.

    Attributes
    ----------
    queue, position
        Its list in `Plan.queues` and its place in it.
    start_us, end_us
        From the start of the run.
    """

    queue: int
    position: int
    start_us: float
    end_us: float


class KernelFailed(Exception):
    """A launch or copy raised.

    Parameters
    ----------
    queue, position
        Its list in `Plan.queues` and its place in it.
    reason
        What was raised.
    """

    def __init__(self, queue: int, position: int, reason: BaseException) -> None:
        super().__init__(queue, position, reason)
        self.queue = queue
        self.position = position
        self.reason = reason


class Backend(Protocol):
    """A plan ready to run. One thread at a time calls it."""

    def borrow(self, value: Any) -> DeviceInput | None:
        """Look into a DLPack tensor outside of host memory.

        Returns
        -------
        DeviceInput or None
            What `place` takes; None when this backend cannot read it.
        """
        ...

    def place(self, inputs: Sequence[Array | DeviceInput]) -> None:
        """Write the graph inputs, in the order of the signature, to the first device."""
        ...

    def run(self) -> None:
        """Perform the whole plan and return when all of it is done.

        Raises
        ------
        KernelFailed
            When a launch or copy raised. The backend can run again.
        """
        ...

    def trace(self) -> tuple[float, tuple[Stamp, ...]]:
        """Perform the plan once; return its time in µs and when each launch and copy ran."""
        ...

    def fetch(self) -> list[np.ndarray[Any, np.dtype[Any]]]:
        """Return the graph outputs on the first device; valid until the next `place` or `run`."""
        ...

    def fetch_on_device(self, copy: bool) -> list[Any]:
        """Return the graph outputs as DLPack tensors on the first device.

        Parameters
        ----------
        copy
            Into memory of their own; without, valid until the next `place` or `run`.

        Raises
        ------
        InvalidOption
            When the first device is the host.
        """
        ...

    def close(self) -> None:
        """Give everything back; may be called twice."""
        ...
