"""TVM's own graph executor on the CPU: the executor that ours is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tvm
from tvm.contrib.graph_executor import GraphModule

__all__ = ["TvmGraphExecutor"]

_SPECIFY_ONE_CORE_PER_THREAD = -2


class TvmGraphExecutor:
    """Runs a factory on ``cpu:0`` in the calling thread, on given cores.

    Parameters
    ----------
    factory
        From ``relay.build``.
    cores
        The calling thread stays on the first; its pool uses all of them. TVM gives the pool its
        size at the first run of the thread, so whoever uses several instances runs the one
        with the most cores first.
    """

    # Which cores the pool of this thread was set to last: setting it costs microseconds.
    _settled: ClassVar[tuple[int, ...]] = ()

    def __init__(self, factory: Any, cores: Sequence[int]) -> None:
        self._module = GraphModule(factory["default"](tvm.cpu(0)))
        self._cores = tuple(cores)
        self._configure = tvm.get_global_func("runtime.config_threadpool")

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        """Run once and return the outputs in order."""
        if TvmGraphExecutor._settled != self._cores:
            TvmGraphExecutor._settled = self._cores
            names = [str(core) for core in self._cores]
            self._configure(_SPECIFY_ONE_CORE_PER_THREAD, len(names), names)
        self._module.run(**inputs)
        return [self._module.get_output(i).numpy() for i in range(self._module.get_num_outputs())]
