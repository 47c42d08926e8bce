"""CUDA in the few calls that the backend makes.

`Driver` is everything this package asks of CUDA. Devices are ordinals (``cuda:0`` is 0) as the
process sees them. Nothing here decides: which stream waits for what comes from the plan.

Rules of CUDA that callers keep, and that the model driver of the tests enforces:

* an event is recorded on a stream of the device that it was made for;
* between `begin_capture` and `end_capture` nothing allocates, frees, synchronises with the host
  or touches the legacy stream, and every stream that joined the capture is joined back into its
  origin before it ends;
* a stream waits only for an event that was recorded before, and during a capture only for one
  that was recorded in the same capture.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hios.errors import ExecutionError

__all__ = [
    "CudaFailed",
    "DeviceFacts",
    "Driver",
    "Event",
    "Graph",
    "Memory",
    "Pinned",
    "Region",
    "Stream",
]

_STICKY = (
    "ILLEGAL_ADDRESS",
    "ILLEGALADDRESS",
    "LAUNCH_FAILED",
    "LAUNCHFAILURE",
    "LAUNCH_TIMEOUT",
    "LAUNCHTIMEOUT",
    "HARDWARE_STACK_ERROR",
    "HARDWARESTACKERROR",
    "ILLEGAL_INSTRUCTION",
    "ILLEGALINSTRUCTION",
    "MISALIGNED_ADDRESS",
    "MISALIGNEDADDRESS",
    "INVALID_ADDRESS_SPACE",
    "INVALIDADDRESSSPACE",
    "INVALID_PC",
    "INVALIDPC",
    "ECC_UNCORRECTABLE",
    "ECCUNCORRECTABLE",
    "DEVICE_UNAVAILABLE",
    "DEVICEUNAVAILABLE",
    "DEVICE_NOT_RESPONDING",
    "DEVICES_UNAVAILABLE",
    "DEVICESUNAVAILABLE",
    "DEVICE_LOST",
    "CONTEXT_IS_DESTROYED",
    "CONTEXTISDESTROYED",
    "ASSERT",
)
"""Errors after which CUDA documents that the process's context is of no further use."""


class CudaFailed(ExecutionError):
    """A call of CUDA failed.

    Parameters
    ----------
    call
        Which.
    device
        Ordinal of the device it was for; None where it was for none.
    code
        Name of the error, as CUDA spells it.
    text
        What CUDA says about it.
    """

    def __init__(self, call: str, device: int | None, code: str, text: str) -> None:
        where = "" if device is None else f" on cuda:{device}"
        super().__init__(f"{call} failed{where}: {code}: {text}")
        self.call = call
        self.device = device
        self.code = code
        self.text = text

    @property
    def is_out_of_memory(self) -> bool:
        """Whether memory ran out."""
        return self.code.upper().endswith(("OUT_OF_MEMORY", "MEMORYALLOCATION"))

    @property
    def is_lost(self) -> bool:
        """Whether the context can no longer be used: every later call of it fails too."""
        return self.code.upper().endswith(_STICKY)


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What CUDA tells about a device.

    Attributes
    ----------
    ordinal
        As this process counts.
    name, uuid
        Of the hardware.
    compute_capability
        Major and minor, (9, 0) for Hopper.
    multiprocessors
        How many.
    memory_bytes, free_bytes
        All, and unused now.
    l2_bytes
        Size of the L2 cache.
    clock_khz, memory_clock_khz, memory_bus_bits
        Peak clocks and the width of the memory bus; 0 where the driver does not tell.
    limits
        Of one multiprocessor: ``threads``, ``blocks``, ``registers``, ``shared_bytes``.
    """

    ordinal: int
    name: str
    uuid: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    memory_bytes: int
    free_bytes: int
    l2_bytes: int
    clock_khz: int = 0
    memory_clock_khz: int = 0
    memory_bus_bits: int = 0
    limits: Mapping[str, int] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        """``sm_90`` and so on."""
        major, minor = self.compute_capability
        return f"sm_{major}{minor}"


@dataclass(frozen=True, slots=True)
class Stream:
    """A non-blocking stream of a device."""

    device: int
    handle: Any


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a device; only a timed one can be read by `Driver.elapsed_us`."""

    device: int
    handle: Any
    is_timed: bool


@dataclass(frozen=True, slots=True)
class Memory:
    """One allocation on a device; `owner` keeps it alive, `handle` gives it back."""

    device: int
    pointer: int
    size_bytes: int
    owner: Any
    handle: Any = None

    def part(self, offset: int, size_bytes: int) -> "Region":
        """Return a part of it."""
        return Region(self.device, self.pointer + offset, size_bytes, self.owner)


