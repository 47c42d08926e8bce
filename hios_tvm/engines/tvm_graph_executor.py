"""TVM's own executor for Relay, the graph executor, on the CPU."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from hios_tvm.engines.protocol import Arrays, Contender, Engine
from hios_tvm.engines.subject import Subject

__all__ = ["TvmGraphExecutorEngine", "graph_executor"]

FAMILY = "tvm"


class TvmGraphExecutorEngine:
    """The graph executor on a factory; it runs in the calling thread and pins it.

    Parameters
    ----------
    label
        Row label.
    factory
        From ``relay.build``.
    cores
        That its kernels use.
    """

    def __init__(self, label: str, factory: Any, cores: Sequence[int]) -> None:
        from relay_passes.relay.graph_executor import TvmGraphExecutor

        self.name = label
        self._executor: Any = TvmGraphExecutor(factory, cores)

    def run(self, inputs: Arrays) -> Sequence[np.ndarray[Any, np.dtype[Any]]]:
        """Run once."""
        outputs: Sequence[np.ndarray[Any, np.dtype[Any]]] = self._executor.run(inputs)
        return outputs

    def close(self) -> None:
        """Drop the executor with its copy of the weights."""
        del self._executor


class _InOwnThread:
    """The same in a thread of its own, so that it pins no other engine's caller."""

    def __init__(self, label: str, factory: Any, cores: Sequence[int]) -> None:
        self.name = label
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="graph-executor")
        self._engine = self._thread.submit(TvmGraphExecutorEngine, label, factory, cores).result()

    def run(self, inputs: Arrays) -> Sequence[np.ndarray[Any, np.dtype[Any]]]:
        """Run once."""
        return self._thread.submit(self._engine.run, inputs).result()

    def close(self) -> None:
        """Drop the executor and end its thread."""
        self._engine.close()
        self._thread.shutdown()


def graph_executor(threads: int | None) -> Contender:
    """Return Relay's graph executor with kernels of so many threads; None: all cores."""

    def open_engine(subject: Subject) -> Engine:
        cores = subject.cores[:threads]
        label = f"TVM graph executor, {len(cores)} core" + ("s" if len(cores) > 1 else "")
        return _InOwnThread(label, subject.factory, cores)

    return Contender(
        key="tvm-graph" + ("" if threads == 1 else "-all"),
        family=FAMILY,
        label="TVM graph executor" + (", 1 core" if threads == 1 else ", all cores"),
        settings="its kernels are ours too; called in a thread of its own, pinned",
        absence=_absence,
        open=open_engine,
    )


def _absence(subject: Subject) -> str | None:
    from relay_passes.relay.availability import has_relay

    if not has_relay():
        return "TVM has had no Relay since 0.20; run it in the Relay environment: make relay-env"
    if any(device.kind != "cpu" for device in subject.machine.devices):
        return "compared on CPU devices; use --devices cpu:0,cpu:1"
    return None if subject.factory is not None else "reads ONNX models only"
