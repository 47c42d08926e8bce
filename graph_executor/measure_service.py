"""Measures groups for somebody in another process or on another machine: JSON in, JSON out.

The same service stands behind a second process of this machine (the noise floor) and behind
TVM's RPC (`graph_executor.tvm_runtime.rpc`). It gets an artifact once, and then groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from graph_executor.artifact import load_artifact
from graph_executor.group_timer import GroupOptions, GroupTimer, GroupTiming, time_group
from graph_executor.timed_device import Cache, Mode, TimedDevice
from hios.costs.protocol import Stage
from hios.errors import InvalidOption
from hios.ir.ids import OpId
from hios.ir.kernels import CompiledGraph
from hios.ir.machine import Device
from hios.ir.serial import decode_json, encode_json

__all__ = [
    "GroupAnswer",
    "GroupRequest",
    "MeasureService",
    "Service",
    "ServiceFacts",
    "measure_groups",
    "open_timer",
    "service_facts",
]


@dataclass(frozen=True, slots=True)
class GroupRequest:
    """Groups to measure.

    Attributes
    ----------
    artifact
        An artifact that was opened, by the path it was opened by.
    groups
        The chains as operator ids in its graph.
    options
        How much is measured.
    """

    artifact: str
    groups: tuple[tuple[int, ...], ...]
    options: GroupOptions = field(default_factory=GroupOptions)


@dataclass(frozen=True, slots=True)
class GroupAnswer:
    """What was measured.

    Attributes
    ----------
    timing
        The samples.
    widths, order
        How the groups were run, see `graph_executor.group_timer.GroupTimer`.
    """

    timing: GroupTiming
    widths: tuple[int, ...]
    order: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """Where and how groups are measured.

    Attributes
    ----------
    device
        The device.
    mode, cache
        See `graph_executor.group_timer.GroupTimer`.
    target
        TVM's JSON of the target of the kernels.
    env
        Versions.
    """

    device: TimedDevice
    mode: Mode
    cache: Cache
    target: str
    env: dict[str, str]


def open_timer(compiled: CompiledGraph, device: Device) -> GroupTimer:
    """Return the timer for a device's kind.

    Raises
    ------
    DeviceUnavailable
        When the device cannot be used here.
    InvalidOption
        When nothing here can measure on such a device.
    """
    if device.kind == "cpu":
        from graph_executor.group_measure import CpuGroupTimer

        return CpuGroupTimer(compiled, device)
    if device.kind == "cuda":
        from graph_executor.cuda.measure import open_cuda_timer

        return open_cuda_timer(compiled, device)
    raise InvalidOption(
        f"device {device.name!r} is of kind {device.kind!r}; groups are measured on cpu and cuda "
        "devices"
    )


def measure_groups(timer: GroupTimer, request: GroupRequest) -> GroupAnswer:
    """Measure one group on a timer of this process."""
    groups: Stage = [[OpId(op) for op in chain] for chain in request.groups]
    timing = time_group(timer, groups, request.options)
    return GroupAnswer(timing, timer.widths(groups), timer.order(groups))


class Service(Protocol):
    """What `MeasureService` offers, here, in another process or on another machine."""

    def open(self, artifact: str) -> str:
        """Load an artifact of this machine; return `ServiceFacts` as JSON.

        Raises
        ------
        HiosError
            When it cannot be used there.
        """
        ...

    def measure(self, request: str) -> str:
        """Measure a `GroupRequest`, return a `GroupAnswer`; both as JSON.

        Raises
        ------
        HiosError
            When the request is wrong, or nobody is there any more.
        """
        ...

    def close(self) -> None:
        """Give everything back; may be called twice."""
        ...


class MeasureService:
    """A device on which groups of several artifacts are measured; see `Service`.

    Parameters
    ----------
    device
        Where.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._opened: dict[str, tuple[GroupTimer, CompiledGraph]] = {}

    def open(self, artifact: str) -> str:
        """Load an artifact, if it is not yet; return `ServiceFacts` as JSON.

        Raises
        ------
        ArtifactMismatch, DeviceUnavailable
            When it cannot be used here.
        """
        if artifact not in self._opened:
            compiled = load_artifact(Path(artifact)).compiled
            self._opened[artifact] = (open_timer(compiled, self._device), compiled)
        return encode_json(service_facts(*self._opened[artifact])).decode()

    def measure(self, request: str) -> str:
        """Measure a `GroupRequest`, return a `GroupAnswer`; both as JSON.

        Raises
        ------
        InvalidOption
            When the request is none, or of an artifact that was not opened.
        """
        wanted = decode_json(request, GroupRequest, InvalidOption, "request to measure")
        if wanted.artifact not in self._opened:
            raise InvalidOption(f"artifact {wanted.artifact!r} is not open; open it first")
        timer, compiled = self._opened[wanted.artifact]
        operators = len(compiled.graph.operators)
        for op in (op for chain in wanted.groups for op in chain):
            if not 0 <= op < operators:
                raise InvalidOption(
                    f"request to measure operator {op}; the artifact has {operators}"
                )
        return encode_json(_rounded(measure_groups(timer, wanted))).decode()

    def close(self) -> None:
        """Give the device back; may be called twice."""
        for timer, _ in self._opened.values():
            timer.close()
        self._opened.clear()


def service_facts(timer: GroupTimer, compiled: CompiledGraph) -> ServiceFacts:
    """Return where and how a timer measures."""
    import platform

    from graph_executor.tvm_runtime import runtime_version

    env = {"tvm": runtime_version(), "os": platform.release(), "python": platform.python_version()}
    return ServiceFacts(timer.device, timer.mode, timer.cache, compiled.library.target, env)


def _rounded(answer: GroupAnswer) -> GroupAnswer:
    """Return the answer with times to the nanosecond: clocks tell no more."""
    timing = answer.timing
    short = replace(
        timing,
        solo_us=tuple(_round_all(times) for times in timing.solo_us),
        narrow_us=tuple(_round_all(times) for times in timing.narrow_us),
        serial_us=_round_all(timing.serial_us),
        group_us=_round_all(timing.group_us),
    )
    return replace(answer, timing=short)


def _round_all(times: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(time, 3) for time in times)
