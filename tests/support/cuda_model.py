"""A model of CUDA for tests: its documented state machine of streams, events and captures.

`ModelDriver` implements `graph_executor.cuda.driver.Driver` in host memory. Work issued to a
stream becomes a node with the nodes that it must follow, and runs when the host waits, in a
random order that these allow: what the calls do not order, the model does not order either. A
captured graph is replayed in such an order as well.

Whatever CUDA forbids, or forgives where this project does not want it, raises `IllegalCall`
with the name of the rule. It is no `RuntimeError`, so no handler of the executor hides it.
Faults (`fail`, `fail_kernel`) raise `CudaFailed`, as the real driver does.
"""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graph_executor.cuda.driver import (
    CudaFailed,
    DeviceFacts,
    Event,
    Graph,
    Memory,
    Pinned,
    Region,
    Stream,
)
from graph_executor.dtypes import numpy_dtype

_ALIGNMENT = 256
_GAP = 1 << 40


class IllegalCall(AssertionError):
    """A call that breaks a rule."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule


@dataclass(eq=False)
class _Node:
    """One piece of work, or a mark (`run` is None)."""

    run: Callable[[], None] | None
    after: set["_Node"]
    device: int
    is_done: bool = False
    time: float = 0.0


@dataclass(eq=False)
class _Capture:
    origin: "_Stream"
    nodes: list[_Node] = field(default_factory=list)
    streams: list["_Stream"] = field(default_factory=list)
    invalid: str | None = None
    is_over: bool = False


@dataclass(eq=False)
class _Stream:
    number: int
    device: int
    tail: set[_Node] = field(default_factory=set)
    capture: _Capture | None = None
    is_alive: bool = True


@dataclass(eq=False)
class _Event:
    number: int
    device: int
    is_timed: bool
    after: _Node | None = None
    capture: _Capture | None = None
    is_alive: bool = True


@dataclass(eq=False)
class _Allocation:
    data: np.ndarray
    peers: frozenset[int]
    is_alive: bool = True


@dataclass(eq=False)
class _Tensor:
    """What kernels are given: where it lies, and an array that shares that memory."""

    device: int
    allocation: _Allocation
    array: np.ndarray


@dataclass(frozen=True)
class Call:
    """One call in the log: `what` is a kernel's name, or (source, target) pointers."""

    name: str
    stream: int | None = None
    event: int | None = None
    what: object = None


