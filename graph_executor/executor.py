"""Runs a compiled graph as a schedule says.

`GraphExecutor` owns one backend: it makes the plan, proves it free of races, checks inputs,
keeps runs apart, and turns what goes wrong into errors that name the operator.
"""

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import numpy as np

from graph_executor.backend import Array, Backend, DeviceInput, KernelFailed, Stamp
from graph_executor.dtypes import numpy_dtype
from graph_executor.embedded import read_embedded
from graph_executor.opening import ExecutorOptions, open_backend, show_shape
from graph_executor.plan import Copy, Launch, Plan, StreamQueue
from graph_executor.planner import make_plan
from hios.errors import ExecutionError, InputMismatch, InvalidOption
from hios.ir.graph import OpGraph, Tensor
from hios.ir.kernels import CompiledGraph
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.ir.timeline import Timeline, TimelineEvent
from hios.ir.validation import validate_schedule
from hios.statistics import Samples

__all__ = ["ExecutorOptions", "GraphExecutor", "output_names", "random_inputs"]

# Kinds of memory that the host reads (dlpack.h): its own, page-locked and managed.
_HOST = (1, 3, 13)


class GraphExecutor:
    """A compiled graph on the devices of a machine.

    Parameters
    ----------
    compiled
        Graph, kernels and weights; or an executable of TVM's virtual machine that carries them
        with a schedule (see `graph_executor.embedded`).
    machine
        The devices; None for those that the executable names.
    schedule
        What runs where, in which order; None for that of the executable.
    options
        See `ExecutorOptions`.

    Raises
    ------
    InfeasibleSchedule
        When the schedule does not fit the graph or the machine.
    DeviceUnavailable
        When a device cannot be used.
    ArtifactMismatch
        When kernels or weights are missing, or a tensor has another size than its shape says.

    Notes
    -----
    Calls of `run` from several threads are served one after another. A forked child cannot use
    the executor of its parent.
    """

    def __init__(
        self,
        compiled: CompiledGraph | Any,
        machine: Machine | None = None,
        schedule: Schedule | None = None,
        options: ExecutorOptions | None = None,
    ) -> None:
        options = options or ExecutorOptions()
        options.validate()
        if not isinstance(compiled, CompiledGraph):
            embedded = read_embedded(compiled)
            compiled = embedded.compiled
            machine = machine or embedded.machine
            schedule = schedule or embedded.schedule
        if machine is None or schedule is None:
            missing = "machine" if machine is None else "schedule"
            raise InvalidOption(
                f"no {missing} for graph {compiled.graph.name!r}; pass {missing}=..."
            )
        machine.validate()
        validate_schedule(compiled.graph, machine, schedule)
        self._compiled = compiled
        self._machine = machine
        self._schedule = schedule
        self._plan = make_plan(compiled.graph, machine, schedule)
        if options.is_validated:
            self._plan.validate(compiled.graph)
        graph = compiled.graph
        self._inputs = {graph.tensors[t].name: graph.tensors[t] for t in graph.inputs}
        self._input_dtypes = {n: numpy_dtype(t.dtype) for n, t in self._inputs.items()}
        self._outputs = output_names(compiled)
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._is_closed = False
        # Opening may run kernels already: what fails there is named as in a run.
        with self._named_failures():
            self._backend: Backend = open_backend(compiled, machine, self._plan, options)

    @property
    def graph(self) -> OpGraph:
        """The operator graph."""
        return self._compiled.graph

    @property
    def machine(self) -> Machine:
        """The devices."""
        return self._machine

    @property
    def schedule(self) -> Schedule:
        """What runs where."""
        return self._schedule

    @property
    def plan(self) -> Plan:
        """The instructions made from it."""
        return self._plan

    @property
    def graph_nodes(self) -> int | None:
        """Nodes of the CUDA graph that the whole plan was captured as; None where there is none."""
        nodes: int | None = getattr(self._backend, "graph_nodes", None)
        return nodes

    @property
    def input_signature(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of each input, by name."""
        return {name: (t.shape, t.dtype) for name, t in self._inputs.items()}

    @property
    def output_signature(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of each output, by name."""
        tensors = [self.graph.tensors[t] for t in self.graph.outputs]
        return {name: (t.shape, t.dtype) for name, t in zip(self._outputs, tensors, strict=True)}

    def run(
        self, inputs: Mapping[str, Any], *, copy: bool = True, on_device: bool = False
    ) -> dict[str, Any]:
        """Run the graph once.

        Parameters
        ----------
        inputs
            An array per graph input: numpy, or anything with ``__dlpack__`` in host memory,
            or, on CUDA devices, in that of any of them. Shape and dtype must be those of the
            signature.
        copy
            Return arrays of their own. With False they are views of the executor's memory,
            valid until the next run.
        on_device
            Return DLPack tensors in the memory of the first device, which must be a CUDA
            device, instead of numpy arrays. They are complete when this returns.

        Returns
        -------
        dict
            The graph outputs by name.

        Raises
        ------
        InputMismatch
            When an input is missing, unknown, or has the wrong shape or dtype.
        ExecutionError
            When a kernel fails, or the executor is closed or belongs to another process.
        """
        arrays = self._check_inputs(inputs)
        with self._exclusive():
            self._backend.place(arrays)
            self._perform()
            if on_device:
                tensors = self._backend.fetch_on_device(copy)
                return dict(zip(self._outputs, tensors, strict=True))
            found = self._backend.fetch()
            if copy:
                found = [array.copy() for array in found]
            return dict(zip(self._outputs, found, strict=True))

    def benchmark(
        self, repeat: int = 50, warmup: int = 5, inputs: Mapping[str, Any] | None = None
    ) -> Samples:
        """Time runs from 'inputs on the first device' until 'outputs on the first device'.

        Parameters
        ----------
        repeat
            How many runs are timed.
        warmup
            How many runs before them are not.
        inputs
            As `run` takes them; by default random ones.

        Raises
        ------
        InvalidOption
            When `repeat` is below 1 or `warmup` below 0.
        """
        if repeat < 1 or warmup < 0:
            raise InvalidOption(
                f"benchmark with repeat={repeat}, warmup={warmup}; need repeat ≥ 1, warmup ≥ 0"
            )
        arrays = self._check_inputs(random_inputs(self.graph) if inputs is None else inputs)
        times = []
        with self._exclusive():
            for turn in range(warmup + repeat):
                # An input buffer may be reused during a run: place it anew each time.
                self._backend.place(arrays)
                begin = time.perf_counter_ns()
                self._perform()
                if turn >= warmup:
                    times.append((time.perf_counter_ns() - begin) / 1e3)
        return Samples.of(times)

    def profile(
        self, runs: int = 9, warmup: int = 3, inputs: Mapping[str, Any] | None = None
    ) -> Timeline:
        """Measure when every operator and transfer runs.

        Parameters
        ----------
        runs
            How many runs are measured; the one of median length is returned, as it was.
        warmup
            How many runs before them are not measured.
        inputs
            As `run` takes them; by default random ones.

        Returns
        -------
        Timeline
            Measured. It ends when the outputs are on the first device.
        """
        timelines = self.timelines(runs, warmup, inputs)
        return sorted(timelines, key=lambda t: t.makespan_us)[(len(timelines) - 1) // 2]

    def timelines(
        self, runs: int = 9, warmup: int = 3, inputs: Mapping[str, Any] | None = None
    ) -> tuple[Timeline, ...]:
        """Measure when every operator and transfer runs, `runs` times in a row.

        Parameters
        ----------
        runs, warmup, inputs
            As in `profile`.

        Raises
        ------
        InvalidOption
            When `runs` is below 1 or `warmup` below 0.
        """
        if runs < 1 or warmup < 0:
            raise InvalidOption(
                f"profile with runs={runs}, warmup={warmup}; need runs ≥ 1, warmup ≥ 0"
            )
        arrays = self._check_inputs(random_inputs(self.graph) if inputs is None else inputs)
        traces: list[tuple[float, tuple[Stamp, ...]]] = []
        with self._exclusive():
            for turn in range(warmup + runs):
                self._backend.place(arrays)
                with self._named_failures():
                    trace = self._backend.trace()
                if turn >= warmup:
                    traces.append(trace)
        return tuple(self._timeline(*trace) for trace in traces)

    def close(self) -> None:
        """End all threads and give the memory back; may be called twice.

        Raises
        ------
        ExecutionError
            When a run is still going on in another thread.
        """
        if self._is_closed or os.getpid() != self._process:
            self._is_closed = True
            return
        if not self._lock.acquire(blocking=False):
            raise ExecutionError(
                f"close() of {self.graph.name!r} during a run in another thread; let the run "
                "return first"
            )
        try:
            self._is_closed = True
            self._backend.close()
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the executor for one caller."""
        if os.getpid() != self._process:
            raise ExecutionError(
                f"the executor of {self.graph.name!r} belongs to process {self._process}, not "
                f"to its fork {os.getpid()}; make one executor per process"
            )
        with self._lock:
            if self._is_closed:
                raise ExecutionError(
                    f"the executor of {self.graph.name!r} is closed; make a new one"
                )
            yield

    def _perform(self) -> None:
        with self._named_failures():
            self._backend.run()

    @contextmanager
    def _named_failures(self) -> Iterator[None]:
        try:
            yield
        except KernelFailed as failed:
            raise ExecutionError(self._describe(failed)) from failed.reason

    def _describe(self, failed: KernelFailed) -> str:
        queue = self._plan.queues[failed.queue]
        instruction = queue.instructions[failed.position]
        devices = self._machine.devices
        if isinstance(queue, StreamQueue):
            where = f"on {devices[queue.device].name} stream {queue.stream}"
        else:
            where = f"from {devices[queue.src].name} to {devices[queue.dst].name}"
        if isinstance(instruction, Launch):
            operator = self.graph.operators[instruction.op]
            what = f"operator {operator.name!r} (kernel {operator.kernel!r})"
        elif isinstance(instruction, Copy):
            what = f"copy of tensor {self.graph.tensors[instruction.tensor].name!r}"
        else:
            what = "an event"
        lines = str(failed.reason).strip().splitlines()
        reason = lines[0] if lines else type(failed.reason).__name__
        return f"{what} failed {where}: {reason}"

    def _timeline(self, makespan_us: float, stamps: tuple[Stamp, ...]) -> Timeline:
        events = []
        for stamp in stamps:
            queue = self._plan.queues[stamp.queue]
            instruction = queue.instructions[stamp.position]
            stream = queue.stream if isinstance(queue, StreamQueue) else None
            if isinstance(instruction, Launch) and isinstance(queue, StreamQueue):
                event = TimelineEvent(
                    "operator",
                    instruction.op,
                    queue.device,
                    stamp.start_us,
                    stamp.end_us,
                    stream,
                    instruction.stage,
                )
            elif isinstance(instruction, Copy):
                event = TimelineEvent(
                    "transfer",
                    instruction.tensor,
                    instruction.src,
                    stamp.start_us,
                    stamp.end_us,
                    stream,
                    dst=instruction.dst,
                )
            else:
                continue
            events.append(event)
        events.sort(key=lambda e: (e.start_us, e.kind, e.device, e.stream or 0, e.subject))
        timeline = Timeline("measured", makespan_us, tuple(events))
        timeline.validate()
        return timeline

    def _check_inputs(self, inputs: Mapping[str, Any]) -> list[Array | DeviceInput]:
        if not isinstance(inputs, Mapping):
            raise InputMismatch(
                f"inputs are a {type(inputs).__name__}, need a mapping from name to array; "
                f"{self._expected()}"
            )
        if unknown := [name for name in inputs if name not in self._inputs]:
            raise InputMismatch(f"no input {unknown[0]!r}; {self._expected()}")
        arrays: list[Array | DeviceInput] = []
        for name, tensor in self._inputs.items():
            if name not in inputs:
                raise InputMismatch(f"input {name!r} is missing; {self._expected()}")
            array = self._as_input(name, inputs[name])
            if array.shape != tensor.shape:
                raise InputMismatch(
                    f"input {name!r} has shape {show_shape(array.shape)}, needs "
                    f"{show_shape(tensor.shape)}"
                )
            if array.dtype != self._input_dtypes[name]:
                raise InputMismatch(
                    f"input {name!r} has dtype {array.dtype}, needs {tensor.dtype}; convert it "
                    f"with .astype({tensor.dtype!r})"
                )
            arrays.append(array)
        return arrays

    def _as_input(self, name: str, value: Any) -> Array | DeviceInput:
        if hasattr(value, "__dlpack_device__") and value.__dlpack_device__()[0] not in _HOST:
            borrowed = self._backend.borrow(value)
            if borrowed is None:
                raise InputMismatch(
                    f"input {name!r} lies in device memory that this model cannot read, or is "
                    "not contiguous; move it to host memory"
                )
            return borrowed
        return _as_array(name, value)

    def _expected(self) -> str:
        expected = ", ".join(
            f"{name}: {show_shape(t.shape)} {t.dtype}" for name, t in self._inputs.items()
        )
        return f"this model takes {expected}"


def output_names(compiled: CompiledGraph) -> tuple[str, ...]:
    """Return one distinct name per graph output.

    The names of the model's signature (``attrs["outputs"]``, one a line) where they are known,
    else those of the tensors; a name that comes again gets a number.
    """
    graph = compiled.graph
    known = compiled.attrs.get("outputs", "").split("\n")
    names = known if len(known) == len(graph.outputs) and all(known) else None
    found: list[str] = []
    for position, tensor in enumerate(graph.outputs):
        name = names[position] if names else graph.tensors[tensor].name
        distinct = name
        number = 1
        while distinct in found:
            number += 1
            distinct = f"{name}_{number}"
        found.append(distinct)
    return tuple(found)


def random_inputs(graph: OpGraph, seed: int = 0) -> dict[str, Array]:
    """Return inputs for tests and timings: normal floats, small integers, seeded."""
    rng = np.random.default_rng(seed)
    return {graph.tensors[t].name: _random(rng, graph.tensors[t]) for t in graph.inputs}


def _random(rng: np.random.Generator, tensor: Tensor) -> Array:
    dtype = numpy_dtype(tensor.dtype)
    if dtype.kind in "iub":
        return rng.integers(0, 2, tensor.shape).astype(dtype)
    return rng.standard_normal(tensor.shape, dtype=np.float32).astype(dtype)


def _as_array(name: str, value: Any) -> Array:
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    if hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError, ValueError) as problem:
            raise InputMismatch(
                f"input {name!r} cannot be read through DLPack ({problem}); pass it as a numpy "
                "array or move it to host memory"
            ) from problem
    raise InputMismatch(
        f"input {name!r} is a {type(value).__name__}; pass a numpy array or a DLPack tensor"
    )
