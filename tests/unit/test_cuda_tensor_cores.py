"""float16 products on tensor cores: the generated source runs in an emulator (`cuda_emulator`)."""

import shutil

import numpy as np
import pytest
from cuda_emulator import EmulatedGraphs
from relax_fixtures import relative_error
from test_cuda_kernels import check_convolutions, module_of
from tvm import relax

from relay_passes import compile_graph, resolve_target
from relay_passes.features import RULE
from relay_passes.kernels.cuda.tiles import ProductTile, TensorTile, choose_tile
from relay_passes.straight_line import tensor_constant

TOLERANCE = 1e-3
"""The result, and what bias and residual make of it, are each rounded to eleven bits."""

CONVOLUTIONS = {
    # name: (input, weight, stride, padding, dilation, groups, residual)
    "3x3": ((1, 32, 9, 11), (40, 32, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, True),
    "first": ((1, 3, 19, 21), (24, 3, 3, 3), (2, 2), (0, 1, 1, 0), (1, 1), 1, False),
    "1x1 odd": ((2, 13, 7, 7), (9, 13, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1, True),
    "grouped": ((2, 34, 5, 6), (74, 17, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 2, True),
    "dilated": ((1, 20, 13, 12), (18, 20, 3, 2), (1, 2), (2, 0, 1, 3), (2, 3), 1, False),
}


def rules_of(graphs):
    return {
        name: [str(f.attrs[RULE]) for f in extracted.kernels.values()]
        for name, extracted in graphs.graphs.items()
    }


def test_convolutions() -> None:
    keys = ("x", "w", "stride", "padding", "dilation", "groups", "residual")
    cases = [dict(zip(keys, case, strict=True)) for case in CONVOLUTIONS.values()]
    graphs = check_convolutions(cases, "float16", TOLERANCE)
    for name, rules in rules_of(graphs).items():
        assert "tensor cores" in rules, name
        assert "product" not in rules, name
    assert graphs.source.count("nvcuda::wmma::mma_sync") >= len(cases)


def test_products() -> None:
    rng = np.random.default_rng(7)
    shapes = {
        # name: (left, right, constant right)
        "square": ((64, 64), (64, 64), True),
        "odd": ((3, 33, 41), (3, 41, 27), False),
        "heads": ((1, 2, 17, 24), (1, 2, 24, 17), False),
        "few rows": ((5, 40), (40, 24), False),
    }
    modules, wanted, inputs = {}, {}, {}
    for name, (left, right, constant) in shapes.items():
        x = rng.standard_normal(left).astype("float16")
        w = rng.standard_normal(right).astype("float16")
        key = name.replace(" ", "_")
        if constant:
            modules[key] = module_of(
                [left], lambda _, a, w=w: relax.op.matmul(a, tensor_constant(w)), "float16"
            )
        else:
            modules[key] = module_of(
                [left, right], lambda _, a, b: relax.op.matmul(a, b), "float16"
            )
        wanted[key] = x.astype("float64") @ w.astype("float64")
        inputs[key] = [x] if constant else [x, w]
    graphs = EmulatedGraphs(modules, resolve_target("cuda:sm_80"))
    for name, arrays in inputs.items():
        (found,) = graphs(name, *arrays)
        assert relative_error(found, wanted[name]) < TOLERANCE, name
    assert rules_of(graphs) == {
        "square": ["tensor cores"],
        "odd": ["tensor cores"],
        "heads": ["tensor cores"],
        "few_rows": ["product"],
    }


def test_tiles_by_shape_and_type() -> None:
    def tile(rows, columns, depth, dtype="float16"):
        return choose_tile(1, rows, columns, depth, "sm_90", depth, dtype)

    assert isinstance(tile(8, 8, 8), TensorTile)
    for shape in ((7, 64, 64), (64, 7, 64), (64, 64, 7)):
        assert isinstance(tile(*shape), ProductTile)
    assert isinstance(tile(512, 512, 512, "float32"), ProductTile)
    small, large = tile(64, 64, 256), tile(8192, 8192, 1024)
    assert small.rows * small.columns < large.rows * large.columns
    for found in (small, large):
        assert found.threads <= 1024
        assert found.rows % found.warp_rows == found.columns % found.warp_columns == 0


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc to compile with")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_machine_code_spills_nothing(arch) -> None:
    def build(builder, data):
        rng = np.random.default_rng(8)
        w = tensor_constant((rng.standard_normal((96, 64, 3, 3)) / 24).astype("float16"))
        y = builder.emit(relax.op.nn.conv2d(data, w, padding=(1, 1, 1, 1)))
        return relax.op.nn.relu(y)

    compiled = compile_graph(module_of([(1, 64, 28, 28)], build, "float16"), f"cuda:{arch}")
    (conv,) = [op for op in compiled.graph.operators if op.kind == "conv2d"]
    assert conv.attrs["rule"] == "tensor cores"
    assert 0 < conv.launch["registers"] <= 128
    assert conv.launch["local_bytes"] == 0
    assert conv.launch["shared_bytes"] <= 48 << 10
