"""The memory of a plan on its devices: one arena and one weight region per logical device."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from graph_executor.backend import Array
from graph_executor.cuda.devices import peers_of
from graph_executor.cuda.driver import CudaFailed, Driver, Memory, Region, Stream
from graph_executor.dtypes import numpy_dtype
from graph_executor.plan import Plan
from hios.errors import DeviceUnavailable
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId, TensorId
from hios.ir.machine import Machine

__all__ = ["Arenas", "byte_view"]


class Arenas:
    """Allocations, and where every tensor lies in them.

    Parameters
    ----------
    driver
        CUDA.
    plan, graph, machine
        What is to be kept, and where.
    ordinals
        The GPU of each logical device.

    Raises
    ------
    DeviceUnavailable
        When a device has too little memory; what was allocated is given back.
    """

    def __init__(
        self,
        driver: Driver,
        plan: Plan,
        graph: OpGraph,
        machine: Machine,
        ordinals: tuple[int, ...],
    ) -> None:
        self._driver = driver
        self._graph = graph
        self._memories: list[Memory] = []
        self._arenas: list[Region] = []
        self._places: dict[tuple[int, TensorId], Region] = {}
        self._weights: list[tuple[int, TensorId, Region]] = []
        self._tensors: dict[tuple[int, TensorId], Any] = {}
        try:
            for memory in plan.memory:
                ordinal = ordinals[memory.device]
                peers = peers_of(driver, ordinals, ordinal)
                need = memory.arena_bytes + memory.weight_bytes
                try:
                    arena = self._allocate(ordinal, memory.arena_bytes, peers)
                    weights = self._allocate(ordinal, memory.weight_bytes, peers)
                except CudaFailed as failed:
                    if not failed.is_out_of_memory:
                        raise
                    name = machine.devices[memory.device].name
                    raise DeviceUnavailable(
                        f"device {name!r} has no {need} bytes left ({memory.arena_bytes} for "
                        f"activations, {memory.weight_bytes} for weights); free memory there, "
                        "use more devices or a smaller input"
                    ) from failed
                self._arenas.append(arena.part(0, arena.size_bytes))
                for buffer in memory.buffers:
                    place = arena.part(buffer.offset, buffer.bytes)
                    self._places[memory.device, buffer.tensor] = place
                for buffer in memory.weights:
                    place = weights.part(buffer.offset, buffer.bytes)
                    self._places[memory.device, buffer.tensor] = place
                    self._weights.append((memory.device, buffer.tensor, place))
        except BaseException:
            self.close()
            raise

    def _allocate(self, ordinal: int, size_bytes: int, peers: tuple[int, ...]) -> Memory:
        memory = self._driver.allocate(ordinal, size_bytes, peers)
        self._memories.append(memory)
        return memory

    def region(self, device: DeviceId, tensor: TensorId) -> Region:
        """Return where a tensor (views too) lies on a device."""
        return self._places[device, self._graph.root(tensor)]

    def tensor(self, device: DeviceId, tensor: TensorId) -> Any:
        """Return the same as kernels take it."""
        key = (device, tensor)
        if key not in self._tensors:
            value = self._graph.tensors[tensor]
            self._tensors[key] = self._driver.tensor(
                self.region(device, tensor), value.shape, value.dtype
            )
        return self._tensors[key]

    def upload_weights(
        self, params: Mapping[TensorId, Array], streams: Mapping[int, Stream]
    ) -> None:
        """Write all weights; returns when they are there.

        Parameters
        ----------
        params
            Their data.
        streams
            A stream for each GPU.
        """
        kept = []
        for _, tensor, region in self._weights:
            value = np.ascontiguousarray(params[tensor])
            if value.nbytes:
                self._driver.upload(region, value, streams[region.device])
                kept.append(value)
        for stream in streams.values():
            self._driver.sync(stream)

    def fill(self, byte: int, streams: Mapping[int, Stream]) -> None:
        """Set every byte of the arenas (not of the weights), on a stream of each GPU."""
        for arena in self._arenas:
            self._driver.fill(arena, byte, streams[arena.device])

    def close(self) -> None:
        """Give all memory back, also where giving back some of it fails."""
        self._tensors.clear()
        self._places.clear()
        self._weights.clear()
        self._arenas.clear()
        memories, self._memories = self._memories, []
        for memory in memories:
            try:
                self._driver.destroy(memory)
            except CudaFailed:
                # A lost context frees nothing any more; its memory goes with the process.
                continue


def byte_view(data: Array, shape: tuple[int, ...], dtype: str) -> Array:
    """Return bytes as an array of a shape and dtype."""
    kind = numpy_dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    return data[:size].view(kind).reshape(shape)
