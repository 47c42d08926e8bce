"""Costs from first principles: the roofline, and how much of a device an operator fills.

An operator takes ``max(flops / peak, bytes / bandwidth)`` (Williams, Waterman and Patterson,
"Roofline", CACM 2009) plus a launch overhead. On a GPU a grid of fewer blocks than there are
multiprocessors reaches only that share of the peak; on a CPU the same holds for the extent of
the parallel loop and the cores. Utilisation is the share of the device's resident threads (or
cores) that the launch fills, and concurrent groups cost what the HIOS paper says (see
`hios.costs.table`). These costs rank schedules before anything was measured; they are no
forecast of milliseconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hios.costs.protocol import Stage
from hios.costs.table import least_shared_us, utilization_stage_us
from hios.errors import InvalidCosts
from hios.ir.graph import Operator, OpGraph
from hios.ir.ids import DeviceId, OpId, TensorId
from hios.ir.machine import Device, Link, Machine

__all__ = ["CPU_LAUNCH_US", "CUDA_LAUNCH_US", "AnalyticCosts"]

CUDA_LAUNCH_US = 2.5
"""What a kernel costs beyond its work: 0.5 µs a node of a CUDA graph (A. Gray, "Getting Started
with CUDA Graphs", NVIDIA developer blog, 2019: 3.4 µs per kernel of 2.9 µs), and 2 µs assumed
for its own start and end on the device."""

CPU_LAUNCH_US = 1.0
"""A packed call through TVM's runtime; a preset, not measured here."""

_RESIDENT_THREADS = 2048
"""Threads resident on one multiprocessor: 2048 for compute capability 7.0, 8.0 and 9.0 (CUDA C++
Programming Guide, table of technical specifications; 1536 for 8.6)."""

_THREADS_PER_BLOCK = 256
"""Assumed where an operator does not tell its launch: one thread per output element."""


@dataclass(frozen=True, slots=True)
class AnalyticCosts:
    """Roofline costs of one graph on one machine.

    Parameters
    ----------
    graph
        Its operators need `flops`, `bytes_read` and `bytes_written`; `launch` helps.
    machine
        Its devices need `peak_gflops` and `bandwidth_gb_s`.
    peak_fraction
        Part of the peak rate and bandwidth that a kernel reaches, in (0, 1].

    Raises
    ------
    InvalidCosts
        When a device lacks a figure, or `peak_fraction` is out of range.
    """

    graph: OpGraph
    machine: Machine
    peak_fraction: float = 1.0
    _times_us: tuple[tuple[float, ...], ...] = field(init=False, repr=False, compare=False)
    _fill: tuple[tuple[float, ...], ...] = field(init=False, repr=False, compare=False)
    _links: dict[tuple[int, int], Link] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compute all times once."""
        if not 0.0 < self.peak_fraction <= 1.0:
            raise InvalidCosts(f"peak_fraction is {self.peak_fraction}; need 0 < fraction ≤ 1")
        for device in self.machine.devices:
            if device.peak_gflops is None or device.bandwidth_gb_s is None:
                raise InvalidCosts(
                    f"device {device.name!r} has no peak_gflops or bandwidth_gb_s; analytic costs "
                    "need both: take a machine preset or measure"
                )
        times, fill = [], []
        for op in self.graph.operators:
            launches = [self._launch(op, device) for device in self.machine.devices]
            times.append(
                tuple(
                    self._roofline_us(op, device, reach)
                    for device, (reach, _) in zip(self.machine.devices, launches, strict=True)
                )
            )
            fill.append(tuple(filled for _, filled in launches))
        object.__setattr__(self, "_times_us", tuple(times))
        object.__setattr__(self, "_fill", tuple(fill))
        links = {(int(link.src), int(link.dst)): link for link in self.machine.links}
        object.__setattr__(self, "_links", links)

    def operator_us(self, op: OpId, device: DeviceId) -> float:
        """Return the roofline time of `op` plus the launch overhead."""
        return self._times_us[op][device]

    def utilization(self, op: OpId, device: DeviceId) -> float:
        """Return the fraction of `device` that `op` fills, in [0, 1]."""
        return self._fill[op][device]

    def stage_us(self, groups: Stage, device: DeviceId) -> float:
        """Return the time of concurrent groups by the HIOS paper's formula."""
        times, fill = self._times_us, self._fill
        solo = [sum([times[op][device] for op in group]) for group in groups]
        if len(solo) < 2:
            return solo[0] if solo else 0.0
        demand = sum([times[op][device] * fill[op][device] for group in groups for op in group])
        return utilization_stage_us(solo, demand)

    def stage_us_many(self, stages: Sequence[Stage], device: DeviceId) -> list[float]:
        """Return `stage_us` of each stage."""
        return [self.stage_us(stage, device) for stage in stages]

    def least_work_us(self, op: OpId, device: DeviceId, is_staged: bool) -> float:
        """Return the least time of `device` that `op` takes away from others."""
        solo, fill = self._times_us[op][device], self._fill[op][device]
        return least_shared_us(solo, fill, is_staged)

    def transfer_us(self, tensor: TensorId, src: DeviceId, dst: DeviceId) -> float:
        """Return latency plus bytes over bandwidth of the link.

        Raises
        ------
        InvalidMachine
            When the machine has no such link.
        """
        if src == dst:
            return 0.0
        # Looked up here since schedulers ask once per tensor and pair; the machine names what
        # is missing.
        link = self._links.get((src, dst)) or self.machine.link(src, dst)
        return link.transfer_us(self.graph.tensors[tensor].bytes)

    def _launch(self, op: Operator, device: Device) -> tuple[float, float]:
        """Return (share of the peak within reach, share of the device filled)."""
        units = device.compute_units or len(device.cores) or 1
        if device.kind == "cpu":
            extent = op.launch.get("parallel_extent", units)
            share = min(1.0, extent / units)
            return share, share
        block = op.launch.get("block", _THREADS_PER_BLOCK)
        grid = op.launch.get("grid")
        if grid is None:
            elements = sum(self._elements(tensor) for tensor in op.outputs)
            grid = max(1, -(-elements // block))
        reach = min(1.0, grid / units)
        return reach, min(1.0, grid * block / (units * _RESIDENT_THREADS))

    def _elements(self, tensor: TensorId) -> int:
        count = 1
        for extent in self.graph.tensors[tensor].shape:
            count *= extent
        return count

    def _roofline_us(self, op: Operator, device: Device, reach: float) -> float:
        assert device.peak_gflops is not None, "checked by __post_init__"
        assert device.bandwidth_gb_s is not None, "checked by __post_init__"
        # GFLOP/s and GB/s are thousands per microsecond.
        compute = op.flops / (device.peak_gflops * 1e3 * reach * self.peak_fraction)
        memory = (op.bytes_read + op.bytes_written) / (
            device.bandwidth_gb_s * 1e3 * self.peak_fraction
        )
        overhead = CPU_LAUNCH_US if device.kind == "cpu" else CUDA_LAUNCH_US
        return max(compute, memory) + overhead
