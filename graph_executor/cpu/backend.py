"""Performs a plan on CPU devices: one thread per stream, one arena per device.

Every instruction becomes one call without arguments, bound when the backend is made: a kernel
with its tensors, a copy between two arenas, a gate to open or to wait at. Where consecutive
launches of a thread use different cores (a wide operator, then one group of a stage), a call
that sets its threads stands between them.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from graph_executor import tvm_runtime
from graph_executor.backend import Array, DeviceInput, KernelFailed, Program, Stamp
from graph_executor.cpu.affinity import Cores, assign_cores, device_cores, may_spin
from graph_executor.cpu.gates import Gate, SleepGate, SpinGate, spinning_is_available
from graph_executor.cpu.team import CallFailed, Step, Team
from graph_executor.plan import Copy, Launch, Record, Wait
from hios.errors import DeviceUnavailable, ExecutionError, InvalidOption
from hios.ir.ids import DeviceId, TensorId
from hios.ir.schedule import FIRST_DEVICE

__all__ = ["CpuBackend"]


class CpuBackend:
    """See the module; the methods are those of `graph_executor.backend.Backend`.

    Raises
    ------
    DeviceUnavailable
        When a device is no CPU or its cores cannot be used.
    ArtifactMismatch
        When the library lacks a kernel.
    ExecutionError
        When memory cannot be allocated.
    """

    def __init__(self, program: Program) -> None:
        plan = program.plan
        if plan.links:
            raise DeviceUnavailable(
                "this plan has links that copy on their own; on cpu devices the destination's "
                "threads copy, so plan for a machine of cpu devices"
            )
        self._program = program
        cores = device_cores(program.machine)
        assigned = assign_cores(plan, cores)
        self._memory = _Arenas(program)
        self._team = Team(
            [f"hios-{queue.device}.{queue.stream}" for queue in plan.streams],
            [_settle(cores[queue.device]) for queue in plan.streams],
        )
        try:
            self._steps, self._sources = self._bind(assigned, may_spin(plan, cores, assigned))
        except BaseException:
            self._team.close()
            raise
        for device, weights in enumerate(plan.memory):
            for buffer in weights.weights:
                target = self._memory.array(DeviceId(device), buffer.tensor)
                target[...] = program.params[buffer.tensor].reshape(target.shape)
        self._inputs = [self._memory.array(FIRST_DEVICE, t) for t in program.graph.inputs]
        self._outputs = [self._memory.array(FIRST_DEVICE, t) for t in program.graph.outputs]

    def _bind(
        self, assigned: Sequence[Sequence[Cores]], safe: set[tuple[int, int]]
    ) -> tuple[list[list[Step]], list[list[int]]]:
        """Return the calls of every list, and from which instruction each comes."""
        plan = self._program.plan
        gates: dict[int, list[Gate]] = {}
        passes: dict[tuple[int, int], Step] = {}
        for number, queue in enumerate(plan.streams):
            for position, instruction in enumerate(queue.instructions):
                if isinstance(instruction, Wait):
                    spins = (number, position) in safe and spinning_is_available()
                    gate: Gate = SpinGate() if spins else SleepGate()
                    gates.setdefault(instruction.event, []).append(gate)
                    passes[number, position] = self._team.gate(gate)
        kernels: dict[str, tvm_runtime.Kernel] = {}
        lists: list[list[Step]] = []
        sources: list[list[int]] = []
        for number, queue in enumerate(plan.streams):
            steps: list[Step] = []
            origin: list[int] = []
            current = device_cores(self._program.machine)[queue.device]
            for position, instruction in enumerate(queue.instructions):
                match instruction:
                    case Launch(op=op):
                        if assigned[number][position] != current:
                            current = assigned[number][position]
                            steps.append(tvm_runtime.set_threads(current))
                            origin.append(position)
                        steps.append(self._launch(queue.device, op, kernels))
                    case Copy(tensor=tensor, src=src, dst=dst):
                        steps.append(
                            tvm_runtime.bind_copy(
                                self._memory.tensor(src, tensor), self._memory.tensor(dst, tensor)
                            )
                        )
                    case Record(event=event):
                        opened = [gate.open for gate in gates.get(event, ())]
                        if not opened:
                            continue
                        steps.append(opened[0] if len(opened) == 1 else partial(_open, opened))
                    case Wait():
                        steps.append(passes[number, position])
                origin.append(position)
            # The next run starts with all cores again.
            if current != device_cores(self._program.machine)[queue.device]:
                steps.append(
                    tvm_runtime.set_threads(device_cores(self._program.machine)[queue.device])
                )
                origin.append(len(queue.instructions) - 1)
            lists.append(steps)
            sources.append(origin)
        return lists, sources

    def _launch(self, device: DeviceId, op: int, kernels: dict[str, tvm_runtime.Kernel]) -> Step:
        operator = self._program.graph.operators[op]
        if operator.kernel not in kernels:
            kernels[operator.kernel] = tvm_runtime.find_kernel(
                self._program.module, operator.kernel
            )
        tensors = [
            self._memory.tensor(device, tensor) for tensor in (*operator.inputs, *operator.outputs)
        ]
        return tvm_runtime.bind_launch(kernels[operator.kernel], tensors)

    def borrow(self, value: Any) -> DeviceInput | None:
        """Return None: everything lies in host memory."""
        return None

    def place(self, inputs: Sequence[Array | DeviceInput]) -> None:
        """Write the graph inputs."""
        if self._program.is_poisoned:
            self._memory.poison()
        for target, value in zip(self._inputs, inputs, strict=True):
            target[...] = value

    def run(self) -> None:
        """Perform the plan."""
        try:
            self._team.run(self._steps)
        except CallFailed as failed:
            raise self._locate(failed) from failed.reason

    def trace(self) -> tuple[float, tuple[Stamp, ...]]:
        """Perform the plan and return when each launch and copy ran."""
        try:
            begin, times = self._team.run_stamped(self._steps)
        except CallFailed as failed:
            raise self._locate(failed) from failed.reason
        stamps = []
        end = begin
        for number, own in enumerate(times):
            instructions = self._program.plan.streams[number].instructions
            origin = self._sources[number]
            end = max(end, own[-1])
            for index, position in enumerate(origin):
                is_last = index + 1 == len(origin) or origin[index + 1] != position
                if is_last and isinstance(instructions[position], Launch | Copy):
                    stamps.append(
                        Stamp(
                            number,
                            position,
                            (own[index] - begin) / 1e3,
                            (own[index + 1] - begin) / 1e3,
                        )
                    )
        return (end - begin) / 1e3, tuple(stamps)

    def fetch(self) -> list[Array]:
        """Return the outputs where they lie."""
        return self._outputs

    def fetch_on_device(self, copy: bool) -> list[Any]:
        """Refuse: there is no device memory."""
        raise InvalidOption("outputs on the device of a CPU or dry run; ask for host arrays")

    def close(self) -> None:
        """End the threads and drop the memory."""
        self._team.close()
        self._steps = []
        self._inputs = []
        self._outputs = []
        self._memory.drop()

    def _locate(self, failed: CallFailed) -> KernelFailed:
        position = self._sources[failed.worker][failed.position]
        return KernelFailed(failed.worker, position, failed.reason)


def _open(opened: Sequence[Callable[[], None]]) -> None:
    for gate in opened:
        gate()


def _settle(cores: Cores) -> Step:
    """Return the first call of a worker: a pool as large as its device."""
    return tvm_runtime.set_threads(cores)


class _Arenas:
    """The memory of all devices, and every tensor in it."""

    def __init__(self, program: Program) -> None:
        self._graph = program.graph
        self._arenas: list[tvm_runtime.Memory] = []
        self._weights: list[tvm_runtime.Memory] = []
        self._places: dict[tuple[int, TensorId], tuple[tvm_runtime.Memory, int]] = {}
        for memory in program.plan.memory:
            device = program.machine.devices[memory.device]
            try:
                arena = tvm_runtime.Memory("cpu", memory.device, memory.arena_bytes)
                weights = tvm_runtime.Memory("cpu", memory.device, memory.weight_bytes)
            except (MemoryError, RuntimeError) as problem:
                raise ExecutionError(
                    f"device {device.name!r} has no {memory.arena_bytes + memory.weight_bytes} "
                    "bytes left; free memory or use fewer devices"
                ) from problem
            self._arenas.append(arena)
            self._weights.append(weights)
            for buffer in memory.buffers:
                self._places[memory.device, buffer.tensor] = (arena, buffer.offset)
            for buffer in memory.weights:
                self._places[memory.device, buffer.tensor] = (weights, buffer.offset)

    def tensor(self, device: DeviceId, tensor: TensorId) -> object:
        """Return a tensor (views too) as kernels of `device` take it."""
        memory, offset = self._places[device, self._graph.root(tensor)]
        value = self._graph.tensors[tensor]
        return memory.tensor(offset, value.shape, value.dtype)

    def array(self, device: DeviceId, tensor: TensorId) -> Array:
        """Return the same as a numpy array."""
        memory, offset = self._places[device, self._graph.root(tensor)]
        value = self._graph.tensors[tensor]
        return memory.array(offset, value.shape, value.dtype)

    def poison(self) -> None:
        """Fill the arenas (not the weights) with bytes that are NaN in every float format."""
        for arena in self._arenas:
            arena.fill(0xFF)

    def drop(self) -> None:
        """Forget all memory; it goes when its last tensor goes."""
        self._arenas.clear()
        self._weights.clear()
        self._places.clear()
