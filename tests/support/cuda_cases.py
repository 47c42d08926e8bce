"""Random graphs as models of CUDA run them: kernels in Python, weights, expected outputs."""

from typing import Any

import numpy as np
from plan_cases import operate, reference, source_values

from graph_executor.dtypes import numpy_dtype
from hios.ir import CompiledGraph, OpGraph


class PythonLibrary:
    """Kernels as Python functions of arrays (`hios.ir.KernelLibrary`)."""

    target = '{"kind":"cuda"}'
    tvm_version = "none"

    def __init__(self, module: dict[str, Any]) -> None:
        self.module = module

    def export(self, path: Any) -> None:
        raise NotImplementedError


def compiled_case(graph: OpGraph) -> CompiledGraph:
    """The graph with kernels that compute what `plan_cases.operate` says."""
    values = source_values(graph)
    params = {
        t.id: _array(values[t.id], t)
        for t in graph.tensors
        if t.id in values and t.id not in graph.inputs
    }
    module = {op.kernel: _kernel(graph, op.id) for op in graph.operators}
    return CompiledGraph(graph, PythonLibrary(module), params)


def case_inputs(graph: OpGraph) -> dict[str, np.ndarray]:
    """The inputs for which `expected_outputs` holds."""
    values = source_values(graph)
    return {graph.tensors[t].name: _array(values[t], graph.tensors[t]) for t in graph.inputs}


def expected_outputs(graph: OpGraph) -> list[bytes]:
    """The outputs, computed one operator after the other."""
    return reference(graph)


def _array(data: bytes, tensor: Any) -> np.ndarray:
    return np.frombuffer(data, numpy_dtype(tensor.dtype)).reshape(tensor.shape)


def _kernel(graph: OpGraph, op: int) -> Any:
    count = len(graph.operators[op].inputs)

    def kernel(*arrays: np.ndarray) -> None:
        found = operate(graph, op, [array.tobytes() for array in arrays[:count]])
        for target, value in zip(arrays[count:], found, strict=True):
            target.reshape(-1).view(np.uint8)[...] = np.frombuffer(value, np.uint8)

    return kernel
