"""Convolution kernels on random shapes, against a float64 reference."""

import re

import numpy as np
import pytest
import tvm
from convolution import convolve
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from relax_fixtures import relative_error, run_sequential
from tvm import relax, te, tirx

from relay_passes import compile_graph
from relay_passes.kernels.cpu.conv2d import schedule_conv2d, te_conv2d
from relay_passes.kernels.cpu.tiling import VectorUnit, choose_tile
from relay_passes.straight_line import tensor_constant

RELAXED = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def compile_convolution(x, w, bias, stride, padding, dilation, groups, residual=None):
    builder = relax.BlockBuilder()
    params = [relax.Var("x", relax.TensorType(x.shape, "float32"))]
    if residual is not None:
        params.append(relax.Var("r", relax.TensorType(residual.shape, "float32")))
    with builder.function("main", params):
        with builder.dataflow():
            out = builder.emit(
                relax.op.nn.conv2d(
                    params[0],
                    tensor_constant(w),
                    strides=stride,
                    padding=padding,
                    dilation=dilation,
                    groups=groups,
                )
            )
            out = builder.emit(relax.op.add(out, tensor_constant(bias.reshape(1, -1, 1, 1))))
            if residual is not None:
                out = builder.emit(relax.op.add(out, params[1]))
            out = builder.emit_output(relax.op.nn.relu(out))
        builder.emit_func_output(out)
    return compile_graph(builder.get())


@st.composite
def convolutions(draw):
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 5]))
    per_in, per_out = draw(st.integers(1, 40)), draw(st.integers(1, 70))
    kernel = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    padding = tuple(draw(st.integers(0, 3)) for _ in range(4))
    size = (draw(st.integers(3, 31)), draw(st.integers(3, 31)))
    assume(size[0] + padding[0] + padding[2] >= (kernel[0] - 1) * dilation[0] + 1)
    assume(size[1] + padding[1] + padding[3] >= (kernel[1] - 1) * dilation[1] + 1)
    batch = draw(st.integers(1, 2))
    seed = draw(st.integers(0, 2**16))
    shapes = (batch, groups * per_in, *size), (groups * per_out, per_in, *kernel)
    return shapes, stride, padding, dilation, groups, draw(st.booleans()), seed


@RELAXED
@given(convolutions())
def test_convolution_with_epilogue(case):
    (data, weight), stride, padding, dilation, groups, with_residual, seed = case
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(data, dtype=np.float32)
    w = rng.standard_normal(weight, dtype=np.float32)
    bias = rng.standard_normal(weight[0], dtype=np.float32)
    exact = convolve(x, w, stride, padding, dilation, groups) + bias.reshape(1, -1, 1, 1)
    residual = None
    if with_residual:
        residual = rng.standard_normal(exact.shape, dtype=np.float32)
        exact = exact + residual
    exact = np.maximum(exact, 0)
    compiled = compile_convolution(x, w, bias, stride, padding, dilation, groups, residual)
    inputs = [x] if residual is None else [x, residual]
    (out,) = run_sequential(compiled, inputs)
    assume(np.linalg.norm(exact) > 0)
    assert relative_error(out, exact) < 1e-5
    kinds = [op.kind for op in compiled.graph.operators]
    assert kinds.count("conv2d") + kinds.count("depthwise") == 1
    assert "elementwise" not in kinds


@RELAXED
@given(
    channels=st.integers(1, 70),
    size=st.tuples(st.integers(3, 30), st.integers(3, 30)),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_depthwise(channels, size, kernel, stride, padding, seed):
    assume(min(size) + 2 * padding >= kernel)
    assume(channels > 1)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, channels, *size), dtype=np.float32)
    w = rng.standard_normal((channels, 1, kernel, kernel), dtype=np.float32)
    bias = np.zeros(channels, dtype=np.float32)
    geometry = ((stride, stride), (padding,) * 4, (1, 1), channels)
    exact = np.maximum(convolve(x, w, *geometry), 0)
    assume(np.linalg.norm(exact) > 0)
    compiled = compile_convolution(x, w, bias, *geometry)
    (out,) = run_sequential(compiled, [x])
    assert relative_error(out, exact) < 1e-5
    assert "depthwise" in {op.kind for op in compiled.graph.operators}


@pytest.mark.parametrize(
    ("size", "channels", "outputs"),
    [
        ((6, 6), 832, 384),
        ((7, 7), 64, 30),
        ((73, 73), 16, 20),
        ((1, 1), 512, 1000),
        ((2, 5), 3, 17),
    ],
)
def test_pointwise_tiles_may_end_within_a_row(size, channels, outputs):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((1, channels, *size), dtype=np.float32)
    w = rng.standard_normal((outputs, channels, 1, 1), dtype=np.float32)
    bias = rng.standard_normal(outputs, dtype=np.float32)
    geometry = ((1, 1), (0, 0, 0, 0), (1, 1), 1)
    exact = np.maximum(convolve(x, w, *geometry) + bias.reshape(1, -1, 1, 1), 0)
    (out,) = run_sequential(compile_convolution(x, w, bias, *geometry), [x])
    assert relative_error(out, exact) < 1e-5


