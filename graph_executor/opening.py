"""Which backend performs a plan, and the checks before it gets its memory."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from graph_executor.backend import Array, Backend, Program
from graph_executor.dtypes import numpy_dtype
from graph_executor.null import NullBackend
from graph_executor.plan import Plan
from hios.errors import ArtifactMismatch, DeviceUnavailable, InvalidOption, UnsupportedModel
from hios.ir.graph import OpGraph, Tensor
from hios.ir.kernels import CompiledGraph
from hios.ir.machine import Machine

if TYPE_CHECKING:
    from graph_executor.cuda.driver import Driver

__all__ = ["ExecutorOptions", "open_backend", "show_shape"]


@dataclass(frozen=True, slots=True)
class ExecutorOptions:
    """How a `GraphExecutor` runs.

    Attributes
    ----------
    backend
        ``auto`` takes the one of the machine's devices; ``null`` runs nothing (a dry run).
    mode
        Of CUDA devices: ``graph`` captures the whole plan once and replays it with one launch,
        ``eager`` issues every launch, copy and event in every run.
    is_validated
        Prove the plan free of races before the first run.
    is_poisoned
        Fill every arena with NaN bytes before each run: a value that is read without having
        been written shows. For tests; costs a pass over the memory.
    driver
        What CUDA devices are reached through (`graph_executor.cuda.driver.Driver`); None: the
        CUDA of this machine.
    """

    backend: Literal["auto", "cpu", "cuda", "null"] = "auto"
    mode: Literal["graph", "eager"] = "graph"
    is_validated: bool = True
    is_poisoned: bool = False
    driver: Any = None

    def validate(self) -> None:
        """Check the values.

        Raises
        ------
        InvalidOption
            When the backend or the mode is unknown.
        """
        if self.backend not in ("auto", "cpu", "cuda", "null"):
            raise InvalidOption(f"unknown backend {self.backend!r}; choose auto, cpu, cuda or null")
        if self.mode not in ("graph", "eager"):
            raise InvalidOption(f"unknown mode {self.mode!r}; choose graph or eager")


def open_backend(
    compiled: CompiledGraph, machine: Machine, plan: Plan, options: ExecutorOptions
) -> Backend:
    """Make a plan ready to run.

    Raises
    ------
    DeviceUnavailable
        When a device cannot be used.
    ArtifactMismatch
        When kernels or weights are missing, or a tensor has another size than its shape says.
    KernelFailed
        When opening runs kernels and one fails.
    """
    graph = compiled.graph
    if options.backend == "null":
        return NullBackend(Program(plan, graph, machine, None, {}))
    kind = machine.devices[0].kind if options.backend == "auto" else options.backend
    for device in machine.devices:
        if kind not in ("cpu", "cuda") or device.kind != kind:
            raise DeviceUnavailable(
                f"device {device.name!r} is of kind {device.kind!r}, which cannot run operators "
                "here; use cpu devices or cuda devices, or the null backend for a dry run"
            )
    driver = None
    if kind == "cuda":
        # Before the kernels are loaded: they need the device too.
        driver = _open_driver(compiled, machine, options)
    module = compiled.library.module
    if module is None:
        raise ArtifactMismatch(
            f"the kernels of {graph.name!r} are not loaded; load the artifact, or compile again"
        )
    _check_sizes(graph)
    for memory in plan.memory:
        for weight in memory.weights:
            _check_weight(graph.tensors[weight.tensor], compiled.params.get(weight.tensor))
    program = Program(plan, graph, machine, module, compiled.params, options.is_poisoned)
    if driver is not None:
        from graph_executor.cuda.backend import CudaBackend

        return CudaBackend(program, driver, options.mode == "graph")
    # TVM takes most of a second to import: only whoever runs kernels pays for it.
    from graph_executor.cpu.backend import CpuBackend

    return CpuBackend(program)


def _open_driver(compiled: CompiledGraph, machine: Machine, options: ExecutorOptions) -> "Driver":
    """Return CUDA, if it has the devices of the machine, and they can run the kernels."""
    from graph_executor.cuda.devices import check_architecture, check_devices
    from graph_executor.cuda.open import open_driver

    driver: Driver = open_driver() if options.driver is None else options.driver
    ordinals = check_devices(driver, machine)
    check_architecture(driver, ordinals, compiled.library.target)
    return driver


def _check_sizes(graph: OpGraph) -> None:
    """Check that the plan gives every tensor the memory that kernels will take as its own.

    Graphs that are only scheduled may leave sizes out; those that run may not.
    """
    for tensor in graph.tensors:
        elements = math.prod(tensor.shape)
        try:
            is_right = tensor.bytes == elements * numpy_dtype(tensor.dtype).itemsize
        except UnsupportedModel:
            is_right = tensor.bytes >= elements  # of a dtype that only kernels know
        if not is_right:
            raise ArtifactMismatch(
                f"tensor {tensor.name!r} has {tensor.bytes} bytes, which "
                f"{show_shape(tensor.shape)} {tensor.dtype} does not take; compile the model again"
            )
        if tensor.alias_of is not None and tensor.bytes > graph.tensors[tensor.alias_of].bytes:
            raise ArtifactMismatch(
                f"view {tensor.name!r} has {tensor.bytes} bytes, the tensor that it views has "
                f"{graph.tensors[tensor.alias_of].bytes}; compile the model again"
            )


def _check_weight(tensor: Tensor, value: Array | None) -> None:
    if value is None:
        raise ArtifactMismatch(f"weight {tensor.name!r} has no data; compile the model again")
    if value.shape != tensor.shape or value.dtype != numpy_dtype(tensor.dtype):
        raise ArtifactMismatch(
            f"weight {tensor.name!r} is {show_shape(value.shape)} {value.dtype}, the graph needs "
            f"{show_shape(tensor.shape)} {tensor.dtype}; compile the model again"
        )


def show_shape(shape: tuple[int, ...]) -> str:
    """Return a shape as people write it, ``1x3x224x224``."""
    return "x".join(map(str, shape)) if shape else "scalar"
