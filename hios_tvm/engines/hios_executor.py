"""Our own executor under one schedule."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hios.costs.analytic import AnalyticCosts
from hios.ir.presets import cpu_machine
from hios_tvm.costing import resolve_costs
from hios_tvm.deciding import decide
from hios_tvm.engines.protocol import Arrays, Contender, Engine
from hios_tvm.engines.subject import Subject
from hios_tvm.model import Model

__all__ = ["HiosExecutor", "built_model", "scheduled", "streams_of_wide_device", "wide_device"]

FAMILY = "hios"


class HiosExecutor:
    """A decided model.

    Parameters
    ----------
    label
        Row label.
    model
        Closed together with the engine.
    """

    def __init__(self, label: str, model: Model) -> None:
        self.name = label
        self.model = model

    def run(self, inputs: Arrays) -> Sequence[np.ndarray[Any, np.dtype[Any]]]:
        """Run once."""
        return list(self.model.run(inputs).values())

    def close(self) -> None:
        """End its threads."""
        self.model.close()


def scheduled(scheduler: str) -> Contender:
    """Return our executor under what one scheduler decides, whatever that costs."""

    def open_engine(subject: Subject) -> Engine:
        known = subject.known
        model = decide(
            subject.compiled, known.machine, known.costs, scheduler=scheduler, select=False
        )
        return _opened(f"hios-tvm, {scheduler}, {_devices(model)}", model)

    return Contender(
        key=scheduler,
        family=FAMILY,
        label=f"hios-tvm, {scheduler}",
        settings="one worker a stream, pinned; workers spin only on cores of their own",
        absence=_cpu_or_backend,
        open=open_engine,
    )


def streams_of_wide_device(scheduler: str = "ios") -> Contender:
    """Return our executor under IOS: one device with all the cores, a stream for each of them."""

    def open_engine(subject: Subject) -> Engine:
        cores = subject.cores
        machine = cpu_machine([subject.machine.devices[0].name], cores, len(cores))
        known = resolve_costs("profile", subject.compiled, machine, progress=subject.progress)
        model = decide(
            subject.compiled, known.machine, known.costs, scheduler=scheduler, select=False
        )
        return _opened(
            f"hios-tvm, {scheduler}, one {len(cores)}-core device, {len(cores)} streams", model
        )

    return Contender(
        key=scheduler,
        family=FAMILY,
        label=f"hios-tvm, {scheduler}",
        settings="one device, its streams share the cores in a stage",
        absence=_needs_cpu,
        open=open_engine,
        note="without merged convolutions",
    )


def wide_device() -> Contender:
    """Return our executor on one device with all the cores, every kernel wide."""

    def open_engine(subject: Subject) -> Engine:
        cores = subject.cores
        machine = cpu_machine([subject.machine.devices[0].name], cores)
        costs = AnalyticCosts(subject.compiled.graph, machine)  # the order needs no times
        model = decide(subject.compiled, machine, costs, scheduler="sequential", select=False)
        return _opened(f"hios-tvm, sequential, one {len(cores)}-core device", model)

    return Contender(
        key="wide",
        family=FAMILY,
        label="hios-tvm, sequential, one device with all cores",
        settings="every kernel uses all cores",
        absence=_needs_cpu,
        open=open_engine,
    )


def built_model() -> Contender:
    """Return what `hios_tvm.build` returns: the fastest of its candidates on these devices."""

    def open_engine(subject: Subject) -> Engine:
        known = subject.known
        model = decide(subject.compiled, known.machine, known.costs, progress=subject.progress)
        return _opened(f"hios-tvm, build (chose {_choice(model)})", model)

    return Contender(
        key="build",
        family=FAMILY,
        label="hios-tvm, build",
        settings="chosen by measuring the candidates",
        absence=_cpu_or_backend,
        open=open_engine,
    )


def _opened(label: str, model: Model) -> HiosExecutor:
    # Now, not at the first run: an engine that pins the calling thread would narrow the workers.
    _ = model.executor
    return HiosExecutor(label, model)


def _devices(model: Model) -> str:
    devices = model.machine.devices
    if devices[0].kind != "cpu":
        return f"{len(devices)} × {devices[0].kind}"
    cores = len(devices[0].cores)
    if model.schedule.scheduler == "sequential":
        return f"one {cores}-core device"
    count = {1: "one", 2: "two"}.get(len(devices), str(len(devices)))
    return f"{count} {cores}-core device" + ("s" if len(devices) > 1 else "")


def _choice(model: Model) -> str:
    return f"{model.schedule.scheduler}, {_devices(model)}"


def _needs_cpu(subject: Subject) -> str | None:
    if any(device.kind != "cpu" for device in subject.machine.devices):
        return "for CPU devices; compare with --devices cpu:0,cpu:1"
    return None


def _cpu_or_backend(subject: Subject) -> str | None:
    kinds = {device.kind for device in subject.machine.devices}
    if kinds == {"cpu"}:
        return None
    from hios_tvm.engines.gpu import lacks_nvidia_gpu

    return lacks_nvidia_gpu()
