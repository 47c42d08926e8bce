"""PyTorch on a GPU, from inputs on the device to outputs on the device, to be timed."""

import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

__all__ = ["MODES", "TorchWay"]

Mode = Literal["eager", "cuda graph", "torch.compile"]

MODES: tuple[Mode, ...] = ("eager", "cuda graph", "torch.compile")


class TorchWay:
    """A network in PyTorch, float32 throughout or with TF32, after cuDNN chose its algorithms.

    Parameters
    ----------
    model : onnx.ModelProto
        With static shapes.
    mode
        ``eager``; ``cuda graph``, the eager calls captured; ``torch.compile``, in the mode that
        captures a graph by itself.
    inputs
        In the order of the model.
    allow_tf32
        In convolutions and products.
    channels_last
        Keep images as our kernels do.
    """

    def __init__(
        self,
        model: Any,
        mode: Mode,
        inputs: Sequence[np.ndarray[Any, Any]],
        allow_tf32: bool = False,
        channels_last: bool = False,
    ) -> None:
        import torch

        from hios_tvm.engines.torch_network import torch_module

        self._torch = torch
        self._allow_tf32 = allow_tf32
        self._settle()
        module = torch_module(model).cuda()
        self._inputs = [torch.from_numpy(np.array(value)).cuda() for value in inputs]
        if channels_last:
            module = module.to(memory_format=torch.channels_last)
            self._inputs = [
                value.to(memory_format=torch.channels_last) if value.ndim == 4 else value
                for value in self._inputs
            ]
        self._graph: Any = None
        self._call = module
        if mode == "torch.compile":
            self._call = torch.compile(module, mode="reduce-overhead")
        self._warm_up()
        if mode == "cuda graph":
            self._graph = torch.cuda.CUDAGraph()
            with torch.no_grad(), torch.cuda.graph(self._graph):
                self._outputs = self._call(*self._inputs)

    def _settle(self) -> None:
        """Set what is for the whole process."""
        backends = self._torch.backends
        backends.cudnn.benchmark = True
        backends.cudnn.allow_tf32 = self._allow_tf32
        backends.cuda.matmul.allow_tf32 = self._allow_tf32

    def _warm_up(self) -> None:
        torch = self._torch
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), torch.no_grad():
            for _ in range(4):
                self._call(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()

    def times_us(self, count: int) -> list[float]:
        """Run once more than `count` times; return the times of all but the first."""
        torch = self._torch
        self._settle()
        found = []
        with torch.no_grad():
            for _ in range(count + 1):
                begin = time.perf_counter_ns()
                if self._graph is not None:
                    self._graph.replay()
                else:
                    self._call(*self._inputs)
                torch.cuda.synchronize()
                found.append((time.perf_counter_ns() - begin) / 1e3)
        return found[1:]