@dataclass(frozen=True, slots=True)
class Region:
    """A part of an allocation, or memory that somebody else owns (`owner`)."""

    device: int
    pointer: int
    size_bytes: int
    owner: Any


@dataclass(frozen=True, slots=True)
class Pinned:
    """Page-locked host memory, seen as bytes."""

    data: npt.NDArray[np.uint8]
    handle: Any


@dataclass(frozen=True, slots=True)
class Graph:
    """An instantiated graph."""

    handle: Any
    nodes: int


class Driver(Protocol):
    """All of CUDA that this package uses (see the module)."""

    def device_count(self) -> int:
        """Return how many devices there are; 0 without a driver."""
        ...

    def facts(self, device: int) -> DeviceFacts:
        """Describe a device."""
        ...

    def can_access_peer(self, device: int, peer: int) -> bool:
        """Return whether `device` can read and write memory of `peer`."""
        ...

    def enter(self, device: int) -> None:
        """Make a device the current one of this thread; a run may come from any thread."""
        ...

    def create_stream(self, device: int) -> Stream:
        """Make a stream that does not synchronise with the legacy one."""
        ...

    def create_event(self, device: int, is_timed: bool = False) -> Event:
        """Make an event."""
        ...

    def allocate(self, device: int, size_bytes: int, peers: Collection[int] = ()) -> Memory:
        """Allocate memory that the devices `peers` may access too; ready when this returns."""
        ...

    def allocate_pinned(self, size_bytes: int) -> Pinned:
        """Allocate page-locked host memory."""
        ...

    def destroy(self, thing: Stream | Event | Memory | Pinned | Graph) -> None:
        """Give something back."""
        ...

    def record(self, event: Event, stream: Stream) -> None:
        """Mark that everything issued to the stream so far is done."""
        ...

    def wait(self, stream: Stream, event: Event) -> None:
        """Let the stream go on only after the event's last record."""
        ...

    def sync(self, stream: Stream) -> None:
        """Let the host wait for everything issued to the stream."""
        ...

    def elapsed_us(self, start: Event, end: Event) -> float:
        """Return the time between two timed events of one device, both done."""
        ...

    def copy(self, target: Region, source: Region, stream: Stream) -> None:
        """Copy between two places of one device or of two."""
        ...

    def upload(self, target: Region, source: npt.NDArray[Any], stream: Stream) -> None:
        """Copy contiguous host memory to a device; keep `source` until the stream is done."""
        ...

    def download(self, target: npt.NDArray[Any], source: Region, stream: Stream) -> None:
        """Copy from a device to contiguous host memory."""
        ...

    def fill(self, target: Region, byte: int, stream: Stream) -> None:
        """Set every byte; the stream is one of the region's device."""
        ...

    def tensor(self, region: Region, shape: Sequence[int], dtype: str) -> Any:
        """Return the region as a tensor that kernels take."""
        ...

    def borrow(self, tensor: Any, stream: Stream) -> "tuple[Region, tuple[int, ...], str] | None":
        """Look into a DLPack tensor in device memory.

        Returns
        -------
        tuple or None
            Its memory, shape and dtype; `stream` waits for whoever writes it. None when it is
            no contiguous tensor in device memory.
        """
        ...

    def find_kernel(self, module: Any, name: str) -> Callable[..., Any]:
        """Return a kernel of a loaded library."""
        ...

    def use(self, stream: Stream) -> None:
        """Make kernels that this thread launches on the stream's device go to the stream."""
        ...

    def leave(self, device: int) -> None:
        """Undo `use`: this thread has no stream of ours on the device any more."""
        ...

    def launch(self, device: int, kernel: Callable[..., Any], tensors: Sequence[Any]) -> None:
        """Launch a kernel on the device's stream in `use`."""
        ...

    def begin_capture(self, origin: Stream) -> None:
        """Record from now on what is issued to the stream, and to those that join it."""
        ...

    def end_capture(self, origin: Stream, is_concurrent: bool = False) -> Graph:
        """Stop recording and instantiate what was recorded.

        Parameters
        ----------
        origin
            Where recording began.
        is_concurrent
            Kernels in it may run at once: let them divide the first-level cache alike.
        """
        ...

    def abort_capture(self, origin: Stream) -> None:
        """Stop recording and drop what was recorded, whatever state the capture is in."""
        ...

    def replay(self, graph: Graph, stream: Stream) -> None:
        """Launch an instantiated graph."""
        ...
