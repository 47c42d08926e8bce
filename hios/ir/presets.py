"""Machines by name, from host cores, and from files.

A preset name is ``<count>x<device>-<interconnect>``: ``2xA40-NVLink``, ``4xV100-NVLink2``,
``8xH200-NVLink4``, ``2xA40-PCIe4`` ...; any count works. ``host`` is this computer's CPU, and
``<count>xhost`` shares its cores equally. Each figure carries its source in `Device.source` and
`Link.source`. Data sheets give bandwidths in both directions together; a link here is one
direction. Latencies of copies are no data-sheet figures: they are typical of a small
asynchronous peer copy and are re-measured where a machine is at hand.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

from hios.errors import InvalidMachine, UnknownDevice
from hios.ir.ids import DeviceId
from hios.ir.machine import Device, Link, Machine
from hios.ir.serial import read_bytes

__all__ = [
    "MAX_DEVICES",
    "PRESET_NAMES",
    "abstract_machine",
    "available_cores",
    "cpu_machine",
    "cuda_machine",
    "load_machine",
    "machine_from_devices",
    "parse_device_list",
    "preset",
]

PRESET_NAMES: tuple[str, ...] = (
    "2xA40-NVLink",
    "2xA40-PCIe4",
    "4xV100-NVLink2",
    "4xV100-PCIe3",
    "8xH200-NVLink4",
    "8xH200-PCIe5",
    "host",
    "2xhost",
)
"""The presets that help texts list; other counts work too."""

MAX_DEVICES = 1024
"""Links grow with the square: beyond this a slip of the finger would fill the memory."""


@dataclass(frozen=True, slots=True)
class _Gpu:
    peak_gflops: float
    bandwidth_gb_s: float
    compute_units: int
    memory_bytes: int
    source: str


@dataclass(frozen=True, slots=True)
class _Interconnect:
    bandwidth_gb_s: float
    latency_us: float
    source: str


_GPUS = {
    "A40": _Gpu(37_400, 696, 84, 48 * 10**9, "NVIDIA A40 data sheet: FP32 37.4 TFLOPS, 696 GB/s"),
    "V100": _Gpu(
        15_700,
        900,
        80,
        16 * 10**9,
        "NVIDIA Tesla V100 (SXM2, 16 GB) data sheet: FP32 15.7 TFLOPS, 900 GB/s",
    ),
    "H200": _Gpu(
        67_000,
        4_800,
        132,
        141 * 10**9,
        "NVIDIA H200 (SXM) data sheet: FP32 67 TFLOPS, 4.8 TB/s",
    ),
}

_NVLINK_LATENCY = "latency: assumed 5 µs for a small peer copy"
_PCIE_LATENCY = "latency: assumed 10 µs for a small peer copy"

_INTERCONNECTS = {
    ("A40", "NVLink"): _Interconnect(
        56.25,
        5.0,
        "NVIDIA A40 data sheet: NVLink bridge of a pair, 112.5 GB/s both ways; " + _NVLINK_LATENCY,
    ),
    ("V100", "NVLink2"): _Interconnect(
        50.0,
        5.0,
        "NVIDIA V100 architecture white paper: 6 links of 25 GB/s each way; four fully connected "
        "GPUs have 2 per pair; " + _NVLINK_LATENCY,
    ),
    ("H200", "NVLink4"): _Interconnect(
        450.0,
        5.0,
        "NVIDIA H200 data sheet: NVLink 900 GB/s both ways, through NVSwitch; " + _NVLINK_LATENCY,
    ),
}

_PCIE = {
    "PCIe3": _Interconnect(
        15.75, 10.0, "PCI Express 3.0 x16: 8 GT/s, 128b/130b, raw rate; " + _PCIE_LATENCY
    ),
    "PCIe4": _Interconnect(
        31.5, 10.0, "PCI Express 4.0 x16: 16 GT/s, 128b/130b, raw rate; " + _PCIE_LATENCY
    ),
    "PCIe5": _Interconnect(
        63.0, 10.0, "PCI Express 5.0 x16: 32 GT/s, 128b/130b, raw rate; " + _PCIE_LATENCY
    ),
}

# Between logical devices of one CPU a copy is a memcpy by the destination's worker.
_MEMCPY_GB_S = 8.0
_MEMCPY_LATENCY_US = 3.0
_MEMCPY_SOURCE = "preset: one core's memcpy, and the wake-up of a worker; not measured here"
_CORE_GFLOPS = 40.0
_CORE_GB_S = 10.0
_CORE_SOURCE = "preset: 40 GFLOP/s (AVX2 at 2.5 GHz, half of peak) and 10 GB/s a core; not measured"


def preset(name: str, streams: int = 4) -> Machine:
    """Return the machine called `name`.

    Parameters
    ----------
    name
        See the module's docstring.
    streams
        Streams of each device.

    Raises
    ------
    UnknownDevice
        When there is no such device or interconnect.
    """
    if (match := re.fullmatch(r"(?:([1-9]\d*)x)?host", name)) is not None:
        count = int(match[1] or 1)
        return cpu_machine([f"cpu:{i}" for i in range(count)], streams=streams, name=name)
    match = re.fullmatch(r"([1-9]\d*)x(\w+?)(?:-(\w+))?", name)
    if match is None or match[2] not in _GPUS:
        raise UnknownDevice(
            f"no machine preset {name!r}; known are {', '.join(PRESET_NAMES)} and the same with "
            "other counts"
        )
    count, model, wiring = int(match[1]), match[2], match[3]
    wires = {kind: wire for (gpu, kind), wire in _INTERCONNECTS.items() if gpu == model} | _PCIE
    if (wiring is None and count > 1) or (wiring is not None and wiring not in wires):
        raise UnknownDevice(
            f"machine preset {name!r} has interconnect {wiring!r}; {model} has {', '.join(wires)}"
        )
    gpu = _GPUS[model]
    links = [] if wiring is None else _all_links(count, wires[wiring])
    devices = [_gpu_device(f"cuda:{i}", gpu, streams) for i in range(count)]
    return _checked(Machine(name, tuple(devices), tuple(links)))


def abstract_machine(n_devices: int, streams: int = 1) -> Machine:
    """Return the machine of a graph file: equal devices whose links do not contend.

    Times come from the file; the links only say that every pair is connected.

    Raises
    ------
    InvalidMachine
        When there is not at least one device with one stream.
    """
    if n_devices < 1 or streams < 1:
        raise InvalidMachine(
            f"a machine of {n_devices} devices with {streams} streams; need at least one of each"
        )
    source = "abstract: times come from the graph file"
    free = _Interconnect(1.0, 0.0, source)
    return _checked(
        Machine(
            f"{n_devices}xabstract",
            tuple(Device(f"gpu:{i}", streams=streams, source=source) for i in range(n_devices)),
            tuple(_all_links(n_devices, free)),
            is_contended=False,
        )
    )


def cpu_machine(
    devices: Sequence[str],
    cores: Sequence[int] | None = None,
    streams: int = 1,
    *,
    name: str = "host",
    memory_bytes: int | None = None,
    copy_gb_s: float = _MEMCPY_GB_S,
    copy_latency_us: float = _MEMCPY_LATENCY_US,
) -> Machine:
    """Return logical devices that share the cores of this host equally.

    Parameters
    ----------
    devices
        Names such as ``cpu:0``; the first holds inputs and outputs of a run.
    cores
        Host cores to share; by default those that this process may run on. Each device gets
        ``len(cores) // len(devices)`` consecutive ones, so that all are equal. With fewer
        cores than devices, devices share a core (`Machine.shares_hardware`).
    streams
        Worker threads of each device.
    name
        Name of the machine.
    memory_bytes
        Capacity of each device; None for unlimited.
    copy_gb_s, copy_latency_us
        Figures of every link; the defaults are presets (`Link.source` says so), to be
        replaced by measured ones.

    Raises
    ------
    InvalidMachine
        When there are no devices or no cores, or a name is given twice.
    UnknownDevice
        When a name is no ``cpu:N``.
    """
    owned = available_cores() if cores is None else tuple(sorted(set(cores)))
    if not devices or not owned:
        raise InvalidMachine(f"{len(devices)} devices on {len(owned)} cores; need one of each")
    for device in devices:
        if re.fullmatch(r"cpu:\d+", device) is None:
            raise UnknownDevice(f"device {device!r} is no CPU device; write cpu:0, cpu:1, ...")
    share = max(1, len(owned) // len(devices))
    described = []
    for index, device in enumerate(devices):
        first = (index * share) % len(owned)
        described.append(
            Device(
                device,
                kind="cpu",
                streams=streams,
                memory_bytes=memory_bytes,
                peak_gflops=_CORE_GFLOPS * share,
                bandwidth_gb_s=_CORE_GB_S * share,
                compute_units=share,
                cores=owned[first : first + share],
                source=_CORE_SOURCE,
            )
        )
    source = (
        _MEMCPY_SOURCE
        if (copy_gb_s, copy_latency_us) == (_MEMCPY_GB_S, _MEMCPY_LATENCY_US)
        else "given"
    )
    wire = _Interconnect(copy_gb_s, copy_latency_us, source)
    return _checked(Machine(name, tuple(described), tuple(_all_links(len(devices), wire))))


def cuda_machine(devices: Sequence[str], model: str, wiring: str, streams: int = 4) -> Machine:
    """Return named CUDA devices with the figures of a preset.

    Parameters
    ----------
    devices
        Names such as ``cuda:0``. A name given again is another logical device on the same
        GPU, called ``cuda:0#1`` and so on.
    model, wiring
        ``A40`` and ``NVLink``, as in a preset name.
    streams
        Streams of each device.

    Raises
    ------
    InvalidMachine
        When there are no devices.
    UnknownDevice
        When a name is no ``cuda:N``, or model or interconnect are unknown.
    """
    if not devices:
        raise InvalidMachine("a machine without devices; name at least one, such as cuda:0")
    for device in devices:
        if re.fullmatch(r"cuda:\d+", device) is None:
            raise UnknownDevice(f"device {device!r} is no CUDA device; write cuda:0, cuda:1, ...")
    base = preset(f"{len(devices)}x{model}-{wiring}", streams)
    gpu = _GPUS[model]
    named = []
    for index, device in enumerate(devices):
        earlier = list(devices[:index]).count(device)
        label = f"{device}#{earlier}" if earlier else device
        named.append(_gpu_device(label, gpu, streams, device))
    return _checked(Machine(f"{base.name} as {','.join(devices)}", tuple(named), base.links))


def parse_device_list(text: str) -> tuple[str, ...]:
    """Split ``cpu:0,cpu:1`` into names.

    Raises
    ------
    UnknownDevice
        When a name has not the form ``cpu:N`` or ``cuda:N``.
    """
    names = tuple(part.strip() for part in text.split(","))
    for name in names:
        if re.fullmatch(r"(cpu|cuda):\d+", name) is None:
            raise UnknownDevice(
                f"unknown device {name!r} in {text!r}; write for example cpu:0,cpu:1 or cuda:0"
            )
    return names


def machine_from_devices(
    devices: Sequence[str],
    *,
    cores: Sequence[int] | None = None,
    streams: int = 1,
    model: str = "H200",
    wiring: str = "NVLink4",
) -> Machine:
    """Return the machine of a list of device names, all ``cpu:N`` or all ``cuda:N``.

    Parameters
    ----------
    devices
        See `cpu_machine` and `cuda_machine`.
    cores
        For CPU devices.
    streams
        Of each device.
    model, wiring
        For CUDA devices, the preset whose figures are taken.

    Raises
    ------
    UnknownDevice
        When the names are of mixed or unknown kinds.
    """
    kinds = sorted({name.partition(":")[0] for name in devices})
    if kinds == ["cpu"]:
        return cpu_machine(devices, cores, streams)
    if kinds == ["cuda"]:
        return cuda_machine(devices, model, wiring, streams)
    raise UnknownDevice(
        f"devices {', '.join(devices)} are of kinds {', '.join(kinds)}; give only cpu:N or only "
        "cuda:N"
    )


def load_machine(name_or_path: str, streams: int = 4) -> Machine:
    """Return a machine from a preset name, or from a JSON file (a name that ends in .json).

    Raises
    ------
    UnknownDevice
        When it is no preset.
    MissingFile, InvalidMachine
        When the file cannot be read, or describes no machine.
    """
    if name_or_path.endswith(".json"):
        return Machine.from_json(read_bytes(name_or_path), what=name_or_path)
    return preset(name_or_path, streams)


def available_cores() -> tuple[int, ...]:
    """Return the host cores that this process may run on, ascending."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def _gpu_device(name: str, gpu: _Gpu, streams: int, hardware: str | None = None) -> Device:
    return Device(
        name,
        kind="cuda",
        streams=streams,
        memory_bytes=gpu.memory_bytes,
        peak_gflops=gpu.peak_gflops,
        bandwidth_gb_s=gpu.bandwidth_gb_s,
        compute_units=gpu.compute_units,
        hardware=hardware,
        source=gpu.source,
    )


def _all_links(count: int, wire: _Interconnect) -> list[Link]:
    if count > MAX_DEVICES:
        raise InvalidMachine(f"a machine of {count} devices; at most {MAX_DEVICES} are supported")
    return [
        Link(DeviceId(src), DeviceId(dst), wire.bandwidth_gb_s, wire.latency_us, wire.source)
        for src, dst in permutations(range(count), 2)
    ]


def _checked(machine: Machine) -> Machine:
    machine.validate()
    return machine
