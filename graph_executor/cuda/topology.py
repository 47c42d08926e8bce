"""The machine as CUDA sees it: devices with their figures, links by how they are wired.

Peak rate and bandwidth follow from what the driver tells (multiprocessors, clocks, width of the
memory bus). A link's bandwidth is that of its standard until `graph_executor.cuda.links` has
measured it.
"""

import re
from collections.abc import Callable, Sequence
from itertools import permutations

from graph_executor.cuda.cards import Wiring
from graph_executor.cuda.driver import DeviceFacts, Driver
from hios.errors import UnknownDevice
from hios.ir.ids import DeviceId
from hios.ir.machine import Device, Link, Machine

__all__ = ["describe_machine"]

# float32 units of one multiprocessor (CUDA C++ Programming Guide, arithmetic throughput table).
_CORES = {(6, 0): 64, (7, 0): 64, (7, 2): 64, (7, 5): 64, (8, 0): 64}
_CORES_SINCE_8_6 = 128

_LATENCY_US = {"NVLink": 5.0, "PCIe": 10.0}
_STAGED_LATENCY_US = 25.0
_ON_CARD_LATENCY_US = 3.0
_UNKNOWN = Wiring("PCIe", 12.0, "NVML does not tell")


def describe_machine(
    driver: Driver,
    names: Sequence[str],
    streams: int,
    wiring: Callable[[int, int], Wiring | None],
) -> Machine:
    """Return the machine of CUDA devices of this host.

    Parameters
    ----------
    driver
        CUDA.
    names
        ``cuda:N``; a name given again is another logical device on the same GPU.
    streams
        Of each device.
    wiring
        How two cards are connected, by their ordinals.

    Raises
    ------
    UnknownDevice
        When a name is no CUDA device of this host.
    """
    count = driver.device_count()
    ordinals = []
    for name in names:
        match = re.fullmatch(r"cuda:(\d+)", name)
        if match is None or int(match[1]) >= count:
            raise UnknownDevice(
                f"no device {name!r} on this machine; it has cuda:0"
                + (f" to cuda:{count - 1}" if count > 1 else "")
            )
        ordinals.append(int(match[1]))
    facts = {ordinal: driver.facts(ordinal) for ordinal in sorted(set(ordinals))}
    devices = []
    for index, (name, ordinal) in enumerate(zip(names, ordinals, strict=True)):
        earlier = ordinals[:index].count(ordinal)
        label = f"{name}#{earlier}" if earlier else name
        devices.append(_device(label, name, facts[ordinal], ordinals.count(ordinal), streams))
    links = [
        _link(driver, facts, src, dst, ordinals[src], ordinals[dst], wiring)
        for src, dst in permutations(range(len(names)), 2)
    ]
    kinds = " + ".join(dict.fromkeys(facts[ordinal].name for ordinal in ordinals))
    machine = Machine(f"{','.join(names)} ({kinds})", tuple(devices), tuple(links))
    machine.validate()
    return machine


def _device(label: str, hardware: str, facts: DeviceFacts, shared: int, streams: int) -> Device:
    cores = _CORES.get(facts.compute_capability, _CORES_SINCE_8_6) * facts.multiprocessors
    gflops = 2 * cores * facts.clock_khz / 1e6
    # Double data rate: two transfers a clock.
    bandwidth = 2 * facts.memory_clock_khz * facts.memory_bus_bits / 8 / 1e6
    return Device(
        label,
        kind="cuda",
        streams=streams,
        memory_bytes=facts.memory_bytes // shared,
        peak_gflops=gflops or None,
        bandwidth_gb_s=bandwidth or None,
        compute_units=facts.multiprocessors,
        hardware=hardware,
        source=f"{facts.name} ({facts.architecture}), from the clocks that the driver tells",
    )


def _link(
    driver: Driver,
    facts: dict[int, DeviceFacts],
    src: int,
    dst: int,
    source: int,
    target: int,
    wiring: Callable[[int, int], Wiring | None],
) -> Link:
    if source == target:
        card = facts[source]
        # A copy on one card reads and writes the same memory.
        rate = card.memory_clock_khz * card.memory_bus_bits / 8 / 1e6 or 500.0
        text = "one card: half of its memory's bandwidth; not measured"
        return Link(DeviceId(src), DeviceId(dst), rate, _ON_CARD_LATENCY_US, text)
    found = wiring(source, target) or _UNKNOWN
    text = f"{found.kind} ({found.detail}), rate of the standard; not measured"
    if driver.can_access_peer(target, source) and driver.can_access_peer(source, target):
        latency = _LATENCY_US[found.kind]
        return Link(DeviceId(src), DeviceId(dst), found.bandwidth_gb_s, latency, text)
    text = f"no peer access: staged through the host; {text}"
    return Link(DeviceId(src), DeviceId(dst), found.bandwidth_gb_s / 2, _STAGED_LATENCY_US, text)
