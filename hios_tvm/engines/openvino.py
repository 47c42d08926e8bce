"""OpenVINO on the CPU."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hios_tvm.engines.protocol import Arrays, Contender, Engine, needs
from hios_tvm.engines.subject import Subject

__all__ = ["OpenVino", "openvino_cpu"]

FAMILY = "openvino"


class OpenVino:
    """A compiled OpenVINO model, latency first.

    Parameters
    ----------
    model
        An ``onnx.ModelProto``.
    threads
        Of its inference.
    shapes
        Of inputs with dynamic dimensions.
    """

    def __init__(
        self, model: Any, threads: int, shapes: dict[str, tuple[int, ...]] | None = None
    ) -> None:
        import io

        import openvino

        core = openvino.Core()
        network = core.read_model(io.BytesIO(model.SerializeToString()))
        if shapes:
            network.reshape(dict(shapes))
        compiled = core.compile_model(
            network,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": str(threads),
                # Else it takes bfloat16 where the CPU has it: another precision than the rest.
                "INFERENCE_PRECISION_HINT": "f32",
            },
        )
        version = str(openvino.__version__).partition("-")[0]
        plural = "s" if threads > 1 else ""
        self.name = f"OpenVINO {version} ({threads} thread{plural})"
        self._request = compiled.create_infer_request()
        self._count = len(compiled.outputs)

    def run(self, inputs: Arrays) -> Sequence[np.ndarray[Any, np.dtype[Any]]]:
        """Run once."""
        self._request.infer(dict(inputs))
        return [
            np.array(self._request.get_output_tensor(index).data) for index in range(self._count)
        ]

    def close(self) -> None:
        """Drop the model and its threads."""
        del self._request


def openvino_cpu(threads: int | None) -> Contender:
    """Return OpenVINO with so many threads; None: all cores."""

    def open_engine(subject: Subject) -> Engine:
        return OpenVino(subject.require_onnx(), threads or len(subject.cores), subject.shapes)

    return Contender(
        key=f"openvino-{threads or 'all'}",
        family=FAMILY,
        label="OpenVINO (" + ("1 thread)" if threads == 1 else "all cores)"),
        settings="latency hint, float32",
        absence=lambda subject: needs("openvino", "openvino") or subject.lacks_onnx(),
        open=open_engine,
    )
