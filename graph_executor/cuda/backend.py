"""A plan ready to run on CUDA devices.

Opening it allocates, uploads the weights, runs the plan once *carefully* (the host waits after
every launch and copy, so that every kernel is loaded on every device where it runs, and one that
fails is named), and captures it. `run` then is one launch of the captured graph, or, in eager
mode, the same calls issued one by one.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from graph_executor.backend import Array, DeviceInput, KernelFailed, Program, Stamp
from graph_executor.cuda.capture import capture_plan
from graph_executor.cuda.devices import check_devices
from graph_executor.cuda.driver import CudaFailed, Driver, Graph, Pinned, Region
from graph_executor.cuda.memory import Arenas, byte_view
from graph_executor.cuda.steps import Step, bind_body, bind_fork, bind_join
from graph_executor.cuda.streams import Streams
from graph_executor.cuda.tracing import Tracer
from graph_executor.dtypes import numpy_dtype
from hios.errors import DeviceUnavailable, ExecutionError, HiosError
from hios.ir.ids import TensorId
from hios.ir.schedule import FIRST_DEVICE

__all__ = ["CudaBackend"]

_POISON = 0xFF

# What a kernel of TVM, or CUDA below it, may raise when it is launched.
_FAILURES = (RuntimeError, ValueError, TypeError)


class CudaBackend:
    """The backend of CUDA devices (`graph_executor.backend.Backend`).

    Parameters
    ----------
    program
        What to run.
    driver
        CUDA.
    is_captured
        Replay one graph, instead of issuing every call in every run.

    Raises
    ------
    DeviceUnavailable
        When a device is not there, is lost, or has too little memory.
    KernelFailed
        When an operator or a copy fails in the first run or in the capture.
    """

    def __init__(self, program: Program, driver: Driver, is_captured: bool = True) -> None:
        self._program = program
        self._driver = driver
        self._lost: str | None = None
        self._streams: Streams | None = None
        self._arenas: Arenas | None = None
        self._tracer: Tracer | None = None
        self._graph: Graph | None = None
        self._pinned: list[Pinned] = []
        self._ordinals = check_devices(driver, program.machine)
        plan, graph = program.plan, program.graph
        try:
            streams = self._streams = Streams(driver, plan, self._ordinals)
            arenas = self._arenas = Arenas(driver, plan, graph, program.machine, self._ordinals)
            self._inputs = [self._port(tensor) for tensor in graph.inputs]
            self._outputs = [self._port(tensor) for tensor in graph.outputs]
            self._fork = bind_fork(driver, streams)
            self._join = bind_join(driver, streams)
            self._body = bind_body(driver, plan, graph, program.module, arenas, streams)
            arenas.upload_weights(program.params, streams.own)
            # Zeros are valid indices: whatever the first run gathers lies in its table.
            arenas.fill(0, streams.own)
            streams.settle()
            self._run_carefully()
            if is_captured:
                self._graph = capture_plan(
                    driver, streams, self._fork, self._issue_body, self._join
                )
                self._leave()
        except BaseException as problem:
            self.close()
            if isinstance(problem, CudaFailed):
                raise self._explain(problem, "cannot be opened") from problem
            raise

    @property
    def graph_nodes(self) -> int | None:
        """How many nodes the captured graph has; None in eager mode."""
        return None if self._graph is None else self._graph.nodes

    def borrow(self, value: Any) -> DeviceInput | None:
        """Look into a DLPack tensor in device memory; None when it is none."""
        found = self._driver.borrow(value, self._open_streams().origin)
        if found is None:
            return None
        region, shape, dtype = found
        return DeviceInput(shape, numpy_dtype(dtype), region)

    def place(self, inputs: Sequence[Array | DeviceInput]) -> None:
        """Write the graph inputs to the first device, from host or device memory."""
        streams, arenas = self._open_streams(), self._open_arenas()
        with self._recovering("cannot take its inputs"):
            if self._program.is_poisoned:
                arenas.fill(_POISON, streams.own)
                streams.settle()
            for (region, pinned), value in zip(self._inputs, inputs, strict=True):
                if region.size_bytes == 0:
                    continue
                if isinstance(value, DeviceInput):
                    self._driver.copy(region, value.place, streams.origin)
                else:
                    pinned[...] = value
                    self._driver.upload(region, pinned, streams.origin)
            # The pinned memory is written anew by the next call.
            self._driver.sync(streams.origin)

    def run(self) -> None:
        """Perform the plan."""
        streams = self._open_streams()
        with self._recovering("failed while it ran"):
            if self._graph is not None:
                self._driver.replay(self._graph, streams.origin)
            else:
                self._issue(self._fork)
                self._issue_body()
                self._issue(self._join)
                self._leave()
            self._driver.sync(streams.origin)

    def trace(self) -> tuple[float, tuple[Stamp, ...]]:
        """Perform the plan eagerly between timed events."""
        streams = self._open_streams()
        with self._recovering("failed while it was traced"):
            if self._tracer is None:
                self._tracer = Tracer(self._driver, self._body, streams.origin)
            tracer = self._tracer
            self._issue(self._fork)
            tracer.begin()
            action = 0
            for step in self._body:
                if not step.is_action:
                    self._issue((step,))
                    continue
                tracer.before(action)
                self._issue((step,))
                tracer.after(action)
                action += 1
            self._issue(self._join)
            tracer.end()
            self._leave()
            self._driver.sync(streams.origin)
            return tracer.read()

    def fetch(self) -> list[Array]:
        """Return the outputs in page-locked memory."""
        origin = self._open_streams().origin
        with self._recovering("cannot give its outputs"):
            for region, pinned in self._outputs:
                if region.size_bytes:
                    self._driver.download(pinned, region, origin)
            self._driver.sync(origin)
        return [pinned for _, pinned in self._outputs]

    def fetch_on_device(self, copy: bool) -> list[Any]:
        """Return the outputs as DLPack tensors on the first device.

        Parameters
        ----------
        copy
            Into memory of their own; without, they are views of the arena, valid until the
            next `place` or `run`.
        """
        graph, arenas = self._program.graph, self._open_arenas()
        origin = self._open_streams().origin
        if not copy:
            return [arenas.tensor(FIRST_DEVICE, tensor) for tensor in graph.outputs]
        found = []
        with self._recovering("cannot give its outputs"):
            for tensor, (region, _) in zip(graph.outputs, self._outputs, strict=True):
                value = graph.tensors[tensor]
                own = self._driver.allocate(region.device, value.bytes)
                target = own.part(0, value.bytes)
                if value.bytes:
                    self._driver.copy(target, region, origin)
                found.append(self._driver.tensor(target, value.shape, value.dtype))
            self._driver.sync(origin)
        return found

    def close(self) -> None:
        """Give everything back; may be called twice, and after any failure."""
        if self._streams is not None:
            self._streams.drain()
        self._fork, self._body, self._join = [], [], []
        self._inputs, self._outputs = [], []
        things: list[Graph | Pinned] = [*self._pinned]
        if self._graph is not None:
            things.insert(0, self._graph)
        self._graph, self._pinned = None, []
        for thing in things:
            try:
                self._driver.destroy(thing)
            except CudaFailed:
                continue
        for part in (self._tracer, self._arenas, self._streams):
            if part is not None:
                part.close()
        self._tracer, self._arenas, self._streams = None, None, None

    def _port(self, tensor: TensorId) -> tuple[Region, Array]:
        """Return where an input or output lies, and page-locked memory for it."""
        value = self._program.graph.tensors[tensor]
        region = self._open_arenas().region(FIRST_DEVICE, tensor)
        part = Region(region.device, region.pointer, value.bytes, region.owner)
        pinned = self._driver.allocate_pinned(value.bytes)
        self._pinned.append(pinned)
        return part, byte_view(pinned.data, value.shape, value.dtype)

    def _run_carefully(self) -> None:
        """Run the plan once and wait for every action by itself."""
        self._issue(self._fork)
        for step in self._body:
            self._issue((step,), self._driver.sync if step.is_action else None)
        self._issue(self._join)
        self._leave()
        self._driver.sync(self._open_streams().origin)

    def _issue_body(self) -> None:
        self._issue(self._body)

    def _issue(self, steps: Iterable[Step], then: Callable[[Any], None] | None = None) -> None:
        """Make the calls; what fails is told with its instruction."""
        for step in steps:
            try:
                step.call()
                if then is not None:
                    then(step.stream)
            except _FAILURES as reason:
                self._leave()
                if step.queue is None or step.position is None:
                    raise
                raise KernelFailed(step.queue, step.position, reason) from reason

    def _leave(self) -> None:
        for ordinal in dict.fromkeys(self._ordinals):
            self._driver.leave(ordinal)

    @contextmanager
    def _recovering(self, what: str) -> Iterator[None]:
        """Leave streams idle behind a failure, and give everything back if a device is lost."""
        try:
            self._driver.enter(self._ordinals[0])
            yield
        except (KernelFailed, CudaFailed) as problem:
            shown = None if self._streams is None else self._streams.drain()
            failed = problem if isinstance(problem, CudaFailed) else problem.reason
            for one in (failed, shown):
                if isinstance(one, CudaFailed) and one.is_lost:
                    self._lost = str(one)
            if self._lost is not None:
                self.close()
            if isinstance(problem, CudaFailed):
                raise self._explain(problem, what) from problem
            raise

    def _explain(self, failed: CudaFailed, what: str) -> HiosError:
        """Return the error to raise for what no single instruction of the plan is blamed for."""
        where = "a device"
        for device, ordinal in zip(self._program.machine.devices, self._ordinals, strict=True):
            if ordinal == failed.device:
                where = f"device {device.name!r}"
                break
        if failed.is_lost:
            advice = (
                "start a new process; eager mode with CUDA_LAUNCH_BLOCKING=1 names the operator"
            )
        elif failed.is_out_of_memory:
            advice = "free memory there, use more devices or a smaller input"
        else:
            advice = "`hios doctor` says what this machine has"
        is_gone = failed.is_lost or failed.is_out_of_memory
        kind = DeviceUnavailable if is_gone else ExecutionError
        return kind(
            f"{self._program.plan.graph!r} {what}: {failed.call} on {where} gave {failed.code} "
            f"({failed.text}); {advice}"
        )

    def _open_streams(self) -> Streams:
        if self._streams is None:
            raise self._closed()
        return self._streams

    def _open_arenas(self) -> Arenas:
        if self._arenas is None:
            raise self._closed()
        return self._arenas

    def _closed(self) -> DeviceUnavailable:
        name = self._program.plan.graph
        if self._lost is None:
            return DeviceUnavailable(f"{name!r} is closed; make a new executor")
        return DeviceUnavailable(
            f"{name!r} lost a device in an earlier run ({self._lost}); start a new process"
        )
