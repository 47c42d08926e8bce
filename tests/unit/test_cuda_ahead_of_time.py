"""CUDA targets, machine code ahead of time, and what kernels take of a multiprocessor."""

import re
import subprocess

import numpy as np
import pytest
from tvm import relax

from hios.errors import InvalidGraph, InvalidOption, MissingDependency, UnsupportedModel
from relay_passes import compile_graph, resolve_target
from relay_passes.cuda import cubin as compiling
from relay_passes.cuda.cubin import compile_cubin, find_nvcc
from relay_passes.cuda.occupancy import resident_blocks
from relay_passes.cuda.packing import packed_format
from relay_passes.cuda.resources import read_resources
from relay_passes.straight_line import tensor_constant

SOURCE = """
extern "C" __global__ void __launch_bounds__(128) turn(float* a, float* b) {
  __shared__ float line[256];
  line[threadIdx.x] = a[threadIdx.x];
  __syncthreads();
  b[threadIdx.x] = line[127 - threadIdx.x];
}
extern "C" __global__ void table(float* a, int* at) {
  float own[64];
  for (int i = 0; i < 64; ++i) own[at[i] & 63] = a[i];
  a[threadIdx.x] = own[at[threadIdx.x] & 63];
}
"""

needs_nvcc = pytest.mark.skipif(find_nvcc() is None, reason="no nvcc here")


def network(dtype="float32"):
    """Return a small network: a convolution, a pooling, a product."""
    builder = relax.BlockBuilder()
    # A name that models have and C++ has not.
    x = relax.Var("gpu_0/data", relax.TensorType((1, 8, 12, 12), dtype))
    rng = np.random.default_rng(0)
    w = rng.standard_normal((16, 8, 3, 3)).astype(dtype)
    dense = rng.standard_normal((16, 10)).astype(dtype)
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit(relax.op.nn.conv2d(x, tensor_constant(w), padding=(1, 1)))
            y = builder.emit(relax.op.mean(builder.emit(relax.op.nn.relu(y)), [2, 3]))
            y = builder.emit_output(relax.op.matmul(y, tensor_constant(dense)))
        builder.emit_func_output(y)
    return builder.get()


def test_targets() -> None:
    assert str(resolve_target("cuda").attrs["arch"]) == "sm_90"
    assert str(resolve_target("cuda:sm_80").attrs["arch"]) == "sm_80"
    for wrong in ("cuda:sm_60", "cuda:", "cuda:gpu", "cuda:sm_80,fast"):
        with pytest.raises(InvalidOption, match="use cuda:ARCH with ARCH one of sm_80"):
            resolve_target(wrong)


@needs_nvcc
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_resources_are_what_ptxas_tells(arch, tmp_path) -> None:
    found = read_resources(compile_cubin(SOURCE, arch), arch)
    (tmp_path / "k.cu").write_text(SOURCE)
    told = subprocess.run(
        [find_nvcc(), "-cubin", f"-arch={arch}", "-O3", "-Xptxas=-v", "-o", "k.cubin", "k.cu"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    for name in ("turn", "table"):
        part = told[told.index(f"'{name}'") :]
        registers = int(re.search(r"Used (\d+) registers", part)[1])
        frame = int(re.search(r"(\d+) bytes stack frame", part)[1])
        assert (found[name].registers, found[name].local_bytes) == (registers, frame)
    assert (found["turn"].shared_bytes, found["table"].shared_bytes) == (1024, 0)
    assert found["table"].local_bytes >= 256


def test_resources_of_something_else() -> None:
    with pytest.raises(InvalidGraph, match="no 64-bit ELF file"):
        read_resources(b"// CUDA source", "sm_90")


@needs_nvcc
def test_compiler_errors_are_one_line() -> None:
    with pytest.raises(UnsupportedModel, match=r"refuses the kernels for sm_90: .*error") as told:
        compile_cubin("int main( {", "sm_90")
    assert "\n" not in str(told.value)


def test_no_compiler(monkeypatch) -> None:
    import builtins

    plain = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("cuda"):
            raise ImportError(name)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(compiling, "find_nvcc", lambda: None)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependency, match="neither nvcc nor NVRTC"):
        compile_cubin(SOURCE, "sm_90")


@needs_nvcc
def test_library_holds_machine_code(tmp_path) -> None:
    compiled = compile_graph(network(), "cuda:sm_80")
    path = tmp_path / "kernels.so"
    compiled.library.export(path)
    library = path.read_bytes()
    assert packed_format(library) == "cubin"
    assert b"__global__" not in library
    assert library.count(b"\x7fELF") == 2  # the library itself and the cubin
    for op in compiled.graph.operators:
        launch = op.launch
        assert launch["grid"] > 0
        assert launch["block"] % 32 == 0 or launch["block"] < 32
        assert 0 < launch["registers"] <= 255
        assert launch["local_bytes"] == 0
        assert 0 < launch["occupancy_percent"] <= 100
        assert op.attrs["workspaces"] == 0
    conv = next(op for op in compiled.graph.operators if op.kind == "conv2d")
    assert conv.launch["shared_bytes"] > 0
    assert conv.flops == pytest.approx(2 * 16 * 8 * 9 * 144, rel=0.1)


@needs_nvcc
def test_sums_of_groups_stay_in_registers() -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 136, 14, 14), "float32"))
    w = np.random.default_rng(1).standard_normal((136, 34, 1, 1)).astype("float32")
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit_output(relax.op.nn.conv2d(x, tensor_constant(w), groups=4))
        builder.emit_func_output(y)
    graph = compile_graph(builder.get(), "cuda:sm_80").graph
    (conv,) = [op for op in graph.operators if op.kind == "conv2d"]
    assert conv.attrs["rule"] == "product"
    assert conv.launch["local_bytes"] == 0


@needs_nvcc
def test_half_precision_compiles() -> None:
    compiled = compile_graph(network("float16"), "cuda:sm_90")
    rules = {op.kind: op.attrs["rule"] for op in compiled.graph.operators}
    assert (rules["conv2d"], rules["dense"]) == ("tensor cores", "rows")
    assert all(op.launch["local_bytes"] == 0 for op in compiled.graph.operators)


@pytest.mark.parametrize(
    ("arch", "threads", "registers", "shared", "blocks"),
    [
        ("sm_80", 1024, 32, 0, 2),  # threads
        ("sm_80", 32, 16, 0, 32),  # blocks
        ("sm_80", 256, 128, 0, 2),  # registers
        ("sm_80", 64, 32, 48 << 10, 3),  # shared memory
        ("sm_90", 64, 32, 48 << 10, 4),
        ("sm_86", 512, 32, 0, 3),
    ],
)
def test_resident_blocks(arch, threads, registers, shared, blocks) -> None:
    assert resident_blocks(arch, threads, registers, shared) == blocks
