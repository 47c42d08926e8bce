"""The machine: devices, and directed links between them.

A `Device` is what operators are placed on. Several logical devices may name one piece of
hardware (`Device.hardware`): then every part of the multi-device path runs, but no speed-up
is promised (`Machine.shares_hardware`). Presets and the parsing of device lists live in
`hios.ir.presets`.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hios.errors import InvalidMachine, UnknownDevice
from hios.ir.ids import DeviceId
from hios.ir.serial import decode_json, encode_json

__all__ = ["Device", "Link", "Machine"]


@dataclass(frozen=True, slots=True)
class Device:
    """One place where operators run.

    Attributes
    ----------
    name
        ``cuda:0``, ``cpu:1`` or any label.
    kind
        ``cuda``, ``cpu`` or ``abstract`` (times come from a table).
    streams
        How many operators may run at once (streams, or worker threads).
    memory_bytes
        Capacity; None for unlimited.
    peak_gflops, bandwidth_gb_s
        Peak float32 rate and memory bandwidth, for the analytic costs.
    compute_units
        Streaming multiprocessors, or cores.
    cores
        Host cores of a ``cpu`` device, ascending; empty otherwise.
    hardware
        What it really is, when two logical devices may share it (``gpu-0``); None: itself.
    source
        Where the figures come from.
    """

    name: str
    kind: str = "abstract"
    streams: int = 1
    memory_bytes: int | None = None
    peak_gflops: float | None = None
    bandwidth_gb_s: float | None = None
    compute_units: int | None = None
    cores: tuple[int, ...] = ()
    hardware: str | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """A directed connection: a copy of b bytes takes latency_us + b / (bandwidth_gb_s · 1000) µs.

    Attributes
    ----------
    src, dst
        Positions in `Machine.devices`.
    bandwidth_gb_s
        10⁹ bytes per second; finite.
    latency_us
        Fixed cost of a copy.
    source
        Where the figures come from.
    """

    src: DeviceId
    dst: DeviceId
    bandwidth_gb_s: float
    latency_us: float = 0.0
    source: str = ""

    def transfer_us(self, size_bytes: int) -> float:
        """Return the time of one copy of `size_bytes`."""
        return self.latency_us + size_bytes / (self.bandwidth_gb_s * 1e3)


@dataclass(frozen=True, slots=True)
class Machine:
    """Devices and links.

    Attributes
    ----------
    name
        For people.
    devices
        Indexed by `DeviceId`. The first holds the inputs and the outputs of a run.
    links
        At most one per ordered pair.
    is_contended
        Whether a link carries one copy at a time. False is the setting of the HIOS paper's
        simulation, used with graph files.
    """

    name: str
    devices: tuple[Device, ...]
    links: tuple[Link, ...] = ()
    is_contended: bool = True

    def link(self, src: DeviceId, dst: DeviceId) -> Link:
        """Return the link from `src` to `dst`.

        Raises
        ------
        InvalidMachine
            When the machine has none.
        """
        for link in self.links:
            if link.src == src and link.dst == dst:
                return link
        raise InvalidMachine(
            f"machine {self.name!r} has no link from {self.devices[src].name} to "
            f"{self.devices[dst].name}; add one to its description"
        )

    def device(self, name: str) -> DeviceId:
        """Return the device called `name`.

        Raises
        ------
        UnknownDevice
            With the list of names there are.
        """
        for index, device in enumerate(self.devices):
            if device.name == name:
                return DeviceId(index)
        known = ", ".join(device.name for device in self.devices)
        raise UnknownDevice(f"no device {name!r} on machine {self.name!r}; it has {known}")

    def subset(self, devices: Sequence[int]) -> "Machine":
        """Return the machine of just these devices, in this order, with the links among them.

        Raises
        ------
        InvalidMachine
            When there are none, or one is named twice.
        """
        place = {old: DeviceId(new) for new, old in enumerate(devices)}
        links = tuple(
            replace(link, src=place[link.src], dst=place[link.dst])
            for link in self.links
            if link.src in place and link.dst in place
        )
        chosen = tuple(self.devices[device] for device in devices)
        machine = replace(self, devices=chosen, links=links)
        machine.validate()
        return machine

    def with_streams(self, streams: int) -> "Machine":
        """Return the machine with this many streams on every device.

        Raises
        ------
        InvalidMachine
            When there is not at least one.
        """
        devices = tuple(replace(device, streams=streams) for device in self.devices)
        machine = replace(self, devices=devices)
        machine.validate()
        return machine

    def copies_occupy(self, dst: DeviceId) -> bool:
        """Return whether a copy into `dst` runs on `dst` itself and keeps it busy (CPU)."""
        return self.devices[dst].kind == "cpu"

    @property
    def shares_hardware(self) -> bool:
        """Whether two logical devices are one physical device, or share a core."""
        physical = Counter(device.hardware for device in self.devices if device.hardware)
        cores = Counter(core for device in self.devices for core in device.cores)
        return any(count > 1 for count in (*physical.values(), *cores.values()))

    def validate(self) -> None:
        """Check names, numbers and links.

        Raises
        ------
        InvalidMachine
            On the first rule broken.
        """
        if not self.devices:
            raise InvalidMachine(f"machine {self.name!r} has no devices; give at least one")
        names = Counter(device.name for device in self.devices)
        repeated = [name for name, count in names.items() if count > 1]
        if repeated:
            raise InvalidMachine(f"machine {self.name!r} names device {repeated[0]!r} twice")
        for device in self.devices:
            if device.streams < 1:
                raise InvalidMachine(
                    f"device {device.name!r} has {device.streams} streams; need ≥ 1"
                )
            for label, value in (
                ("memory_bytes", device.memory_bytes),
                ("peak_gflops", device.peak_gflops),
                ("bandwidth_gb_s", device.bandwidth_gb_s),
                ("compute_units", device.compute_units),
            ):
                if value is not None and not value > 0:
                    raise InvalidMachine(f"device {device.name!r}: {label} is {value}; need > 0")
        seen: set[tuple[int, int]] = set()
        for link in self.links:
            pair = (link.src, link.dst)
            if not all(0 <= end < len(self.devices) for end in pair) or link.src == link.dst:
                raise InvalidMachine(
                    f"machine {self.name!r} has a link {pair} between no two devices"
                )
            if pair in seen:
                raise InvalidMachine(f"machine {self.name!r} has two links {pair}")
            seen.add(pair)
            if not 0 < link.bandwidth_gb_s < math.inf or not 0 <= link.latency_us < math.inf:
                raise InvalidMachine(
                    f"link {pair}: bandwidth {link.bandwidth_gb_s} GB/s, latency "
                    f"{link.latency_us} µs; both must be finite, bandwidth > 0, latency ≥ 0"
                )

    def to_json(self) -> bytes:
        """Encode as JSON; `from_json` gives an equal machine."""
        return encode_json(self)

    @staticmethod
    def from_json(data: bytes | str, what: str = "machine") -> "Machine":
        """Decode and validate.

        Raises
        ------
        InvalidMachine
            When `data` is no machine or a wrong one.
        """
        machine = decode_json(data, Machine, InvalidMachine, what)
        machine.validate()
        return machine
