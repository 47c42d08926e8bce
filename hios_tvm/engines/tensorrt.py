"""TensorRT through its Python API: strongly typed, with a timing cache, replayed as a CUDA graph.

Written for TensorRT 10 and 11 (11 knows strongly typed networks only, so half precision is in
the ONNX model, not a flag of the builder). It has never run: no TensorRT was at hand.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hios.errors import ExecutionError, UnsupportedModel
from hios.ir.serial import write_bytes
from hios_tvm.engines.gpu import first_lack
from hios_tvm.engines.protocol import Arrays, Contender, Engine, Precision, needs
from hios_tvm.engines.subject import Subject

__all__ = ["TensorRt", "build_plan", "half_precision", "tensorrt"]

FAMILY = "tensorrt"


def half_precision(model: Any) -> Any:
    """Return an ONNX model in float16 whose inputs and outputs stay float32.

    Raises
    ------
    UnsupportedModel
        When it cannot be converted.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    try:
        return convert_float_to_float16(model, keep_io_types=True)
    except (ValueError, TypeError, RuntimeError) as problem:
        raise UnsupportedModel(f"cannot convert the model to float16: {problem}") from problem


def build_plan(model: Any, precision: Precision, cache: Path | None = None) -> bytes:
    """Parse a model and build TensorRT's engine for the GPU here, serialized.

    Parameters
    ----------
    model : onnx.ModelProto
        With static shapes, in the precision wanted; `precision` only says whether TF32 may be
        used for float32.
    precision
        ``tf32`` allows TF32.
    cache
        Timing cache: read where it exists, written afterwards.

    Raises
    ------
    UnsupportedModel
        When the parser or the builder refuses it.
    """
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        reasons = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise UnsupportedModel(f"TensorRT cannot parse the model: {reasons}")
    config = builder.create_builder_config()
    if precision == "tf32":
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)  # set by default
    known = cache.read_bytes() if cache is not None and cache.is_file() else b""
    timing = config.create_timing_cache(known)
    config.set_timing_cache(timing, ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise UnsupportedModel("TensorRT's builder gave up; run with TensorRT's own trtexec to see")
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(cache, bytes(memoryview(timing.serialize())))
    return bytes(memoryview(plan))


class TensorRt:
    """A deserialized engine whose inference is captured once as a CUDA graph.

    Parameters
    ----------
    label
        Row label.
    plan
        From `build_plan`.
    """

    def __init__(self, label: str, plan: bytes) -> None:
        import tensorrt as trt
        from cuda.bindings import runtime

        self.name = label
        self._cuda = runtime
        self._logger = trt.Logger(trt.Logger.ERROR)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        self._context = self._engine.create_execution_context()
        self._stream = self._check(runtime.cudaStreamCreate())
        self._host: dict[str, np.ndarray[Any, Any]] = {}
        self._device: dict[str, int] = {}
        self._outputs: list[str] = []
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            shape = tuple(self._engine.get_tensor_shape(name))
            dtype = trt.nptype(self._engine.get_tensor_dtype(name))
            self._host[name] = np.empty(shape, dtype)
            self._device[name] = int(self._check(runtime.cudaMalloc(self._host[name].nbytes)))
            self._context.set_tensor_address(name, self._device[name])
            if self._engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT:
                self._outputs.append(name)
        # What is allocated or loaded at the first run must not happen in the capture.
        self._enqueue()
        self._check(runtime.cudaStreamSynchronize(self._stream))
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._check(runtime.cudaStreamBeginCapture(self._stream, mode))
        self._enqueue()
        self._graph = self._check(runtime.cudaStreamEndCapture(self._stream))
        self._replay = self._check(runtime.cudaGraphInstantiate(self._graph, 0))

    def run(self, inputs: Arrays) -> Sequence[np.ndarray[Any, np.dtype[Any]]]:
        """Run once, from and to host memory."""
        cuda = self._cuda
        kinds = cuda.cudaMemcpyKind
        for name, array in inputs.items():
            self._host[name][...] = array
            self._copy(self._device[name], self._host[name], kinds.cudaMemcpyHostToDevice)
        self._check(cuda.cudaGraphLaunch(self._replay, self._stream))
        for name in self._outputs:
            self._copy(self._device[name], self._host[name], kinds.cudaMemcpyDeviceToHost)
        self._check(cuda.cudaStreamSynchronize(self._stream))
        return [self._host[name].copy() for name in self._outputs]

    def close(self) -> None:
        """Free the graph, the memory and the engine."""
        cuda = self._cuda
        self._check(cuda.cudaGraphExecDestroy(self._replay))
        self._check(cuda.cudaGraphDestroy(self._graph))
        for address in self._device.values():
            self._check(cuda.cudaFree(address))
        self._check(cuda.cudaStreamDestroy(self._stream))
        del self._context, self._engine, self._runtime

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(int(self._stream)):
            raise ExecutionError("TensorRT refused to run the network; see its log")

    def _copy(self, address: int, host: np.ndarray[Any, Any], kind: Any) -> None:
        to_host = kind == self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        dst, src = (host.ctypes.data, address) if to_host else (address, host.ctypes.data)
        self._check(self._cuda.cudaMemcpyAsync(dst, src, host.nbytes, kind, self._stream))

    def _check(self, answer: tuple[Any, ...]) -> Any:
        status, *values = answer
        if int(status) != 0:
            raise ExecutionError(f"CUDA says {status} beside TensorRT; see `hios doctor`")
        return values[0] if values else None


def tensorrt(precision: Precision) -> Contender:
    """Return TensorRT in one precision."""

    def absence(subject: Subject) -> str | None:
        return (
            first_lack(needs("tensorrt", "tensorrt") or needs("cuda.bindings", "cuda-bindings"))
            or (needs("onnxruntime", "onnxruntime") if precision == "fp16" else None)
            or subject.lacks_onnx()
        )

    def open_engine(subject: Subject) -> Engine:
        import tensorrt as trt

        from graph_executor.measure_cache import default_cache_dir

        model = subject.require_onnx()
        if precision == "fp16":
            model = half_precision(model)
        cache = default_cache_dir() / f"tensorrt-{trt.__version__}-{precision}.timing"
        return TensorRt(
            f"TensorRT {trt.__version__} ({precision})", build_plan(model, precision, cache)
        )

    return Contender(
        key=f"tensorrt-{precision}",
        family=FAMILY,
        label=f"TensorRT ({precision})",
        settings="strongly typed, timing cache, one CUDA graph; host memory in and out",
        absence=absence,
        open=open_engine,
        precision=precision,
        note="never run by this project",
    )
