"""Real kernels for random graphs, so that executor tests need no network.

Every tensor is a vector of `LENGTH` floats. A kernel with n inputs and m outputs mixes all its
inputs into each output in an order that rounding makes visible, so two executions agree bit
for bit only if each kernel saw the same values.
"""

import random
from dataclasses import replace

import numpy as np
import tvm
from plan_cases import machine_of, random_graph, random_schedule
from tvm import te

from graph_executor.tvm_runtime import export_executable
from hios.ir import CompiledGraph, Machine, OpGraph, Schedule
from relay_passes.offset_factor import AllowOffsets

LENGTH = 1024


class Kernels:
    """A `KernelLibrary` around a module compiled in this process."""

    target = "llvm"
    tvm_version = tvm.__version__

    def __init__(self, module, executable):
        self.module = module
        self.executable = executable

    def export(self, path):
        export_executable(self.executable, path)


def mix(n_in: int, n_out: int):
    inputs = [te.placeholder((LENGTH,), name=f"a{i}") for i in range(n_in)]

    def body(k: int):
        def element(i):
            value = inputs[0][i] * tvm.tirx.const(0.7 + 0.1 * k, "float32")
            for j, operand in enumerate(inputs[1:], 1):
                value = value * tvm.tirx.const(0.3, "float32") + operand[i] * tvm.tirx.const(
                    0.1 * j + 0.05, "float32"
                )
            return value + tvm.tirx.const(0.01 * (k + 1), "float32")

        return element

    outputs = [te.compute((LENGTH,), body(k), name=f"b{k}") for k in range(n_out)]
    name = f"mix_{n_in}_{n_out}"
    return name, te.create_prim_func([*inputs, *outputs]).with_attr("global_symbol", name)


def build_kernels() -> Kernels:
    functions = dict(mix(n_in, n_out) for n_in in range(1, 5) for n_out in (1, 2))
    module = AllowOffsets()(tvm.IRModule(functions))
    executable = tvm.compile(module, target={"kind": "llvm"})
    return Kernels(executable.jit(), executable)


def random_compiled(seed: int, kernels: Kernels, operators: int = 14) -> CompiledGraph:
    rng = random.Random(seed)
    graph = random_graph(rng, rng.randint(1, operators))
    graph = OpGraph(
        "random",
        tuple(
            replace(op, kernel=f"mix_{len(op.inputs)}_{len(op.outputs)}") for op in graph.operators
        ),
        tuple(replace(t, shape=(LENGTH,), bytes=4 * LENGTH) for t in graph.tensors),
        graph.inputs,
        graph.outputs,
    )
    graph.validate()
    noise = np.random.default_rng(seed)
    params = {
        t.id: noise.standard_normal(LENGTH, dtype=np.float32)
        for t in graph.tensors
        if graph.is_weight(t.id) and t.alias_of is None
    }
    return CompiledGraph(graph, kernels, params)


def cpu_machine(cores: list[tuple[int, ...]], streams: int) -> Machine:
    machine = machine_of("cpu", len(cores), streams)
    return replace(
        machine,
        devices=tuple(
            replace(d, cores=c, peak_gflops=50.0 * max(1, len(c)), bandwidth_gb_s=20.0)
            for d, c in zip(machine.devices, cores, strict=True)
        ),
    )


def random_cpu_schedule(seed: int, graph: OpGraph, machine: Machine) -> Schedule:
    return random_schedule(random.Random(seed), graph, machine)
