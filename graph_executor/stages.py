"""Measured stages: how long groups take that run at once on one device.

Each group has a thread and its share of the device's cores. The first thread opens a gate for
each of the others, so that all start together; the time of the stage is from there until the
last one is done. Every operator has tensors of its own with random data.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from graph_executor.dtypes import numpy_dtype
from hios.costs.protocol import Stage
from hios.errors import InvalidOption
from hios.ir.ids import DeviceId, OpId, TensorId
from hios.ir.kernels import CompiledGraph
from hios.ir.machine import Machine
from hios.statistics import Samples

if TYPE_CHECKING:
    from graph_executor.cpu.gates import Gate
    from graph_executor.cpu.team import Step

__all__ = ["measure_stages"]


def measure_stages(
    compiled: CompiledGraph,
    machine: Machine,
    stages: Sequence[tuple[DeviceId, Stage]],
    runs: int = 15,
    warmup: int = 3,
) -> list[Samples]:
    """Measure stages.

    Parameters
    ----------
    compiled
        Graph and kernels.
    machine
        Devices of kind ``cpu``.
    stages
        Each with its device.
    runs, warmup
        How often each stage runs counted, and before that not counted.

    Returns
    -------
    list of Samples
        One per stage.

    Raises
    ------
    DeviceUnavailable
        When a device is no CPU or its cores cannot be used.
    InvalidOption
        When `runs` is below 1 or a stage has no operator.
    """
    from graph_executor.cpu.affinity import device_cores

    if runs < 1 or warmup < 0:
        raise InvalidOption(
            f"measuring stages with runs={runs}, warmup={warmup}; need runs ≥ 1, warmup ≥ 0"
        )
    cores = device_cores(machine)
    return [
        _measure(compiled, cores[device], int(device), groups, runs, warmup)
        for device, groups in stages
    ]


def _measure(
    compiled: CompiledGraph,
    cores: tuple[int, ...],
    device: int,
    groups: Stage,
    runs: int,
    warmup: int,
) -> Samples:
    from graph_executor import tvm_runtime
    from graph_executor.cpu.affinity import split_cores
    from graph_executor.cpu.gates import SleepGate, SpinGate, spinning_is_available
    from graph_executor.cpu.team import Team

    if not groups or any(len(group) == 0 for group in groups):
        raise InvalidOption("a stage to measure has no operators")
    parts = split_cores(cores, len(groups))
    spins = spinning_is_available() and len(groups) <= len(cores)
    team = Team(
        [f"hios-group-{i}" for i in range(len(groups))],
        [tvm_runtime.set_threads(part) for part in parts],
    )
    try:
        gates: list[Gate] = [SpinGate() if spins else SleepGate() for _ in groups[1:]]
        programs: list[list[Step]] = [[_open_all(gates)]]
        programs += [[team.gate(gate)] for gate in gates]
        for program, group in zip(programs, groups, strict=True):
            program += [_launch(compiled, op, device) for op in group]
        times = []
        for turn in range(warmup + runs):
            _, stamps = team.run_stamped(programs)
            if turn >= warmup:
                times.append((max(own[-1] for own in stamps) - stamps[0][1]) / 1e3)
    finally:
        team.close()
    return Samples.of(times)


def _open_all(gates: "Sequence[Gate]") -> "Step":
    def open_all() -> None:
        for gate in gates:
            gate.open()

    return open_all


def _launch(compiled: CompiledGraph, op: OpId, device: int) -> "Step":
    from graph_executor import tvm_runtime

    graph = compiled.graph
    operator = graph.operators[op]
    kernel = tvm_runtime.find_kernel(compiled.library.module, operator.kernel)
    tensors = []
    made: dict[TensorId, object] = {}
    rng = np.random.default_rng(op)
    for tensor in (*operator.inputs, *operator.outputs):
        if tensor not in made:
            value = graph.tensors[tensor]
            memory = tvm_runtime.Memory("cpu", device, value.bytes)
            array = memory.array(0, value.shape, value.dtype)
            if numpy_dtype(value.dtype).kind in "iub":
                array[...] = 0
            else:
                array[...] = rng.standard_normal(value.shape, dtype=np.float32)
            made[tensor] = memory.tensor(0, value.shape, value.dtype)
        tensors.append(made[tensor])
    return tvm_runtime.bind_launch(kernel, tensors)
