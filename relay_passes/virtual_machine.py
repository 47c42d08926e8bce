"""TVM's own Relax virtual machine on the CPU: the executor that ours is compared with."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax

__all__ = ["RelaxVirtualMachine", "compile_with_default_pipeline"]


def compile_with_default_pipeline(mod: Any, target: Any) -> Any:
    """Compile as a TVM user without hios-tvm does.

    Parameters
    ----------
    mod
        A Relax ``IRModule`` with static shapes.
    target
        TVM target.

    Returns
    -------
    tvm.runtime.Executable
        For `RelaxVirtualMachine`.
    """
    return tvm.compile(mod, tvm.target.Target(target))


class RelaxVirtualMachine:
    """Runs ``main`` of a compiled executable on ``cpu:0``.

    Parameters
    ----------
    executable
        From ``tvm.compile``, with any pipeline.
    """

    def __init__(self, executable: Any) -> None:
        self._device = tvm.cpu(0)
        self._machine = relax.VirtualMachine(executable, self._device)

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
        result = self._machine["main"](*(tvm.runtime.tensor(array) for array in inputs))
        if hasattr(result, "numpy"):
            return [result.numpy()]
        return [item.numpy() for item in result]
