"""The real CUDA: cuda-core for devices, streams, events and memory, cuda-bindings for capture.

Every call is checked against the signatures of the installed bindings by a test that needs no GPU.

Memory comes from a pool of our own per device, since access of peers is granted per pool
(`peer_accessible_by`); it is opened before any capture. Capture goes through cuda-bindings in
thread-local mode: the graph builder of cuda-core 1.2 defaults to relaxed mode, knows no device
when it splits, and crashes the process when an invalidated one is torn down.
"""

import operator
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from cuda.bindings import runtime
from cuda.core import (
    Buffer,
    Device,
    DeviceMemoryResource,
    DeviceMemoryResourceOptions,
    EventOptions,
    LegacyPinnedMemoryResource,
    StreamOptions,
)
from cuda.core.utils import StridedMemoryView

from graph_executor import tvm_runtime
from graph_executor.cuda.carveout import ask_for_shared_memory
from graph_executor.cuda.check import check
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

__all__ = ["CudaDriver"]

_TO_DEVICE = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
_TO_HOST = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
_WITHIN = runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
_THREAD_LOCAL = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
_DLPACK_CUDA = 2


class CudaDriver:
    """`graph_executor.cuda.driver.Driver` on the CUDA of this machine."""

    def __init__(self) -> None:
        self._pools: dict[int, Any] = {}
        self._pinned: Any = LegacyPinnedMemoryResource()

    def device_count(self) -> int:
        """Return how many devices there are; 0 without a driver."""
        try:
            count: int = check(None, runtime.cudaGetDeviceCount)
        except CudaFailed:
            return 0
        return count

    def facts(self, device: int) -> DeviceFacts:
        """Describe a device."""
        found = self._enter(device)
        properties = found.properties
        free, total = check(device, runtime.cudaMemGetInfo)
        major, minor = found.compute_capability
        return DeviceFacts(
            ordinal=device,
            name=str(found.name),
            uuid=str(found.uuid),
            compute_capability=(int(major), int(minor)),
            multiprocessors=int(properties.multiprocessor_count),
            memory_bytes=int(total),
            free_bytes=int(free),
            l2_bytes=int(properties.l2_cache_size),
            clock_khz=int(properties.clock_rate),
            memory_clock_khz=int(properties.memory_clock_rate),
            memory_bus_bits=int(properties.global_memory_bus_width),
            limits={
                "threads": int(properties.max_threads_per_multiprocessor),
                "blocks": int(properties.max_blocks_per_multiprocessor),
                "registers": int(properties.max_registers_per_multiprocessor),
                "shared_bytes": int(properties.max_shared_memory_per_multiprocessor),
            },
        )

    def can_access_peer(self, device: int, peer: int) -> bool:
        """Return whether `device` can read and write memory of `peer`."""
        return bool(check(device, Device(device).can_access_peer, peer))

    def enter(self, device: int) -> None:
        """Make a device current."""
        check(device, runtime.cudaSetDevice, device)

    def create_stream(self, device: int) -> Stream:
        """Make a non-blocking stream."""
        found = self._enter(device)
        options = StreamOptions(nonblocking=True)
        return Stream(device, check(device, found.create_stream, options=options))

    def create_event(self, device: int, is_timed: bool = False) -> Event:
        """Make an event."""
        found = self._enter(device)
        options = EventOptions(timing_enabled=is_timed)
        return Event(device, check(device, found.create_event, options=options), is_timed)

    def allocate(self, device: int, size_bytes: int, peers: Collection[int] = ()) -> Memory:
        """Allocate from the pool of the device."""
        found = self._enter(device)
        pool = self._pools.get(device)
        if pool is None:
            options = DeviceMemoryResourceOptions()
            pool = check(device, DeviceMemoryResource, found, options=options)
            self._pools[device] = pool
        for peer in sorted(peer for peer in peers if peer != device):
            check(device, pool.peer_accessible_by.add, peer)
        stream = check(device, found.create_stream, options=StreamOptions(nonblocking=True))
        size = max(1, size_bytes)
        buffer = check(device, pool.allocate, size, stream=stream)
        check(device, stream.sync)
        return Memory(device, int(buffer.handle), size, buffer, stream)

    def allocate_pinned(self, size_bytes: int) -> Pinned:
        """Allocate page-locked host memory."""
        buffer = check(None, self._pinned.allocate, max(1, size_bytes))
        return Pinned(np.from_dlpack(buffer).view(np.uint8), buffer)

    def destroy(self, thing: Stream | Event | Memory | Pinned | Graph) -> None:
        """Give something back."""
        if isinstance(thing, Graph):
            graph, executable = thing.handle
            check(None, runtime.cudaGraphExecDestroy, executable)
            check(None, runtime.cudaGraphDestroy, graph)
        elif isinstance(thing, Memory):
            check(thing.device, thing.owner.close, thing.handle)
            check(thing.device, thing.handle.sync)
            check(thing.device, thing.handle.close)
        elif isinstance(thing, Pinned):
            check(None, thing.handle.close)
        else:
            check(thing.device, thing.handle.close)

    def record(self, event: Event, stream: Stream) -> None:
        """Record an event."""
        check(stream.device, stream.handle.record, event.handle)

    def wait(self, stream: Stream, event: Event) -> None:
        """Wait for an event."""
        check(stream.device, stream.handle.wait, event.handle)

    def sync(self, stream: Stream) -> None:
        """Wait on the host."""
        check(stream.device, stream.handle.sync)

    def elapsed_us(self, start: Event, end: Event) -> float:
        """Return the time between two events."""
        return 1e3 * float(check(start.device, operator.sub, end.handle, start.handle))

    def copy(self, target: Region, source: Region, stream: Stream) -> None:
        """Copy within a device or between two."""
        size = source.size_bytes
        handle = int(stream.handle.handle)
        if target.device == source.device:
            check(
                stream.device,
                runtime.cudaMemcpyAsync,
                target.pointer,
                source.pointer,
                size,
                _WITHIN,
                handle,
            )
        else:
            check(
                stream.device,
                runtime.cudaMemcpyPeerAsync,
                target.pointer,
                target.device,
                source.pointer,
                source.device,
                size,
                handle,
            )

    def upload(self, target: Region, source: npt.NDArray[Any], stream: Stream) -> None:
        """Copy from the host."""
        check(
            stream.device,
            runtime.cudaMemcpyAsync,
            target.pointer,
            source.ctypes.data,
            source.nbytes,
            _TO_DEVICE,
            int(stream.handle.handle),
        )

    def download(self, target: npt.NDArray[Any], source: Region, stream: Stream) -> None:
        """Copy to the host."""
        check(
            stream.device,
            runtime.cudaMemcpyAsync,
            target.ctypes.data,
            source.pointer,
            target.nbytes,
            _TO_HOST,
            int(stream.handle.handle),
        )

    def fill(self, target: Region, byte: int, stream: Stream) -> None:
        """Set every byte."""
        check(stream.device, runtime.cudaSetDevice, stream.device)
        check(
            stream.device,
            runtime.cudaMemsetAsync,
            target.pointer,
            byte,
            target.size_bytes,
            int(stream.handle.handle),
        )

    def tensor(self, region: Region, shape: Sequence[int], dtype: str) -> Any:
        """Return a tensor of TVM at the region's own address, so that its offset is zero."""
        # The owner lives as long as the tensor; nothing is freed when the tensor goes.
        part = check(
            region.device,
            Buffer.from_handle,
            region.pointer,
            max(1, region.size_bytes),
            owner=region.owner,
        )
        return tvm_runtime.device_tensor(part, region.pointer, region.device, shape, dtype)

    def borrow(self, tensor: Any, stream: Stream) -> tuple[Region, tuple[int, ...], str] | None:
        """Look into a DLPack tensor in device memory."""
        kind, ordinal = tensor.__dlpack_device__()
        if int(kind) != _DLPACK_CUDA:
            return None
        view = check(
            int(ordinal),
            StridedMemoryView.from_dlpack,
            tensor,
            stream_ptr=int(stream.handle.handle),
        )
        shape = tuple(int(extent) for extent in view.shape)
        if not _is_contiguous(shape, view.strides):
            return None
        size = int(np.prod(shape, dtype=np.int64)) * view.dtype.itemsize
        return Region(int(ordinal), int(view.ptr), size, view), shape, str(view.dtype)

    def find_kernel(self, module: Any, name: str) -> Callable[..., Any]:
        """Return a kernel of a loaded library."""
        return tvm_runtime.find_kernel(module, name)

    def use(self, stream: Stream) -> None:
        """Make TVM launch on the stream."""
        tvm_runtime.set_stream(stream.device, int(stream.handle.handle))

    def leave(self, device: int) -> None:
        """Give TVM the legacy stream back."""
        tvm_runtime.set_stream(device, 0)

    def launch(self, device: int, kernel: Callable[..., Any], tensors: Sequence[Any]) -> None:
        """Launch a kernel; TVM's host code makes the device current by itself."""
        kernel(*tensors)

    def begin_capture(self, origin: Stream) -> None:
        """Begin in thread-local mode."""
        check(origin.device, runtime.cudaSetDevice, origin.device)
        check(
            origin.device,
            runtime.cudaStreamBeginCapture,
            int(origin.handle.handle),
            _THREAD_LOCAL,
        )

    def end_capture(self, origin: Stream, is_concurrent: bool = False) -> Graph:
        """End, instantiate and upload."""
        handle = int(origin.handle.handle)
        graph = check(origin.device, runtime.cudaStreamEndCapture, handle)
        try:
            check(origin.device, runtime.cudaSetDevice, origin.device)
            _, count = check(origin.device, runtime.cudaGraphGetNodes, graph)
            if is_concurrent:
                ask_for_shared_memory(origin.device, graph)
            executable = check(origin.device, runtime.cudaGraphInstantiate, graph, 0)
        except CudaFailed:
            check(origin.device, runtime.cudaGraphDestroy, graph)
            raise
        check(origin.device, runtime.cudaGraphUpload, executable, handle)
        return Graph((graph, executable), int(count))

    def abort_capture(self, origin: Stream) -> None:
        """End whatever capture there is."""
        handle = int(origin.handle.handle)
        try:
            graph = check(origin.device, runtime.cudaStreamEndCapture, handle)
        except CudaFailed:
            # The capture was invalid: ending it said so once more, and it is over now.
            runtime.cudaGetLastError()
            return
        if graph is not None and int(graph):
            check(origin.device, runtime.cudaGraphDestroy, graph)

    def replay(self, graph: Graph, stream: Stream) -> None:
        """Launch the graph."""
        check(stream.device, runtime.cudaGraphLaunch, graph.handle[1], int(stream.handle.handle))

    def _enter(self, device: int) -> Any:
        found = Device(device)
        check(device, found.set_current)
        return found


def _is_contiguous(shape: tuple[int, ...], strides: Sequence[int] | None) -> bool:
    if strides is None:
        return True
    expected = 1
    for extent, stride in zip(reversed(shape), reversed(tuple(strides)), strict=True):
        if extent != 1 and stride != expected:
            return False
        expected *= extent
    return True
