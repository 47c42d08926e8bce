"""TVM's own Relax virtual machine on the CPU: the executor that ours is compared with."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tvm
from tvm import relax

from relay_passes.compile import resolve_target
from relay_passes.frontends import import_model

__all__ = ["RelaxVirtualMachine", "compile_executable"]


def compile_executable(
    model: Any,
    target: Any = "llvm",
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    pipeline: Any = "default",
) -> Any:
    """Import a model and compile it with ``tvm.compile``.

    Parameters
    ----------
    model, target, shapes
        As in `relay_passes.compile_graph`.
    pipeline
        ``default`` is what a TVM user without hios-tvm gets; or a pipeline of ours.

    Returns
    -------
    tvm.relax.VMExecutable
        For `RelaxVirtualMachine`.
    """
    mod = import_model(model, shapes).mod
    return tvm.compile(mod, resolve_target(target), relax_pipeline=pipeline)


class RelaxVirtualMachine:
    """Runs ``main`` of a compiled executable on ``cpu:0`` in a thread of its own.

    TVM's thread pool belongs to the thread that calls a kernel and keeps its first size, so a
    virtual machine with another number of threads needs another thread.

    Parameters
    ----------
    executable
        From ``tvm.compile``, with any pipeline.
    n_threads
        Threads of its kernels.
    """

    def __init__(self, executable: Any, n_threads: int = 1) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="relax-vm")
        self._device = tvm.cpu(0)
        self._machine = self._thread.submit(self._open, executable, n_threads).result()

    def _open(self, executable: Any, n_threads: int) -> Any:
        tvm.get_global_func("runtime.config_threadpool")(1, n_threads)
        return relax.VirtualMachine(executable, self._device)

    def run(self, inputs: Sequence[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        """Run once.

        Parameters
        ----------
        inputs
            In the order of the parameters of ``main``.

        Returns
        -------
        list of ndarray
            The outputs in order; a single output is a list of one.
        """
        return self._thread.submit(self._run, inputs).result()

    def _run(self, inputs: Sequence[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        result = self._machine["main"](*(tvm.runtime.tensor(array) for array in inputs))
        if hasattr(result, "numpy"):
            return [result.numpy()]
        return [item.numpy() for item in result]

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()
