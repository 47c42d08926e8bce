"""Running an operator graph one operator after another, and references to compare with."""

import numpy as np
import onnxruntime
import tvm
from onnx import TensorProto, helper, numpy_helper

from hios.ir import CompiledGraph


def run_sequential(compiled: CompiledGraph, inputs):
    """Run every operator in topological order; return the outputs as numpy arrays."""
    graph, module = compiled.graph, compiled.library.module
    buffers = {}
    for tensor in graph.tensors:
        if tensor.alias_of is not None:
            base = buffers[tensor.alias_of]
            buffers[tensor.id] = base._create_view(tensor.shape, tensor.dtype)
        elif tensor.id in compiled.params:
            buffers[tensor.id] = tvm.runtime.tensor(compiled.params[tensor.id])
        else:
            buffers[tensor.id] = tvm.runtime.empty(tensor.shape, tensor.dtype)
    for tensor, value in zip(graph.inputs, inputs, strict=True):
        buffers[tensor].copyfrom(np.ascontiguousarray(value))
    for op_id in graph.topological_order():
        op = graph.operators[op_id]
        module[op.kernel](*(buffers[t] for t in (*op.inputs, *op.outputs)))
    return [buffers[t].numpy() for t in graph.outputs]


def reference(model, inputs):
    """Run an ONNX model in ONNX Runtime on one thread."""
    return references(model, [inputs])[0]


def references(model, runs):
    """Run an ONNX model on several sets of inputs, in one session."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [i.name for i in session.get_inputs()]
    return [session.run(None, dict(zip(names, inputs, strict=True))) for inputs in runs]


def relative_error(out, ref):
    """Return the norm of the difference over the norm of the reference."""
    ref = np.asarray(ref, dtype=np.float64)
    return float(np.linalg.norm(np.asarray(out, dtype=np.float64) - ref) / np.linalg.norm(ref))


def onnx_model(nodes, inputs, outputs, weights=(), opset=13):
    """Build an ONNX model; shapes as tuples, a string is a dynamic dimension."""

    def info(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        list(nodes),
        "graph",
        [info(n, s) for n, s in inputs.items()],
        [info(n, s) for n, s in outputs.items()],
        [numpy_helper.from_array(v, k) for k, v in dict(weights).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
