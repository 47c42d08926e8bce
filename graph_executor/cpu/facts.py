"""What a CPU device is made of."""

import os
from functools import partial
from pathlib import Path

import numpy as np

from graph_executor.cpu.affinity import Cores
from graph_executor.cpu.team import Team
from graph_executor.host import cpu_name, host_features
from graph_executor.timed_device import TimedDevice
from hios.ir.machine import Device

__all__ = ["describe_cpu"]

_CPUS = Path("/sys/devices/system/cpu")
_CPUINFO = Path("/proc/cpuinfo")

# Float32 operations that one core can do per cycle: two fused multiply-adds of a whole vector.
_FLOPS_PER_CYCLE = {"avx512f": 64, "fma": 32, "avx": 16}
_BASELINE_FLOPS_PER_CYCLE = 8

_SUMMANDS = 1 << 18
_TRIES = 20


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
    bandwidth = _bandwidth_gb_s(device.cores)
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


def _bandwidth_gb_s(cores: Cores) -> float:
    """Return the largest rate at which all cores together moved data."""
    team = Team(
        [f"hios-bandwidth-{core}" for core in cores],
        [partial(os.sched_setaffinity, 0, {core}) for core in cores],
    )
    try:
        work = []
        for _ in cores:
            left, right = (np.full(_SUMMANDS, value, np.float32) for value in (1, 2))
            work.append([partial(np.add, left, right, out=np.empty_like(left))])
        best = min(max(own[1] - own[0] for own in team.run_stamped(work)[1]) for _ in range(_TRIES))
    finally:
        team.close()
    return len(cores) * 3 * 4 * _SUMMANDS / best


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
