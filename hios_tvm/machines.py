"""From what a user says about devices to a `Machine`."""

from collections.abc import Sequence
from typing import Any

from hios.errors import InvalidOption
from hios.ir.machine import Machine
from hios.ir.presets import (
    available_cores,
    cpu_machine,
    load_machine,
    machine_from_devices,
    parse_device_list,
)

__all__ = ["resolve_machine"]

_CUDA_STREAMS = 4


def resolve_machine(
    devices: int | str | Sequence[str] | None = None,
    machine: Machine | str | None = None,
    streams: int | None = None,
    target: Any = None,
) -> Machine:
    """Return the machine that operators are placed on.

    Parameters
    ----------
    devices
        A count, names (``cpu:0,cpu:1`` or a sequence of them), or None. CPU devices share the
        host's cores equally. A count with a `machine` takes its first devices.
    machine
        A description, the name of a preset, or a JSON file; None: this host's CPU.
    streams
        Operators that may run at once on a device; None: what the machine says (1 on a CPU,
        4 on a GPU).
    target
        Of the kernels; a CUDA one makes a count of devices, or none at all, mean GPUs.

    Raises
    ------
    UnknownDevice, InvalidMachine, InvalidOption, MissingFile
        When there are no such devices.
    """
    if streams is not None and streams < 1:
        raise InvalidOption(f"streams is {streams}; need at least 1")
    names = parse_device_list(devices) if isinstance(devices, str) else devices
    if isinstance(names, int) and names < 1:
        raise InvalidOption(f"devices is {names}; need at least 1")
    if machine is None:
        if _is_cuda(target) and not isinstance(names, Sequence):
            names = [f"cuda:{i}" for i in range(1 if names is None else names)]
        if names is None:
            names = len(available_cores())
        if isinstance(names, int):
            return cpu_machine([f"cpu:{i}" for i in range(names)], streams=streams or 1)
        if {name.partition(":")[0] for name in names} == {"cuda"}:
            return _cuda_machine(tuple(names), streams or _CUDA_STREAMS)
        return machine_from_devices(tuple(names), streams=streams or 1)
    if isinstance(machine, str):
        machine = load_machine(machine)
    if streams is not None:
        machine = machine.with_streams(streams)
    if names is None:
        return machine
    if isinstance(names, int):
        if names > len(machine.devices):
            raise InvalidOption(
                f"{names} devices of machine {machine.name!r}, which has {len(machine.devices)}"
            )
        chosen = list(range(names))
    else:
        chosen = [int(machine.device(name)) for name in names]
    return machine.subset(chosen)


def _cuda_machine(names: tuple[str, ...], streams: int) -> Machine:
    """Return the GPUs of this host; where it has none, a preset's, to compile for another host."""
    from graph_executor.cuda.detect import detect_machine

    found = detect_machine(names, streams)
    return machine_from_devices(names, streams=streams) if found is None else found


def _is_cuda(target: Any) -> bool:
    if isinstance(target, str):
        return target.lstrip().startswith(("cuda", "{")) and "cuda" in target
    if isinstance(target, dict):
        return target.get("kind") == "cuda"
    kind = getattr(getattr(target, "kind", None), "name", None)
    return str(kind) == "cuda"
