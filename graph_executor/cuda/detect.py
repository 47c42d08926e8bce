"""The real CUDA devices of this host as a `Machine`, where there are any."""

from collections.abc import Sequence

from graph_executor.cuda.devices import ordinal_of
from graph_executor.cuda.open import is_installed, open_driver
from hios.errors import DeviceUnavailable
from hios.ir.machine import Machine

__all__ = ["are_here", "count_devices", "detect_machine", "require_machine"]


def count_devices() -> int:
    """Return how many CUDA devices this host has; 0 without bindings or driver."""
    return open_driver().device_count() if is_installed() else 0


def detect_machine(names: Sequence[str], streams: int) -> Machine | None:
    """Return the machine of these devices; None when this host has no CUDA device at all.

    Raises
    ------
    UnknownDevice
        When it has some, but not these.
    """
    if count_devices() == 0:
        return None
    from graph_executor.cuda.nvml import wiring
    from graph_executor.cuda.topology import describe_machine

    return describe_machine(open_driver(), names, streams, wiring)


def require_machine(names: Sequence[str], streams: int) -> Machine:
    """Return the machine of these devices, as `detect_machine`.

    Raises
    ------
    DeviceUnavailable
        When this host has no CUDA device.
    UnknownDevice
        When it has some, but not these.
    """
    machine = detect_machine(names, streams)
    if machine is None:
        raise DeviceUnavailable(
            "no CUDA device on this machine; `hios doctor` says what is missing"
        )
    return machine


def are_here(machine: Machine) -> bool:
    """Return whether the machine's devices are CUDA devices of this host.

    A machine that describes another host names its devices alike; it differs in how many
    multiprocessors they have.
    """
    if any(device.kind != "cuda" for device in machine.devices):
        return False
    count = count_devices()
    driver = open_driver() if count else None
    for device in machine.devices:
        ordinal = ordinal_of(device)
        if driver is None or ordinal >= count:
            return False
        if device.compute_units != driver.facts(ordinal).multiprocessors:
            return False
    return True
