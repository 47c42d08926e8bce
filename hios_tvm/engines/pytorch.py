"""PyTorch: eager, ``torch.compile``, and a captured CUDA graph."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from hios_tvm.engines.gpu import first_lack
from hios_tvm.engines.protocol import Arrays, Contender, Engine, needs
from hios_tvm.engines.subject import Subject

__all__ = ["PyTorch", "PyTorchCudaGraph", "pytorch"]

FAMILY = "torch"


class PyTorch:
    """A module on the CPU or a GPU.

    Parameters
    ----------
    label
        Row label.
    module
        The network, in evaluation mode; takes the inputs in order.
    threads
        Of its operators on the CPU.
    device
        ``cpu`` or ``cuda``.
    is_compiled
        Through ``torch.compile``, with weights frozen as for inference.
    """

    # torch.set_num_threads is for the whole process and costs microseconds.
    _settled: ClassVar[int] = 0

    def __init__(
        self,
        label: str,
        module: Any,
        threads: int,
        device: str = "cpu",
        *,
        is_compiled: bool = False,
    ) -> None:
        import torch

        self.name = label
        self._torch = torch
        self._threads = threads
        self._device = device
        # TF32 would be another precision than that of the rest.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        module = module.to(device)
        options = {"freezing": True}
        self._call: Callable[..., Any] = (
            torch.compile(module, options=options) if is_compiled else module
        )

    def run(self, inputs: Arrays) -> Sequence[np.ndarray[Any, np.dtype[Any]]]:
        """Run once, from and to host memory."""
        if PyTorch._settled != self._threads:
            PyTorch._settled = self._threads
            self._torch.set_num_threads(self._threads)
        with self._torch.no_grad():
            found = self._call(*(self._tensor(array) for array in inputs.values()))
        outputs = found if isinstance(found, tuple | list) else (found,)
        return [output.detach().cpu().numpy() for output in outputs]

    def _tensor(self, array: np.ndarray[Any, Any]) -> Any:
        return self._torch.from_numpy(array).to(self._device)

    def close(self) -> None:
        """Drop the module."""
        del self._call


class PyTorchCudaGraph:
    """A module captured once as a CUDA graph and replayed.

    Parameters
    ----------
    label
        Row label.
    module
        The network, in evaluation mode.
    inputs
        Of the shapes that it will be run with.
    """

    def __init__(self, label: str, module: Any, inputs: Arrays) -> None:
        import torch

        self.name = label
        self._torch = torch
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        module = module.to("cuda")
        self._inputs = [torch.from_numpy(array).to("cuda") for array in inputs.values()]
        # What is loaded or chosen at the first runs must not happen in the capture.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), torch.no_grad():
            for _ in range(3):
                module(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(self._graph):
            found = module(*self._inputs)
        self._outputs = found if isinstance(found, tuple | list) else (found,)

    def run(self, inputs: Arrays) -> Sequence[np.ndarray[Any, np.dtype[Any]]]:
        """Replay once, from and to host memory."""
        for target, array in zip(self._inputs, inputs.values(), strict=True):
            target.copy_(self._torch.from_numpy(array))
        self._graph.replay()
        return [output.cpu().numpy() for output in self._outputs]

    def close(self) -> None:
        """Drop the graph with its memory."""
        del self._graph


def pytorch(mode: str, threads: int | None) -> Contender:
    """Return PyTorch in one mode.

    Parameters
    ----------
    mode
        ``eager`` or ``compile`` on the CPU, ``cuda-eager``, ``cuda-compile`` or ``cuda-graph``.
    threads
        On the CPU; None: all cores.
    """
    is_cuda = mode.startswith("cuda")
    words = {
        "eager": "eager",
        "compile": "torch.compile",
        "cuda-eager": "CUDA, eager",
        "cuda-compile": "CUDA, torch.compile",
        "cuda-graph": "CUDA graph",
    }[mode]

    def absence(subject: Subject) -> str | None:
        reason = needs("torch", "torch")
        if is_cuda:
            reason = first_lack(reason)
        if reason is not None:
            return reason
        if is_cuda:
            import torch

            if not torch.cuda.is_available():
                return "this torch is a CPU build; install one for CUDA"
        if subject.program is not None:
            return None
        if (reason := subject.lacks_onnx()) is not None:
            return reason
        from hios_tvm.engines.torch_network import unsupported

        return unsupported(subject.onnx)

    def open_engine(subject: Subject) -> Engine:
        import torch

        module = _module(subject)
        count = threads or len(subject.cores)
        where = words if is_cuda else f"{words}, {count} thread" + ("s" if count > 1 else "")
        label = f"PyTorch {torch.__version__} ({where})"
        if mode == "cuda-graph":
            return PyTorchCudaGraph(label, module, subject.inputs)
        return PyTorch(
            label,
            module,
            count,
            "cuda" if is_cuda else "cpu",
            is_compiled=mode.endswith("compile"),
        )

    suffix = "" if is_cuda or mode == "compile" else f"-{threads or 'all'}"
    threads_said = "" if is_cuda else f" ({threads or 'all'} threads)"
    return Contender(
        key=f"torch-{mode}{suffix}",
        family=FAMILY,
        label=f"PyTorch, {words}{threads_said}",
        settings="NCHW" if not mode.endswith("compile") else "weights frozen",
        absence=absence,
        open=open_engine,
        note="never run on a GPU by this project" if is_cuda else "",
    )


def _module(subject: Subject) -> Any:
    """Return the network as a module: the exported program itself, or the ONNX graph rebuilt."""
    if subject.program is not None:
        return subject.program.module()
    from hios_tvm.engines.torch_network import torch_module

    return torch_module(subject.require_onnx())
