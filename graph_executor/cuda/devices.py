"""Which GPU each logical device is.

Several logical devices may be one GPU (``cuda:0`` and ``cuda:0#1``): each has its own arena and
streams, so the whole multi-device path runs on one card.
"""

import re

from graph_executor.cuda.driver import Driver
from hios.errors import ArtifactMismatch, DeviceUnavailable
from hios.ir.machine import Device, Machine

__all__ = ["check_architecture", "check_devices", "ordinal_of", "peers_of"]


def ordinal_of(device: Device) -> int:
    """Return the ordinal of the GPU that a logical device is.

    Raises
    ------
    DeviceUnavailable
        When its name is no ``cuda:N``.

    Examples
    --------
    >>> ordinal_of(Device("cuda:0#1", "cuda", hardware="cuda:0"))
    0
    """
    label = device.hardware or device.name
    match = re.fullmatch(r"cuda:(\d+)(#\d+)?", label)
    if device.kind != "cuda" or match is None:
        raise DeviceUnavailable(
            f"device {device.name!r} of kind {device.kind!r} is no CUDA device; name it cuda:0, "
            "cuda:1, ..."
        )
    return int(match[1])


def check_devices(driver: Driver, machine: Machine) -> tuple[int, ...]:
    """Return the ordinal of every device of the machine.

    Raises
    ------
    DeviceUnavailable
        When one is not there.
    """
    ordinals = tuple(ordinal_of(device) for device in machine.devices)
    count = driver.device_count()
    for device, ordinal in zip(machine.devices, ordinals, strict=True):
        if ordinal >= count:
            have = {0: "no CUDA device", 1: "one CUDA device"}.get(count, f"{count} CUDA devices")
            raise DeviceUnavailable(
                f"device {device.name!r} is not there: {have} on this machine; `hios doctor` says "
                "what is missing, `hios simulate` needs no device"
                if count == 0
                else f"device {device.name!r} is not there: {have} on this machine; choose among "
                f"cuda:0 to cuda:{count - 1}, or name one twice"
            )
    return ordinals


def check_architecture(driver: Driver, ordinals: tuple[int, ...], target: str) -> None:
    """Check that machine code for `target` runs on these GPUs.

    Code for one architecture runs on GPUs of the same major compute capability and at least the
    same minor one (CUDA C++ Programming Guide, "Binary Compatibility").

    Parameters
    ----------
    driver, ordinals
        The GPUs.
    target
        TVM's JSON of the target; one that names no architecture is not checked.

    Raises
    ------
    ArtifactMismatch
        When one cannot run it.
    """
    match = re.search(r'"arch"\s*:\s*"sm_(\d+?)(\d)[a-z]?"', target)
    if match is None:
        return
    major, minor = int(match[1]), int(match[2])
    for ordinal in sorted(set(ordinals)):
        facts = driver.facts(ordinal)
        here = facts.compute_capability
        if here[0] != major or here[1] < minor:
            raise ArtifactMismatch(
                f"kernels for sm_{major}{minor} do not run on cuda:{ordinal} ({facts.name}, "
                f"{facts.architecture}); compile with --target cuda:{facts.architecture}"
            )


def peers_of(driver: Driver, ordinals: tuple[int, ...], device: int) -> tuple[int, ...]:
    """Return the other GPUs in use that can reach memory of `device`.

    Where one cannot, CUDA stages copies through the host: right, and slow; `hios doctor` tells.
    """
    return tuple(
        peer
        for peer in sorted(set(ordinals))
        if peer != device and driver.can_access_peer(peer, device)
    )