@pytest.mark.parametrize(
    ("side", "kernel", "outputs"), [(13, 1, 1000), (14, 1, 1000), (13, 3, 100), (9, 3, 70)]
)
def test_no_lane_is_asked_alone_whether_it_is_stored(side, kernel, outputs):
    """A condition on single lanes would take a vector store, and the tile's registers, apart."""
    unit = VectorUnit.of_bits(256)
    flat = kernel == 1
    tile, _ = choose_tile(side * side if flat else side, outputs, unit)
    blocks = -(-outputs // tile.channels)
    pad = (kernel // 2,) * 4
    x = te.placeholder((1, side, side, 24), "float32", name="x")
    w = te.placeholder((blocks, kernel, kernel, 24, tile.channels), "float32", name="w")
    out = (1, side, side, outputs)
    conv = te_conv2d(x, w, out, 1, (1, 1), pad, (1, 1), tile, flat)
    relu = te.compute(out, lambda *at: tirx.max(conv(*at), tirx.const(0, "float32")), name="relu")
    scheduled = schedule_conv2d(te.create_prim_func([x, w, relu])).mod.script()
    lanes = set(re.findall(r"for (\w+) in T\.vectorized", scheduled))
    conditions = re.findall(r"T\.where\((.*)\)", scheduled)
    assert lanes
    assert conditions, "tiles end beyond the last channel"
    assert not lanes & {name for c in conditions for name in re.findall(r"\w+", c)}


@pytest.mark.parametrize(("kernel", "groups"), [(3, 1), (1, 1), (3, 32), (3, 4)])
def test_bits_do_not_depend_on_threads(kernel, groups):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((1, 32, 28, 28), dtype=np.float32)
    w = rng.standard_normal((64 if groups < 32 else 32, 32 // groups, kernel, kernel))
    w = w.astype(np.float32)
    pad = kernel // 2
    compiled = compile_convolution(
        x, w, np.zeros(len(w), np.float32), (1, 1), (pad,) * 4, (1, 1), groups
    )
    configure = tvm.get_global_func("runtime.config_threadpool")
    results = []
    try:
        for threads in (1, 2):
            configure(1, threads)
            results.append(run_sequential(compiled, [x])[0])
    finally:
        configure(1, 1)
    assert np.array_equal(*results)


def test_weights_may_be_inputs():
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 5, 9, 9), "float32"))
    w = relax.Var("w", relax.TensorType((7, 5, 3, 3), "float32"))
    with builder.function("main", [x, w]):
        with builder.dataflow():
            out = builder.emit_output(relax.op.nn.conv2d(x, w, padding=1))
        builder.emit_func_output(out)
    rng = np.random.default_rng(1)
    data = rng.standard_normal((1, 5, 9, 9), dtype=np.float32)
    weight = rng.standard_normal((7, 5, 3, 3), dtype=np.float32)
    (out,) = run_sequential(compile_graph(builder.get()), [data, weight])
    exact = convolve(data, weight, (1, 1), (1, 1, 1, 1), (1, 1), 1)
    assert relative_error(out, exact) < 1e-5


@pytest.mark.parametrize(("per_in", "per_out"), [(6, 28), (34, 34), (68, 68), (136, 136), (5, 30)])
def test_groups_never_store_into_their_neighbour(per_in, per_out):
    # Another thread computes the next group: a store beyond the end of one shows as a race.
    rng = np.random.default_rng(5)
    x = rng.standard_normal((1, 4 * per_in, 14, 14), dtype=np.float32)
    w = rng.standard_normal((4 * per_out, per_in, 1, 1), dtype=np.float32)
    bias = np.zeros(len(w), np.float32)
    geometry = ((1, 1), (0, 0, 0, 0), (1, 1), 4)
    compiled = compile_convolution(x, w, bias, *geometry)
    exact = np.maximum(convolve(x, w, *geometry), 0)
    configure = tvm.get_global_func("runtime.config_threadpool")
    try:
        configure(1, 2)
        results = [run_sequential(compiled, [x])[0] for _ in range(5)]
    finally:
        configure(1, 1)
    assert relative_error(results[0], exact) < 1e-5
    assert all(np.array_equal(results[0], other) for other in results)


def test_image_of_few_channels_is_read_as_it_comes():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((2, 3, 23, 21), dtype=np.float32)
    w = rng.standard_normal((20, 3, 5, 3), dtype=np.float32)
    bias = rng.standard_normal(20, dtype=np.float32)
    for padding in ((0, 0, 0, 0), (2, 1, 0, 1)):
        geometry = ((2, 1), padding, (1, 1), 1)
        compiled = compile_convolution(x, w, bias, *geometry)
        exact = np.maximum(convolve(x, w, *geometry) + bias.reshape(1, -1, 1, 1), 0)
        assert relative_error(run_sequential(compiled, [x])[0], exact) < 1e-5
        assert [op.kind for op in compiled.graph.operators] == ["conv2d", "transpose"]
