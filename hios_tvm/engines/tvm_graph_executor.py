"""TVM's own executor for Relay, the graph executor, on the CPU."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hios_tvm.engines.protocol import Arrays

__all__ = ["TvmGraphExecutorEngine"]


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
