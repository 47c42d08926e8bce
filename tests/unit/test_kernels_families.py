"""Products, poolings, normalisations and copies, against float64 or ONNX Runtime."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from relax_fixtures import onnx_model, reference, relative_error, run_sequential

from relay_passes import compile_graph
from relay_passes.kernels.cpu.tiling import VectorUnit, choose_tile, strip_length


@settings(max_examples=20)
@given(
    leading=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    depth=st.integers(1, 90),
    columns=st.integers(1, 300),
    seed=st.integers(0, 99),
)
def test_product_with_a_constant_matrix(leading, depth, columns, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((*leading, depth), dtype=np.float32)
    w = rng.standard_normal((depth, columns), dtype=np.float32)
    b = rng.standard_normal(columns, dtype=np.float32)
    model = onnx_model(
        [
            helper.make_node("MatMul", ["x", "w"], ["m"]),
            helper.make_node("Add", ["m", "b"], ["a"]),
            helper.make_node("Tanh", ["a"], ["y"]),
        ],
        {"x": x.shape},
        {"y": None},
        {"w": w, "b": b},
    )
    compiled = compile_graph(model)
    (out,) = run_sequential(compiled, [x])
    exact = np.tanh(x.astype(np.float64) @ w + b)
    assert relative_error(out, exact) < 1e-5
    assert [op.kind for op in compiled.graph.operators] == ["dense"]


POOL = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}

CASES = {
    "max_pool": ("MaxPool", POOL, (1, 37, 19, 23)),
    "max_pool_ceil": ("MaxPool", {**POOL, "pads": [0, 0, 0, 0], "ceil_mode": 1}, (2, 16, 10, 10)),
    "average_pool": ("AveragePool", POOL, (1, 24, 17, 9)),
    "average_pool_padded": ("AveragePool", {**POOL, "count_include_pad": 1}, (1, 64, 16, 16)),
    "global_average": ("GlobalAveragePool", {}, (2, 70, 13, 11)),
    "global_max": ("GlobalMaxPool", {}, (1, 33, 7, 7)),
    "lrn": ("LRN", {"size": 5, "alpha": 0.1, "beta": 0.75, "bias": 1.0}, (1, 37, 6, 5)),
    "lrn_even": ("LRN", {"size": 3, "alpha": 0.3, "beta": 0.6, "bias": 2.0}, (1, 16, 4, 4)),
    "softmax": ("Softmax", {"axis": -1}, (5, 103)),
    "softmax_inner": ("Softmax", {"axis": 1}, (3, 10, 17)),
    "log_softmax": ("LogSoftmax", {"axis": -1}, (4, 50)),
    "transpose": ("Transpose", {"perm": [0, 2, 3, 1]}, (2, 5, 7, 3)),
    "mean": ("ReduceMean", {"axes": [1], "keepdims": 0}, (3, 40, 9)),
    "mean_last": ("ReduceMean", {"axes": [-1], "keepdims": 1}, (3, 40, 65)),
    "flatten": ("Flatten", {"axis": 1}, (2, 3, 4, 5)),
    "sigmoid": ("Sigmoid", {}, (3, 1, 129)),
    "erf": ("Erf", {}, (7,)),
}


@pytest.mark.parametrize("case", CASES)
def test_operator_agrees_with_onnx_runtime(case):
    kind, attrs, shape = CASES[case]
    model = onnx_model([helper.make_node(kind, ["x"], ["y"], **attrs)], {"x": shape}, {"y": None})
    x = np.random.default_rng(2).standard_normal(shape, dtype=np.float32)
    (ref,) = reference(model, [x])
    (out,) = run_sequential(compile_graph(model), [x])
    assert out.shape == ref.shape
    assert relative_error(out, ref) < 1e-5


def test_layer_normalisation_with_its_statistics():
    model = onnx_model(
        [helper.make_node("LayerNormalization", ["x", "s", "b"], ["y", "m", "d"], axis=-1)],
        {"x": (3, 5, 48)},
        {"y": None, "m": None, "d": None},
        {"s": np.linspace(0.5, 2, 48, dtype=np.float32), "b": np.ones(48, np.float32)},
        opset=17,
    )
    x = np.random.default_rng(2).standard_normal((3, 5, 48), dtype=np.float32)
    for out, ref in zip(
        run_sequential(compile_graph(model), [x]), reference(model, [x]), strict=True
    ):
        assert out.shape == ref.shape
        assert relative_error(out, ref) < 1e-5


def test_channel_shuffle_costs_no_more_than_one_copy():
    w = np.random.default_rng(1).standard_normal((24, 24, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Reshape", ["a", "five"], ["b"]),
        helper.make_node("Transpose", ["b"], ["c"], perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", ["c", "four"], ["d"]),
        helper.make_node("Conv", ["d", "w"], ["y"]),
    ]
    weights = {
        "w": w,
        "five": np.array([1, 3, 8, 10, 10], dtype=np.int64),
        "four": np.array([1, 24, 10, 10], dtype=np.int64),
    }
    model = onnx_model(nodes, {"x": (1, 24, 10, 10)}, {"y": None}, weights)
    x = np.random.default_rng(2).standard_normal((1, 24, 10, 10), dtype=np.float32)
    compiled = compile_graph(model)
    (out,) = run_sequential(compiled, [x])
    assert relative_error(out, reference(model, [x])[0]) < 1e-5
    kinds = [op.kind for op in compiled.graph.operators]
    assert kinds.count("transpose") <= 3  # in, shuffle, out


@given(rows=st.integers(1, 400), channels=st.integers(1, 600), wide=st.booleans())
def test_tiles_fit_in_the_registers(rows, channels, wide):
    unit = VectorUnit.of_bits(512 if wide else 256)
    for exact in (False, True):
        tile, cost = choose_tile(rows, channels, unit, exact_rows=exact)
        assert (tile.rows + 1) * tile.vectors + 1 <= unit.registers or tile.rows == 1
        assert 1 <= tile.rows <= rows
        assert cost > 0
        if exact:
            assert rows % tile.rows == 0


@given(rows=st.integers(1, 400), tiles=st.integers(1, 100))
def test_strips_divide_the_image_and_reuse_their_weights(rows, tiles):
    length = strip_length(rows, tiles)
    assert rows % length == 0
    assert length == rows or length * tiles >= 12
