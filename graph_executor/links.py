"""Measured links between the devices of a machine.

What a link costs on a CPU is what a reader sees: from the moment in which the source's thread
has written a value until the destination's thread has it in its own arena, with the gate
between the threads and the caches as they are then. Times over several sizes are fitted by
``latency + bytes / bandwidth`` with relative errors, so that small copies count as much as
large ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from graph_executor.host import cpu_name
from graph_executor.measure_cache import CachedLink, MeasureCache
from hios.ir.ids import DeviceId
from hios.ir.machine import Link, Machine
from hios.statistics import Samples

__all__ = ["LinkSamples", "fit_link", "machine_with", "measure_links", "sample_links"]

_SIZES = (4 << 10, 32 << 10, 128 << 10, 512 << 10, 2 << 20)
_REPEATS = 25


@dataclass(frozen=True, slots=True)
class LinkSamples:
    """Copies of several sizes over one directed link, and the line through their medians.

    Attributes
    ----------
    src, dst
        Positions in `Machine.devices`.
    sizes_bytes
        Ascending.
    times
        Of each size.
    fit
        Latency and bandwidth.
    """

    src: DeviceId
    dst: DeviceId
    sizes_bytes: tuple[int, ...]
    times: tuple[Samples, ...]
    fit: CachedLink

    @property
    def residuals(self) -> tuple[float, ...]:
        """Measured over fitted time, minus 1, for each size."""
        return tuple(
            samples.median_us / (self.fit.latency_us + size / (self.fit.bandwidth_gb_s * 1e3)) - 1
            for size, samples in zip(self.sizes_bytes, self.times, strict=True)
        )


def sample_links(
    machine: Machine, progress: Callable[[str, float], None] | None = None
) -> tuple[LinkSamples, ...]:
    """Measure copies between all ordered pairs of CPU devices.

    Parameters
    ----------
    machine
        Its links are not looked at.
    progress
        Told what is measured and the fraction done.

    Raises
    ------
    DeviceUnavailable
        When a device is no CPU or its cores cannot be used.
    """
    from graph_executor.cpu.affinity import device_cores

    cores = device_cores(machine)
    pairs = [(src, dst) for src in range(len(cores)) for dst in range(len(cores)) if src != dst]
    found = []
    for number, (src, dst) in enumerate(pairs):
        if progress is not None:
            names = f"{machine.devices[src].name} to {machine.devices[dst].name}"
            progress(f"copies {names}", number / len(pairs))
        sizes, times = _measure(cores[src][0], cores[dst][0])
        fit = fit_link(sizes, [samples.median_us for samples in times])
        found.append(LinkSamples(DeviceId(src), DeviceId(dst), sizes, times, fit))
    return tuple(found)


def machine_with(machine: Machine, sampled: Sequence[LinkSamples]) -> Machine:
    """Return the machine with the links that were measured, for ``--machine``."""
    cpu = cpu_name()
    links = tuple(
        Link(
            link.src,
            link.dst,
            link.fit.bandwidth_gb_s,
            link.fit.latency_us,
            f"measured on {cpu}; worst residual {max(map(abs, link.residuals)):.1%}",
        )
        for link in sampled
    )
    measured = replace(machine, links=links)
    measured.validate()
    return measured


def measure_links(machine: Machine, cache: MeasureCache | None = None) -> Machine:
    """Return the machine with links measured between all pairs of its CPU devices.

    Parameters
    ----------
    machine
        Its links are replaced; devices all of kind ``cpu``, or all of kind ``cuda``.
    cache
        Where known links are read and new ones kept.

    Raises
    ------
    DeviceUnavailable
        When a device is no CPU or its cores cannot be used, or a GPU that is not here.
    """
    if {device.kind for device in machine.devices} == {"cuda"}:
        from graph_executor.cuda.links import measure_cuda_links
        from graph_executor.cuda.open import open_driver

        return measure_cuda_links(open_driver(), machine)
    from graph_executor.cpu.affinity import device_cores

    cores = device_cores(machine)
    cpu = cpu_name()
    known = cache.links(cpu) if cache is not None else {}
    fresh: dict[str, CachedLink] = {}
    links = []
    for src, source in enumerate(cores):
        for dst, target in enumerate(cores):
            if src == dst:
                continue
            key = f"{source[0]}->{target[0]}"
            link = known.get(key) or fresh.get(key)
            if link is None:
                sizes, times = _measure(source[0], target[0])
                link = fresh[key] = fit_link(sizes, [samples.median_us for samples in times])
            links.append(
                Link(
                    DeviceId(src),
                    DeviceId(dst),
                    link.bandwidth_gb_s,
                    link.latency_us,
                    f"measured between cores {source[0]} and {target[0]} of {cpu}",
                )
            )
    if cache is not None and fresh:
        cache.store_links(cpu, fresh)
    return replace(machine, links=tuple(links))


def fit_link(sizes_bytes: Sequence[int], times_us: Sequence[float]) -> CachedLink:
    """Fit latency and bandwidth to measured copies, minimising the relative error.

    Parameters
    ----------
    sizes_bytes, times_us
        At least two sizes and their times.

    Examples
    --------
    >>> fit_link([1000, 2000, 4000], [6.0, 7.0, 9.0])
    CachedLink(bandwidth_gb_s=1.0, latency_us=5.0)
    """
    sizes = np.asarray(sizes_bytes, float)
    times = np.asarray(times_us, float)
    design = np.stack([np.ones_like(sizes), sizes], axis=1) / times[:, None]
    solution, *_ = np.linalg.lstsq(design, np.ones_like(times), rcond=None)
    latency, per_byte = float(solution[0]), float(solution[1])
    if latency < 0:
        latency = 0.0
        per_byte = float(np.median(times / sizes))
    # A slope that noise made flat or negative: take the largest copy at its face value.
    if per_byte <= 0:
        per_byte = float(times[-1] / sizes[-1])
        latency = 0.0
    return CachedLink(round(1e-3 / per_byte, 6), round(latency, 6))


def _measure(source: int, target: int) -> tuple[tuple[int, ...], tuple[Samples, ...]]:
    from graph_executor import tvm_runtime
    from graph_executor.cpu.gates import Gate, SleepGate, SpinGate, spinning_is_available
    from graph_executor.cpu.team import Team

    spins = spinning_is_available() and source != target
    gate: Gate = SpinGate() if spins else SleepGate()
    memory = [tvm_runtime.Memory("cpu", device, max(_SIZES)) for device in (0, 1)]
    for part in memory:
        part.fill(1)
    team = Team(
        ["hios-link-source", "hios-link-target"],
        [tvm_runtime.set_threads((source,)), tvm_runtime.set_threads((target,))],
    )
    found = []
    try:
        wait = team.gate(gate)
        for size in _SIZES:
            array = memory[0].array(0, (size,), "uint8")
            copy = tvm_runtime.bind_copy(
                memory[0].tensor(0, (size,), "uint8"), memory[1].tensor(0, (size,), "uint8")
            )
            write = partial(array.fill, 2)
            times = []
            for turn in range(_REPEATS + 3):
                # The reader is at its gate long before the value is written, as in a run.
                _, stamps = team.run_stamped([[write, write, write, gate.open], [wait, copy]])
                if turn >= 3:
                    times.append((stamps[1][2] - stamps[0][3]) / 1e3)
            found.append(Samples.of(times))
    finally:
        team.close()
    return _SIZES, tuple(found)
