"""TVM's own executor, the Relax virtual machine, on the CPU."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hios_tvm.engines.protocol import Arrays, Contender, Engine
from hios_tvm.engines.subject import Subject

__all__ = ["TvmVirtualMachine", "virtual_machine"]

FAMILY = "tvm"


class TvmVirtualMachine:
    """The Relax virtual machine on a compiled executable.

    Parameters
    ----------
    label
        Which kernels it runs.
    executable
        From ``tvm.compile``.
    n_threads
        Threads of each kernel.
    """

    def __init__(self, label: str, executable: Any, n_threads: int = 1) -> None:
        from relay_passes.virtual_machine import RelaxVirtualMachine

        self.name = label
        self._machine = RelaxVirtualMachine(executable, n_threads)

    def run(self, inputs: Arrays) -> Sequence[np.ndarray[Any, np.dtype[Any]]]:
        """Run once; inputs in the order of the model's signature."""
        given: Mapping[str, Any] = inputs
        return self._machine.run(list(given.values()))

    def close(self) -> None:
        """End its thread."""
        self._machine.close()


def virtual_machine(kernels: str, threads: int | None) -> Contender:
    """Return the virtual machine with one kind of kernels.

    Parameters
    ----------
    kernels
        ``default`` (TVM's own pipeline) or ``ours``.
    threads
        Of each kernel; None: all cores.
    """
    words = {"default": "default pipeline", "ours": "our kernels"}[kernels]

    def label(count: int) -> str:
        return f"TVM VM, {words}, {count} thread" + ("s" if count > 1 else "")

    def open_engine(subject: Subject) -> Engine:
        count = threads or len(subject.cores)
        return TvmVirtualMachine(label(count), subject.executable(kernels), count)

    return Contender(
        key=f"tvm-{kernels}" + ("" if threads == 1 else "-all"),
        family=FAMILY,
        label=label(threads) if threads else f"TVM VM, {words}, all cores",
        settings=f"a thread pool of {threads or 'all cores'}, called in a thread of its own",
        absence=_absence,
        open=open_engine,
        note="TVM 0.27 has no schedules for CPU convolutions" if kernels == "default" else "",
    )


def _absence(subject: Subject) -> str | None:
    from relay_passes.relay.availability import has_relay

    if has_relay():
        return "this TVM has Relay and its graph executor is compared; needs apache-tvm 0.27"
    if any(device.kind != "cpu" for device in subject.machine.devices):
        return "compared on CPU devices; use --devices cpu:0,cpu:1"
    if subject.is_artifact:
        return "an artifact holds kernels only; give the model that it was compiled from"
    return None
