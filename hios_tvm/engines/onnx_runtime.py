"""ONNX Runtime on the CPU, sequential or with its parallel execution mode."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hios.errors import MissingDependency
from hios_tvm.engines.protocol import Arrays

__all__ = ["OnnxRuntime"]


class OnnxRuntime:
    """An ONNX Runtime session.

    Parameters
    ----------
    model
        An ``onnx.ModelProto``.
    intra_threads
        Threads inside one operator.
    inter_threads
        Operators at once; above 1 the parallel execution mode is used.
    spins
        Whether its threads stay awake between the operators of a run, as they do by default.
        They stop when the run ends: idle threads of one engine must not eat the cores of the
        next one that is timed.

    Raises
    ------
    MissingDependency
        When onnxruntime is not installed.
    """

    def __init__(
        self, model: Any, intra_threads: int = 1, inter_threads: int = 1, spins: bool = False
    ) -> None:
        try:
            import onnxruntime
        except ImportError as problem:
            raise MissingDependency(
                "onnxruntime is not installed; run: pip install onnxruntime"
            ) from problem
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = intra_threads
        options.inter_op_num_threads = inter_threads
        options.log_severity_level = 3
        if inter_threads > 1:
            options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
        if spins:
            options.add_session_config_entry("session.force_spinning_stop", "1")
        else:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        mode = f"{intra_threads} thread" + ("s" if intra_threads > 1 else "")
        if inter_threads > 1:
            mode = f"parallel mode, {intra_threads}×{inter_threads}"
        self.name = f"ONNX Runtime {onnxruntime.__version__} ({mode})"

    def run(self, inputs: Arrays) -> Sequence[np.ndarray[Any, np.dtype[Any]]]:
        """Run once."""
        outputs: Sequence[np.ndarray[Any, np.dtype[Any]]] = self._session.run(None, dict(inputs))
        return outputs

    def close(self) -> None:
        """Drop the session and its threads."""
        del self._session