class ModelDriver:
    """CUDA with `devices` devices of `memory_bytes` each, all peers of one another."""

    def __init__(self, devices: int = 1, memory_bytes: int = 1 << 34, seed: int = 0) -> None:
        self.calls: list[Call] = []
        self.copies_without_peer = 0
        self._devices = devices
        self._free = [memory_bytes] * devices
        self._total = memory_bytes
        self._rng = random.Random(seed)
        self._numbers = itertools.count()
        self._pending: list[_Node] = []
        self._allocations: dict[int, _Allocation] = {}
        self._pinned: list[np.ndarray] = []
        self._bases = itertools.count(_GAP, _GAP)
        self._alive: list[object] = []
        self._current: dict[int, _Stream] = {}
        self._capture: _Capture | None = None
        self._clock = 0.0
        self._faults: dict[str, list[tuple[int, CudaFailed, bool]]] = {}
        self._kernel_faults: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._lost: dict[int, CudaFailed] = {}
        self.not_peers: set[tuple[int, int]] = set()

    # Faults ------------------------------------------------------------------------------

    def fail(
        self, call: str, code: str, *, after: int = 0, device: int = 0, invalidates: bool = True
    ) -> None:
        """Let the n-th next call of a kind fail; in a capture that makes the capture invalid."""
        wanted = self._counts.get(call, 0) + after + 1
        failure = CudaFailed(call, device, code, "injected by a test")
        self._faults.setdefault(call, []).append((wanted, failure, invalidates))
        if failure.is_lost:
            self._faults[call][-1] = (wanted, failure, False)

    def fail_kernel(self, name: str, code: str) -> None:
        """Let a kernel fail while it runs on the device, not when it is launched."""
        self._kernel_faults[name] = code

    @property
    def leaks(self) -> list[object]:
        """What was made and not given back."""
        return list(self._alive)

    # Devices and things ------------------------------------------------------------------

    def device_count(self) -> int:
        return self._devices

    def facts(self, device: int) -> DeviceFacts:
        free = self._free[device]
        return DeviceFacts(
            device, "Model", f"GPU-{device}", (9, 0), 132, self._total, free, 50 << 20
        )

    def can_access_peer(self, device: int, peer: int) -> bool:
        return device != peer and (device, peer) not in self.not_peers

    def enter(self, device: int) -> None:
        self._called("enter", device)

    def create_stream(self, device: int) -> Stream:
        self._not_in_capture("create_stream")
        self._called("create_stream", device)
        own = _Stream(next(self._numbers), device)
        self._alive.append(own)
        return Stream(device, own)

    def create_event(self, device: int, is_timed: bool = False) -> Event:
        self._not_in_capture("create_event")
        self._called("create_event", device)
        own = _Event(next(self._numbers), device, is_timed)
        self._alive.append(own)
        return Event(device, own, is_timed)

    def allocate(self, device: int, size_bytes: int, peers: Any = ()) -> Memory:
        self._not_in_capture("allocate")
        self._called("allocate", device)
        size = max(1, size_bytes)
        if size > self._free[device]:
            raise CudaFailed("allocate", device, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory")
        self._free[device] -= size
        raw = np.empty(size + _ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % _ALIGNMENT
        data = raw[start : start + size]
        data[...] = np.frombuffer(self._rng.randbytes(min(size, 4096)) * (size // 4096 + 1), "u1")[
            :size
        ]
        own = _Allocation(data, frozenset(peers))
        pointer = next(self._bases)
        self._allocations[pointer] = own
        self._alive.append(own)
        return Memory(device, pointer, size, own)

    def allocate_pinned(self, size_bytes: int) -> Pinned:
        self._not_in_capture("allocate_pinned")
        self._called("allocate_pinned", None)
        data = np.full(max(1, size_bytes), 0xAA, np.uint8)
        self._pinned.append(data)
        self._alive.append(data)
        return Pinned(data, data)

    def destroy(self, thing: Any) -> None:
        self._not_in_capture("destroy")
        own = thing.owner if isinstance(thing, Memory) else thing.handle
        if not any(own is other for other in self._alive):
            raise IllegalCall("destroy twice", f"{thing!r} is not there")
        self._alive = [other for other in self._alive if other is not own]
        if isinstance(thing, Pinned):
            self._pinned = [other for other in self._pinned if other is not own]
        if isinstance(thing, Memory):
            self._free[thing.device] += thing.size_bytes
        self._called("destroy", getattr(thing, "device", None))
        if self._pending and not self._lost:
            raise IllegalCall("destroy with work in flight", f"{thing!r}")
        if not isinstance(thing, Pinned):
            own.is_alive = False

    # Streams and events ------------------------------------------------------------------

    def record(self, event: Event, stream: Stream) -> None:
        own, mark = self._alive_stream(stream), event.handle
        self._require(mark.is_alive, "destroyed", "record of a destroyed event")
        self._require(
            mark.device == own.device,
            "event of another device",
            f"event of device {mark.device} recorded on a stream of device {own.device}",
        )
        self._called("record", own.device, own.capture)
        mark.after = self._add(own, None)
        mark.capture = own.capture
        self.calls.append(Call("record", own.number, mark.number))

    def wait(self, stream: Stream, event: Event) -> None:
        own, mark = self._alive_stream(stream), event.handle
        self._require(mark.is_alive, "destroyed", "wait for a destroyed event")
        self._require(
            mark.after is not None, "wait before its record", f"event {mark.number} has no record"
        )
        captured = mark.capture
        if captured is None:
            self._require(
                own.capture is None,
                "wait across captures",
                "a capturing stream waits for an event recorded outside",
            )
        else:
            self._require(
                not captured.is_over,
                "wait across captures",
                "the capture in which the event was recorded is over",
            )
            self._require(
                own.capture in (None, captured),
                "wait across captures",
                "event and stream belong to two captures",
            )
        self._called("wait", own.device, own.capture or captured)
        if captured is not None and own.capture is None:
            own.capture = captured
            own.tail = set()
            captured.streams.append(own)
        self._add(own, None, {mark.after})
        self.calls.append(Call("wait", own.number, mark.number))

    def sync(self, stream: Stream) -> None:
        own = self._alive_stream(stream)
        if self._capture is not None:
            raise IllegalCall("host synchronisation in a capture", f"stream {own.number}")
        self._called("sync", own.device)
        self._finish(own.tail)
        if own.device in self._lost:
            raise self._lost[own.device]

    def elapsed_us(self, start: Event, end: Event) -> float:
        one, two = start.handle, end.handle
        self._require(one.is_timed and two.is_timed, "untimed event", "elapsed time of one")
        self._require(one.device == two.device, "event of another device", "elapsed between two")
        for mark in (one, two):
            self._require(
                mark.after is not None and mark.after.is_done, "not done", "elapsed too early"
            )
            self._require(mark.capture is None, "wait across captures", "elapsed in a capture")
        return two.after.time - one.after.time

    # Work --------------------------------------------------------------------------------

    def copy(self, target: Region, source: Region, stream: Stream) -> None:
        own = self._alive_stream(stream)
        to, of = self._bytes(target, source.size_bytes), self._bytes(source, source.size_bytes)
        if target.device != source.device:
            holder = self._allocation(source)[0]
            if target.device not in holder.peers:
                self.copies_without_peer += 1
        self._called("copy", own.device, own.capture)
        self._add(own, lambda: np.copyto(to, of))
        self.calls.append(Call("copy", own.number, what=(source.pointer, target.pointer)))

    def upload(self, target: Region, source: np.ndarray, stream: Stream) -> None:
        own = self._alive_stream(stream)
        self._host_memory(own, source)
        to, of = self._bytes(target, source.nbytes), source.reshape(-1).view(np.uint8)
        self._called("upload", own.device, own.capture)
        self._add(own, lambda: np.copyto(to, of))
        self.calls.append(Call("upload", own.number))

    def download(self, target: np.ndarray, source: Region, stream: Stream) -> None:
        own = self._alive_stream(stream)
        self._host_memory(own, target)
        of, to = self._bytes(source, target.nbytes), target.reshape(-1).view(np.uint8)
        self._called("download", own.device, own.capture)
        self._add(own, lambda: np.copyto(to, of))
        self.calls.append(Call("download", own.number))

    def fill(self, target: Region, byte: int, stream: Stream) -> None:
        own = self._alive_stream(stream)
        self._require(
            own.device == target.device, "fill of another device", f"on stream {own.number}"
        )
        to = self._bytes(target, target.size_bytes)
        self._called("fill", own.device, own.capture)
        self._add(own, lambda: to.fill(byte))
        self.calls.append(Call("fill", own.number))

    def tensor(self, region: Region, shape: Any, dtype: str) -> _Tensor:
        kind = numpy_dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        data = self._bytes(region, size)
        array = data.view(kind).reshape(tuple(shape))
        return _Tensor(region.device, self._allocation(region)[0], array)

    def borrow(self, tensor: Any, stream: Stream) -> Any:
        own = getattr(tensor, "model_tensor", None)
        if own is None or not own.array.flags.c_contiguous:
            return None
        for pointer, allocation in self._allocations.items():
            if allocation is own.allocation:
                offset = own.array.ctypes.data - allocation.data.ctypes.data
                region = Region(own.device, pointer + offset, own.array.nbytes, allocation)
                return region, own.array.shape, str(own.array.dtype)
        return None

    def find_kernel(self, module: Any, name: str) -> Callable[..., Any]:
        """Kernels are functions of arrays, by name, or those of a library for the CPU."""
        if isinstance(module, dict):
            return _Kernel(name, module[name])
        from graph_executor import tvm_runtime

        return _Kernel(name, tvm_runtime.find_kernel(module, name), is_compiled=True)

    def use(self, stream: Stream) -> None:
        self._current[stream.device] = self._alive_stream(stream)

    def leave(self, device: int) -> None:
        self._current.pop(device, None)

    def launch(self, device: int, kernel: Any, tensors: Any) -> None:
        own = self._current.get(device)
        if own is None:
            raise IllegalCall("legacy stream", f"kernel {kernel.name!r} on device {device}")
        self._require(own.is_alive, "destroyed", "launch on a destroyed stream")
        for tensor in tensors:
            self._require(
                tensor.device == device,
                "memory of another device",
                f"kernel {kernel.name!r} on device {device} takes memory of {tensor.device}",
            )
            self._require(tensor.allocation.is_alive, "destroyed", "memory given back")
        self._called("launch", device, own.capture)

        def run() -> None:
            code = self._kernel_faults.get(kernel.name)
            if code is not None:
                self._lost[device] = CudaFailed(
                    f"kernel {kernel.name!r}", device, code, "injected by a test"
                )
                return
            kernel(*(tensor.array for tensor in tensors))

        self._add(own, run)
        self.calls.append(Call("launch", own.number, what=kernel.name))

    # Captures ----------------------------------------------------------------------------

    def begin_capture(self, origin: Stream) -> None:
        own = self._alive_stream(origin)
        if self._capture is not None:
            raise IllegalCall("capture in a capture", f"stream {own.number}")
        self._called("begin_capture", own.device)
        self._capture = own.capture = _Capture(own)
        self._capture.streams.append(own)
        self._before = own.tail
        own.tail = set()
        self.calls.append(Call("begin_capture", own.number))

    def end_capture(self, origin: Stream, is_concurrent: bool = False) -> Graph:
        own = self._alive_stream(origin)
        capture = self._capture
        if capture is None or capture.origin is not own:
            raise IllegalCall("end of a capture that is not its own", f"stream {own.number}")
        reached = _ancestors(own.tail)
        unjoined = [s.number for s in capture.streams if not s.tail <= reached]
        self._end(capture)
        self.calls.append(Call("end_capture", own.number, what=is_concurrent))
        if capture.invalid is not None:
            raise _invalidated(own.device)
        if unjoined:
            raise IllegalCall("unjoined stream", f"streams {unjoined}")
        self._called("end_capture", own.device)
        graph = _Graph(capture.nodes)
        self._alive.append(graph)
        return Graph(graph, sum(node.run is not None for node in capture.nodes))

    def abort_capture(self, origin: Stream) -> None:
        capture = self._capture
        if capture is None or capture.origin is not origin.handle:
            raise IllegalCall("end of a capture that is not its own", "abort")
        self._end(capture)
        self.calls.append(Call("abort_capture", origin.handle.number))

    def replay(self, graph: Graph, stream: Stream) -> None:
        own = self._alive_stream(stream)
        if self._capture is not None:
            raise IllegalCall("graph launch in a capture", f"stream {own.number}")
        self._require(graph.handle.is_alive, "destroyed", "launch of a destroyed graph")
        self._called("replay", own.device)
        self._add(own, lambda: self._run_all(graph.handle.nodes))
        self.calls.append(Call("replay", own.number))

    # Inside ------------------------------------------------------------------------------

    def _end(self, capture: _Capture) -> None:
        capture.is_over = True
        for stream in capture.streams:
            stream.capture = None
            stream.tail = set()
        self._capture = None

    def _called(self, call: str, device: int | None, capture: _Capture | None = None) -> None:
        """Count the call, and raise the fault that is due."""
        if device is not None and device in self._lost:
            raise self._lost[device]
        if capture is not None and capture.invalid is not None:
            raise _invalidated(device)
        count = self._counts[call] = self._counts.get(call, 0) + 1
        for wanted, failure, invalidates in self._faults.get(call, ()):
            if count == wanted:
                if capture is not None and invalidates:
                    capture.invalid = call
                if failure.is_lost:
                    self._lost[device or 0] = failure
                raise failure

    def _add(
        self, stream: _Stream, run: Callable[[], None] | None, more: set[_Node] = frozenset()
    ) -> _Node:
        node = _Node(run, stream.tail | more, stream.device)
        stream.tail = {node}
        (self._pending if stream.capture is None else stream.capture.nodes).append(node)
        return node

    def _finish(self, wanted: set[_Node]) -> None:
        """Run pending work in a random allowed order until `wanted` is done."""
        while not all(node.is_done for node in wanted):
            able = [n for n in self._pending if all(other.is_done for other in n.after)]
            if not able:
                raise IllegalCall("deadlock", f"{len(self._pending)} pieces of work wait")
            node = self._rng.choice(able)
            self._pending.remove(node)
            self._run(node)

    def _run(self, node: _Node) -> None:
        # Work of a device that is lost is never done, but nobody waits for it either.
        if node.run is not None and node.device not in self._lost:
            node.run()
        node.is_done = True
        node.after = set()
        self._clock += 1.0
        node.time = self._clock

    def _run_all(self, nodes: list[_Node]) -> None:
        done: set[_Node] = set()
        left = list(nodes)
        while left:
            able = [node for node in left if node.after <= done]
            node = self._rng.choice(able)
            left.remove(node)
            if node.run is not None and node.device not in self._lost:
                node.run()
            done.add(node)

    def _alive_stream(self, stream: Stream) -> _Stream:
        own = stream.handle
        if not isinstance(own, _Stream):
            raise IllegalCall("legacy stream", f"{own!r}")
        self._require(own.is_alive, "destroyed", f"stream {own.number}")
        return own

    def _not_in_capture(self, call: str) -> None:
        if self._capture is not None:
            raise IllegalCall("allocation in a capture", call)

    def _host_memory(self, stream: _Stream, array: np.ndarray) -> None:
        self._require(array.flags.c_contiguous, "strided host memory", "copy")
        if stream.capture is not None and not any(
            np.shares_memory(array, pinned) for pinned in self._pinned
        ):
            raise IllegalCall("pageable memory in a capture", f"stream {stream.number}")

    def _allocation(self, region: Region) -> tuple[_Allocation, int]:
        base = region.pointer // _GAP * _GAP
        allocation = self._allocations.get(base)
        if allocation is None:
            raise IllegalCall("out of bounds", f"{region!r}")
        return allocation, region.pointer - base

    def _bytes(self, region: Region, size: int) -> np.ndarray:
        allocation, offset = self._allocation(region)
        self._require(allocation.is_alive, "destroyed", "memory given back")
        if size > region.size_bytes or offset + size > len(allocation.data):
            raise IllegalCall("out of bounds", f"{size} bytes of {region!r}")
        return allocation.data[offset : offset + size]

    @staticmethod
    def _require(is_true: bool, rule: str, detail: str) -> None:
        if not is_true:
            raise IllegalCall(rule, detail)


@dataclass(eq=False)
class _Graph:
    nodes: list[_Node]
    is_alive: bool = True


class _Kernel:
    """A kernel by name; one of a library takes TVM's tensors, made from the arrays."""

    def __init__(self, name: str, function: Any, is_compiled: bool = False) -> None:
        self.name = name
        self._function = function
        self._is_compiled = is_compiled

    def __call__(self, *arrays: np.ndarray) -> None:
        if not self._is_compiled:
            self._function(*arrays)
            return
        import tvm

        self._function(*(tvm.runtime.from_dlpack(array) for array in arrays))


def _ancestors(nodes: set[_Node]) -> set[_Node]:
    found: set[_Node] = set()
    left = list(nodes)
    while left:
        node = left.pop()
        if node not in found:
            found.add(node)
            left += node.after
    return found


def _invalidated(device: int | None) -> CudaFailed:
    code = "cudaErrorStreamCaptureInvalidated"
    return CudaFailed("capture", device, code, "an earlier call made the capture invalid")
