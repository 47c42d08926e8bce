"""float32 products in TF32: the generated source runs in an emulator (`cuda_emulator`)."""

import json
import shutil

import numpy as np
import onnx
import pytest
from command_line import runner, small_network
from cuda_emulator import EmulatedGraphs
from relax_fixtures import relative_error
from test_cuda_kernels import check_convolutions, module_of
from test_cuda_tensor_cores import CONVOLUTIONS, rules_of
from tvm import relax

from graph_executor.artifact import load_artifact
from hios.errors import InvalidOption
from relay_passes import compile_graph, resolve_target
from relay_passes.compile_cache import CompileCache
from relay_passes.cuda.target import allows_tf32
from relay_passes.kernels.cuda import tiles
from relay_passes.kernels.cuda.tiles import ProductTile, TensorTile, choose_tile
from relay_passes.straight_line import tensor_constant

TOLERANCE = 1e-3
"""Factors are rounded to eleven bits, one of them hidden; sums are float32."""

needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc to compile with")


def target(arch="sm_80"):
    return resolve_target(f"cuda:{arch}", allow_tf32=True)


def to_tf32(x):
    """Round to ten bits of mantissa, to nearest and ties away from zero."""
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def convolution(kernels, channels, size):
    """Return a network of one 3×3 convolution."""
    w = np.random.default_rng(8).standard_normal((kernels, channels, 3, 3), dtype=np.float32)

    def build(builder, data):
        y = relax.op.nn.conv2d(data, tensor_constant(w), padding=(1, 1, 1, 1))
        return relax.op.nn.relu(builder.emit(y))

    return module_of([(1, channels, size, size)], build)


def test_convolutions() -> None:
    keys = ("x", "w", "stride", "padding", "dilation", "groups", "residual")
    cases = [dict(zip(keys, case, strict=True)) for case in CONVOLUTIONS.values()]
    graphs = check_convolutions(cases, "float32", TOLERANCE, target(), to_tf32)
    for name, rules in rules_of(graphs).items():
        assert "tensor cores" in rules, name
        assert "product" not in rules, name


def test_products(monkeypatch) -> None:
    # Several fragments a warp in both directions, which a small product alone would not get.
    monkeypatch.setattr(tiles, "_TENSOR_SHAPES", ((64, 64, 32, 32),))
    rng = np.random.default_rng(7)
    shapes = {
        # name: (left, right, constant right)
        "square": ((64, 64), (64, 64), True),
        "odd": ((3, 33, 41), (3, 41, 27), False),
        "heads": ((1, 2, 17, 24), (1, 2, 24, 17), False),
        "few": ((5, 40), (40, 24), False),
        "row": ((1, 128), (128, 12), True),
    }
    modules, factors = {}, {}
    for name, (left, right, constant) in shapes.items():
        x = rng.standard_normal(left, dtype=np.float32)
        w = rng.standard_normal(right, dtype=np.float32)
        factors[name] = x, w
        if constant:
            modules[name] = module_of(
                [left], lambda _, a, w=w: relax.op.matmul(a, tensor_constant(w))
            )
        else:
            modules[name] = module_of([left, right], lambda _, a, b: relax.op.matmul(a, b))
    graphs = EmulatedGraphs(modules, target("sm_90"))
    assert rules_of(graphs) == {
        "square": ["tensor cores"],
        "odd": ["tensor cores"],
        "heads": ["tensor cores"],
        "few": ["product"],
        "row": ["rows"],
    }
    for name, (x, w) in factors.items():
        (found,) = graphs(name, *((x,) if shapes[name][2] else (x, w)))
        error = relative_error(found, x.astype("float64") @ w)
        if name in ("few", "row"):
            assert error < 1e-6, name
            continue
        assert 1e-5 < error < TOLERANCE, name
        assert relative_error(found, to_tf32(x).astype("float64") @ to_tf32(w)) < 1e-6, name


def test_tiles() -> None:
    def tile(*shape, allow_tf32=True, dtype="float32"):
        rows, columns, depth = shape
        return choose_tile(1, rows, columns, depth, "sm_90", depth, dtype, allow_tf32)

    assert isinstance(tile(8, 8, 8), TensorTile)
    assert tile(512, 512, 512).element_bytes == 4
    assert tile(512, 512, 512, dtype="float16").element_bytes == 2
    for found in (
        tile(7, 64, 64),
        tile(512, 512, 512, allow_tf32=False),
        tile(512, 512, 512, dtype="float64"),
    ):
        assert isinstance(found, ProductTile)


def test_a_target_says_whether_it_allows_it(tmp_path) -> None:
    plain, allowed = resolve_target("cuda:sm_80"), target()
    assert not allows_tf32(plain)
    assert allows_tf32(allowed)
    assert allows_tf32(resolve_target(json.loads(str(allowed))))
    assert resolve_target(allowed, allow_tf32=True).attrs["arch"] == "sm_80"
    cache, model = CompileCache(tmp_path), small_network()
    keys = {cache.build_key(model, t, None, None, (), "") for t in (plain, allowed)}
    assert len(keys - {None}) == 2
    for wrong, words in (
        ("llvm", "use a CUDA target"),
        ({"kind": "cuda", "arch": "sm_75"}, "use cuda:sm_80 or later"),
    ):
        with pytest.raises(InvalidOption, match=words):
            resolve_target(wrong, allow_tf32=True)


@needs_nvcc
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_machine_code_spills_nothing(arch) -> None:
    compiled = compile_graph(convolution(96, 64, 28), target(arch))
    (conv,) = [op for op in compiled.graph.operators if op.kind == "conv2d"]
    assert conv.attrs["rule"] == "tensor cores"
    assert 0 < conv.launch["registers"] <= 128
    assert conv.launch["local_bytes"] == 0
    assert conv.launch["shared_bytes"] <= 48 << 10


@needs_nvcc
def test_command_line(capfd, tmp_path) -> None:
    onnx.save(small_network(), tmp_path / "small.onnx")
    # The target comes from the devices.
    options = ("--devices", 1, "--machine", "2xA40-NVLink", "--scheduler", "sequential")
    code, _, err = runner(capfd)(
        "compile",
        tmp_path / "small.onnx",
        "-o",
        tmp_path / "small.hios",
        "--quiet",
        "--allow-tf32",
        *options,
    )
    assert (code, err) == (0, "")
    artifact = load_artifact(tmp_path / "small.hios")
    assert '"tf32"' in artifact.manifest.target
    rules = {op.attrs["rule"] for op in artifact.compiled.graph.operators if op.kind == "conv2d"}
    assert rules == {"tensor cores"}
