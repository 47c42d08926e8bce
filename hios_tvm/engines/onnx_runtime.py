"""ONNX Runtime: on the CPU sequential or with its parallel mode, on a GPU through providers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hios.errors import MissingDependency
from hios_tvm.engines.gpu import first_lack
from hios_tvm.engines.protocol import Arrays, Contender, Engine, Precision, needs
from hios_tvm.engines.subject import Subject

__all__ = ["OnnxRuntime", "cpu_session", "gpu_session", "parallel_session"]

FAMILY = "ort"
CPU = "CPUExecutionProvider"


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
    providers
        Execution providers with their options, most wanted first.
    label
        Row label; by default the mode.
    settings
        Entries of the session's configuration.

    Raises
    ------
    MissingDependency
        When onnxruntime is not installed.

    Notes
    -----
    Its threads spin, as by default; without spinning it is slower (docs/comparing.md). They go on
    for some milliseconds after a run: whoever times another engine next must wait for that.
    """

    def __init__(
        self,
        model: Any,
        intra_threads: int = 1,
        inter_threads: int = 1,
        providers: Sequence[Any] = (CPU,),
        label: str = "",
        settings: Mapping[str, str] | None = None,
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
        for key, value in (settings or {}).items():
            options.add_session_config_entry(key, value)
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=list(providers)
        )
        mode = label or _mode(intra_threads, inter_threads)
        self.name = f"ONNX Runtime {onnxruntime.__version__} ({mode})"

    def run(self, inputs: Arrays) -> Sequence[np.ndarray[Any, np.dtype[Any]]]:
        """Run once."""
        outputs: Sequence[np.ndarray[Any, np.dtype[Any]]] = self._session.run(None, dict(inputs))
        return outputs

    def close(self) -> None:
        """Drop the session and its threads."""
        del self._session


def cpu_session(threads: int | None) -> Contender:
    """Return the sequential mode with so many threads in an operator; None: all cores."""
    label = "all cores" if threads is None else _mode(threads, 1)

    def open_engine(subject: Subject) -> Engine:
        return OnnxRuntime(subject.require_onnx(), threads or len(subject.cores))

    return Contender(
        key=f"ort-{threads or 'all'}",
        family=FAMILY,
        label=f"ONNX Runtime ({label})",
        settings=f"intra {threads or 'all cores'}; {_SPINNING}",
        absence=_absence,
        open=open_engine,
    )


def parallel_session() -> Contender:
    """Return the parallel mode: one thread an operator, as many operators at once as cores."""

    def open_engine(subject: Subject) -> Engine:
        return OnnxRuntime(subject.require_onnx(), 1, max(2, len(subject.cores)))

    return Contender(
        key="ort-parallel",
        family=FAMILY,
        label="ONNX Runtime (parallel mode)",
        settings=f"intra 1, inter one a core (2 at least); {_SPINNING}",
        absence=_absence,
        open=open_engine,
    )


def gpu_session(kind: str) -> Contender:
    """Return a session on a GPU.

    Parameters
    ----------
    kind
        ``cuda`` or ``tensorrt``.
    """
    provider = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}[kind]
    precision: Precision = "tf32" if kind == "tensorrt" else "fp32"
    # The CUDA provider uses TF32 unless told not to; TensorRT's builder allows it.
    chosen: list[Any] = (
        [(provider, {"use_tf32": "0"}), CPU]
        if kind == "cuda"
        else [provider, ("CUDAExecutionProvider", {"use_tf32": "0"}), CPU]
    )

    def absence(subject: Subject) -> str | None:
        package = needs("onnxruntime", "onnxruntime-gpu")
        if (reason := first_lack(package) or subject.lacks_onnx()) is not None:
            return reason
        import onnxruntime

        if provider not in onnxruntime.get_available_providers():
            return (
                f"this onnxruntime has no {provider}; run: pip uninstall onnxruntime, "
                "pip install onnxruntime-gpu"
            )
        return None

    def open_engine(subject: Subject) -> Engine:
        return OnnxRuntime(subject.require_onnx(), providers=chosen, label=f"{kind} provider")

    return Contender(
        key=f"ort-{kind}",
        family=FAMILY,
        label=f"ONNX Runtime ({kind} provider)",
        settings="inputs and outputs in host memory",
        absence=absence,
        open=open_engine,
        precision=precision,
        note="never run on a GPU by this project",
    )


_SPINNING = "spins as by default"


def _mode(intra_threads: int, inter_threads: int) -> str:
    if inter_threads > 1:
        return f"parallel mode, {intra_threads}×{inter_threads}"
    return f"{intra_threads} thread" + ("s" if intra_threads > 1 else "")


def _absence(subject: Subject) -> str | None:
    return needs("onnxruntime", "onnxruntime") or subject.lacks_onnx()
