"""What a CPU device is made of, and a piece of work that tells whether it has changed."""

import os
from functools import partial
from pathlib import Path

import numpy as np

from graph_executor.cpu.affinity import Cores
from graph_executor.cpu.team import Step, Team
from graph_executor.group_timer import TimedDevice
from graph_executor.host import cpu_name, host_features
from hios.ir.machine import Device

__all__ = ["Sentinel", "describe_cpu"]

_CPUS = Path("/sys/devices/system/cpu")
_CPUINFO = Path("/proc/cpuinfo")

# Float32 operations that one core can do per cycle: two fused multiply-adds of a whole vector.
_FLOPS_PER_CYCLE = {"avx512f": 64, "fma": 32, "avx": 16}
_BASELINE_FLOPS_PER_CYCLE = 8

_EXPONENTS = 1 << 15
_SUMMANDS = 1 << 18


def describe_cpu(device: Device) -> TimedDevice:
    """Return what is known of a CPU device.

    The peak is clock times what the vector units can do in a cycle. The bandwidth is measured:
    all cores add arrays of a megabyte, which lie in the last-level cache as the tensors of most
    operators do; rounded to 5 GB/s, so that one kind of CPU tells one number.

    Parameters
    ----------
    device
        Of kind ``cpu``, with cores.
    """
    clock = _clock_mhz(device.cores[0])
    features = host_features() or frozenset()
    per_cycle = next(
        (flops for name, flops in _FLOPS_PER_CYCLE.items() if name in features),
        _BASELINE_FLOPS_PER_CYCLE,
    )
    peak = len(device.cores) * clock * per_cycle / 1e3
    with Sentinel(device.cores) as sentinel:
        bandwidth = sentinel.bandwidth_gb_s()
    return TimedDevice(
        name=cpu_name(),
        kind="cpu",
        uuid="",
        units=len(device.cores),
        clock_mhz=clock,
        bandwidth_gb_s=max(5.0, 5.0 * round(bandwidth / 5.0)),
        peak_gflops=round(peak, 1) or None,
        cache_bytes=_last_level_bytes(device.cores[0]),
    )


class Sentinel:
    """The same little work on each of some cores at once: arithmetic, then memory.

    About 0.2 ms. It has nothing to do with TVM, so it says the same in every process.

    Parameters
    ----------
    cores
        One thread on each.
    """

    def __init__(self, cores: Cores) -> None:
        self._team = Team(
            [f"hios-sentinel-{core}" for core in cores],
            [partial(os.sched_setaffinity, 0, {core}) for core in cores],
        )
        self._programs = [_work() for _ in cores]
        self.times(3)

    def __enter__(self) -> "Sentinel":
        return self

    def __exit__(self, *_problem: object) -> None:
        self.close()

    def times(self, count: int) -> list[float]:
        """Run `count` times; return the time (µs) of the slowest core each time."""
        return [max(own[-1] - own[0] for own in stamps) / 1e3 for stamps in self._run(count)]

    def bandwidth_gb_s(self) -> float:
        """Return the largest rate at which all cores together moved data."""
        best = min(max(own[2] - own[1] for own in stamps) for stamps in self._run(20))
        return len(self._programs) * 3 * 4 * _SUMMANDS / best

    def _run(self, count: int) -> list[list[list[int]]]:
        return [self._team.run_stamped(self._programs)[1] for _ in range(count)]

    def close(self) -> None:
        """End the threads; may be called twice."""
        self._team.close()


def _work() -> list[Step]:
    small = np.linspace(-1, 1, _EXPONENTS, dtype=np.float32)
    left, right = (np.full(_SUMMANDS, value, np.float32) for value in (1, 2))
    return [
        partial(np.exp, small, out=np.empty_like(small)),
        partial(np.add, left, right, out=np.empty_like(left)),
    ]


def _clock_mhz(core: int) -> int:
    """Return the highest clock that the system tells, or the current one, or 0."""
    try:
        return int((_CPUS / f"cpu{core}/cpufreq/cpuinfo_max_freq").read_text()) // 1000
    except (OSError, ValueError):
        pass
    try:
        for line in _CPUINFO.read_text().splitlines():
            if line.startswith("cpu MHz"):
                return round(float(line.partition(":")[2]))
    except (OSError, ValueError):
        pass
    return 0


def _last_level_bytes(core: int) -> int:
    """Return the size of the last-level cache, or 0 where the system does not tell."""
    found = (0, 0)
    for index in (_CPUS / f"cpu{core}/cache").glob("index*"):
        try:
            level = int((index / "level").read_text())
            text = (index / "size").read_text().strip()
        except (OSError, ValueError):
            continue
        scale = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 1)
        digits = text.rstrip("KM")
        if digits.isdigit():
            found = max(found, (level, int(digits) * scale))
    return found[1]
