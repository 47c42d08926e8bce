"""Run the CUDA source that TVM generates on the CPU: the very text that nvcc compiles.

Each thread of a block is a coroutine (see ``cuda_emulator.hpp``), so index arithmetic, guards,
vector accesses, shared memory, barriers, warp shuffles and tensor-core tiles are checked; speed
and what ptxas makes of it are not. A kernel runs twice, with the threads of a block in opposite
orders: results that differ tell of a missing barrier.
"""

import ctypes
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import tvm
from tvm import tirx

from relay_passes.extract import extract_graph
from relay_passes.features import bound_extents
from relay_passes.frontends import import_model
from relay_passes.offset_factor import with_buffers
from relay_passes.pipeline import lowering_pipeline

__all__ = ["EmulatedGraphs", "EmulatedKernels", "empty_like"]

_HEADER = Path(__file__).with_name("cuda_emulator.hpp")
# Before the first kernel or device function of ours stands what CUDA's headers need.
_START = re.compile(r'extern "C" __global__|__device__ __forceinline__ void hios_')
_DECLARED = re.compile(
    r'extern "C" __global__ void (?:__launch_bounds__\(\d+\) )?(\w+)\(([^)]*)\) \{', re.DOTALL
)


class EmulatedKernels:
    """Scheduled kernels of one module, callable by name with numpy arrays.

    Parameters
    ----------
    kernels : mapping
        Scheduled PrimFuncs by name.
    target : tvm.target.Target
        A ``cuda`` target.
    """

    def __init__(self, kernels, target):
        renamed = {name: _with_unique_names(func, name) for name, func in kernels.items()}
        self._extents = {name: bound_extents(func) for name, func in renamed.items()}
        executable = tvm.compile(tvm.IRModule(renamed), target=target)
        self.source = str(executable.mod.imports[0].inspect_source("cuda"))
        self._functions = {}
        with tempfile.TemporaryDirectory(prefix="hios-emulator-") as folder:
            self._library = self._build(Path(folder))

    def __call__(self, name, *arrays):
        """Run a kernel, its launches in order, on arrays that it writes into."""
        before = [a.copy() for a in arrays]
        self._run(name, arrays, 0)
        self._run(name, before, 1)
        for first, second in zip(arrays, before, strict=True):
            if first.tobytes() != second.tobytes():
                raise AssertionError(f"{name}: the order of threads changes the result")

    def _run(self, name, arrays, order):
        for index, extents in enumerate(self._extents[name]):
            called = f"{name}_kernel" + (f"_{index}" if index else "")
            pointers = []
            for argument in self._functions[called]:
                found = re.fullmatch(r"a(\d+)_ptr", argument)
                # What is no pointer is an element offset: zero.
                pointers.append(arrays[int(found[1])].ctypes.data if found else 0)
            values = (ctypes.c_void_p * len(pointers))(*pointers)
            grid = (ctypes.c_uint * 3)(*(extents.get(f"blockIdx.{d}", 1) for d in "xyz"))
            block = (ctypes.c_uint * 3)(*(extents.get(f"threadIdx.{d}", 1) for d in "xyz"))
            run = getattr(self._library, f"run_{called}")
            fault = run(values, grid, block, order)
            if fault:
                raise AssertionError(
                    f"{called}: "
                    + (
                        "threads of a block meet different barriers"
                        if fault == 1
                        else "a tile for the tensor cores begins at no multiple of 32 bytes"
                    )
                )

    def _build(self, folder):
        text = re.sub(r"#include .*", "", self.source)
        start = _START.search(text).start()
        text = re.sub(
            r"extern __shared__ __align__\(\d+\) ([\w ]+?) (\w+)\[\];",
            r"\1* \2 = (\1*)::buf_dyn_shmem;",
            text[start:],
        )
        # C++ wants attributes before the storage class.
        text = re.sub(r"__shared__ (alignas\(\d+\))", r"\1 static", text)
        calls = []
        for name, declared in _DECLARED.findall(text):
            parameters = [p.strip() for p in declared.split(",")]
            kinds = [re.sub(r"__restrict__|\w+$", "", p).strip() for p in parameters]
            self._functions[name] = [re.search(r"\w+$", p)[0] for p in parameters]
            passed = ", ".join(
                f"({kind})a[{i}]" if "*" in kind else f"({kind})(intptr_t)a[{i}]"
                for i, kind in enumerate(kinds)
            )
            calls.append(
                f"static void call_{name}(void** a) {{ {name}({passed}); }}\n"
                f'extern "C" int run_{name}(void** a, unsigned* g, unsigned* b, int o) '
                f"{{ return launch(call_{name}, a, g, b, o); }}\n"
            )
        whole = f'#include "{_HEADER}"\n{text}\n{"".join(calls)}'
        path = folder / "kernels.cpp"
        path.write_text(whole)
        library = path.with_suffix(".so")
        done = subprocess.run(
            [
                "g++",
                "-std=c++17",
                "-O1",
                "-w",
                "-ffp-contract=off",
                "-fno-strict-aliasing",
                "-shared",
                "-fPIC",
                "-o",
                str(library),
                str(path),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"generated CUDA source is no C++: {done.stderr[:2000]}")
        return ctypes.CDLL(str(library))


def _with_unique_names(func, name):
    """Return `func` with parameters a0, a1, ..., by which their arguments are found."""
    buffers = {
        param: tirx.decl_buffer(
            param.ty.shape,
            param.ty.dtype,
            f"a{i}",
            elem_offset=param.ty.elem_offset,
            data_alignment=param.ty.data_alignment,
            offset_factor=param.ty.offset_factor,
        )
        for i, param in enumerate(func.params)
    }
    return with_buffers(func, buffers).with_attr("global_symbol", name)


def empty_like(shape, dtype):
    """Return an array of NaNs (or of the largest integer), which a kernel must overwrite."""
    kind = np.dtype(dtype).kind
    return np.full(
        shape, np.nan if kind == "f" else 1 if kind == "b" else np.iinfo(dtype).max, dtype
    )


class EmulatedGraphs:
    """Networks lowered for CUDA, of which every kernel runs in the emulator.

    Parameters
    ----------
    modules : mapping
        Models that `relay_passes.frontends.import_model` takes, by name.
    target : tvm.target.Target
        A ``cuda`` target.
    """

    def __init__(self, modules, target):
        self.graphs = {}
        kernels = {}
        for name, module in modules.items():
            lowered = import_model(module).mod
            with target:
                lowered = lowering_pipeline(target)(lowered)
            self.graphs[name] = extract_graph(lowered, name)
            kernels |= {f"{name}_{k}": f for k, f in self.graphs[name].kernels.items()}
        self.kernels = kernels
        self._run = EmulatedKernels(kernels, target)
        self.source = self._run.source

    def __call__(self, name, *inputs):
        """Return the outputs of a network for inputs in the order of its signature."""
        extracted = self.graphs[name]
        graph = extracted.graph
        values = {k: np.ascontiguousarray(v) for k, v in extracted.params.items()}
        values |= dict(zip(graph.inputs, inputs, strict=True))

        def value(tensor):
            facts = graph.tensors[tensor]
            if tensor not in values:
                values[tensor] = value(facts.alias_of).reshape(facts.shape)
            return values[tensor]

        for op in graph.operators:
            for tensor in op.outputs:
                facts = graph.tensors[tensor]
                values[tensor] = empty_like(facts.shape, facts.dtype)
            self._run(f"{name}_{op.kernel}", *(value(t) for t in (*op.inputs, *op.outputs)))
        return [value(tensor) for tensor in graph.outputs]
