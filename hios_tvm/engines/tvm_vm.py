"""TVM's own executor, the Relax virtual machine, on the CPU."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hios_tvm.engines.protocol import Arrays

__all__ = ["TvmVirtualMachine"]


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
