"""Energy counters of the machine: the processor's (RAPL) and NVIDIA GPUs' (NVML).

Both count everything on the device, idle share included. Many virtual machines have neither;
then nothing is told rather than estimated.
"""

from collections.abc import Callable
from pathlib import Path

__all__ = ["EnergyMeter", "find_meter"]

POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """A sum of counters.

    Parameters
    ----------
    source
        What is counted, for readers.
    read_j
        Return the joules used since some moment.
    """

    def __init__(self, source: str, read_j: Callable[[], float]) -> None:
        self.source = source
        self.read_j = read_j


def find_meter(kind: str, powercap: Path = POWERCAP) -> EnergyMeter | None:
    """Return the meter of the devices that a comparison uses, or None where there is none.

    Parameters
    ----------
    kind
        ``cpu`` or ``cuda``.
    powercap
        Folder of the kernel's RAPL counters.
    """
    return _gpus() if kind == "cuda" else _packages(powercap)


def _packages(powercap: Path) -> EnergyMeter | None:
    # intel-rapl:0 is a package (AMD's too); intel-rapl:0:0 is a part of it.
    folders = [path for path in sorted(powercap.glob("*-rapl:*")) if path.name.count(":") == 1]
    try:
        zones = [_Zone(folder) for folder in folders]
    except (OSError, ValueError):  # readable by root alone on most systems
        return None
    if not zones:
        return None
    return EnergyMeter(
        f"RAPL, {len(zones)} package{'s' if len(zones) > 1 else ''}",
        lambda: sum(zone.read_j() for zone in zones),
    )


class _Zone:
    """One counter, unwrapped."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "energy_uj"
        self._range = int((folder / "max_energy_range_uj").read_text())
        self._last = int(self._path.read_text())
        self._total = 0

    def read_j(self) -> float:
        now = int(self._path.read_text())
        self._total += (now - self._last) % (self._range + 1)
        self._last = now
        return self._total / 1e6


def _gpus() -> EnergyMeter | None:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]

        def read_j() -> float:
            millijoules = sum(pynvml.nvmlDeviceGetTotalEnergyConsumption(h) for h in handles)
            return float(millijoules) / 1e3

        read_j()
    except pynvml.NVMLError:
        return None
    return EnergyMeter(f"NVML, {len(handles)} GPU{'s' if len(handles) > 1 else ''}", read_j)
