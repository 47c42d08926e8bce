"""Poolings, rows, products and copies on random shapes, against a float64 reference.

Each example compiles one module of several kernels, so that few examples cover many shapes.
"""

import numpy as np
import pytest
import tvm
import tvm_ffi
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from relax_fixtures import relative_error, run_sequential
from tvm import relax, s_tir, tirx

from hios_tvm.sources import resolve_model
from relay_passes import compile_graph
from relay_passes.compile import resolve_target
from relay_passes.frontends import import_model
from relay_passes.kernels.cpu import ScheduleKernels, vector_unit
from relay_passes.pipeline import lowering_pipeline

FEW = settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


def compile_outputs(shapes, make):
    """Compile ``main`` of inputs of `shapes`, whose outputs are what `make` returns for them."""
    builder = relax.BlockBuilder()
    params = [relax.Var(f"x{i}", relax.TensorType(s, "float32")) for i, s in enumerate(shapes)]
    with builder.function("main", params):
        with builder.dataflow():
            outputs = [builder.emit(expr) for expr in make(*params)]
            result = builder.emit_output(relax.Tuple(outputs))
        builder.emit_func_output(result)
    return compile_graph(builder.get())


def check(shapes, make, exact, seed):
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
    compiled = compile_outputs(shapes, make)
    outputs = run_sequential(compiled, arrays)
    wanted = exact(*(a.astype(np.float64) for a in arrays))
    for number, (out, ref) in enumerate(zip(outputs, wanted, strict=True)):
        assert out.shape == ref.shape
        if not ref.any():
            assert not out.any()
        else:
            assert relative_error(out, ref) < 1e-5, number
    return compiled


def windows(x, kernel, stride, dilation, padding, fill):
    """Return the windows of an NCHW array, ``(n, c, oh, ow, kernel, kernel)``."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=fill)
    span = (kernel - 1) * dilation + 1
    view = np.lib.stride_tricks.sliding_window_view(x, (span, span), axis=(2, 3))
    return view[:, :, ::stride, ::stride, ::dilation, ::dilation]


@FEW
@given(
    batch=st.integers(1, 2),
    channels=st.integers(1, 70),
    size=st.tuples(st.integers(6, 19), st.integers(6, 19)),
    kernel=st.integers(2, 5),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_pooling(batch, channels, size, kernel, stride, dilation, seed):
    padding = (kernel - 1) // 2
    assume(min(size) + 2 * padding >= (kernel - 1) * dilation + 1)
    how = {"pool_size": [kernel] * 2, "strides": [stride] * 2, "padding": [padding] * 4}

    def make(x):
        pool = relax.op.nn.avg_pool2d
        return (
            relax.op.nn.max_pool2d(x, dilation=[dilation] * 2, **how),
            pool(x, count_include_pad=True, **how),
            pool(x, count_include_pad=False, **how),
            relax.op.nn.adaptive_avg_pool2d(x, [1, 1]),
            relax.op.mean(x, [2, 3], keepdims=True),
            relax.op.max(x, [2, 3]),
        )

    def exact(x):
        plain = windows(x, kernel, stride, 1, padding, 0.0)
        inside = windows(np.ones_like(x), kernel, stride, 1, padding, 0.0).sum((-1, -2))
        mean = x.mean((2, 3), keepdims=True)
        return (
            windows(x, kernel, stride, dilation, padding, -np.inf).max((-1, -2)),
            plain.mean((-1, -2)),
            plain.sum((-1, -2)) / inside,
            mean,
            mean,
            x.max((2, 3)),
        )

    check([(batch, channels, *size)], make, exact, seed)


@FEW
@given(
    leading=st.lists(st.integers(1, 6), min_size=1, max_size=2),
    columns=st.one_of(st.integers(1, 60), st.sampled_from([64, 96, 320, 1000])),
    seed=st.integers(0, 99),
)
def test_rows(leading, columns, seed):
    shape = (*leading, columns)

    def make(x, mask, scale, shift):
        masked = relax.op.add(relax.op.multiply(x, relax.const(7.0, "float32")), mask)
        return (
            relax.op.nn.softmax(masked, axis=-1),
            relax.op.nn.softmax(x, axis=0),
            relax.op.nn.log_softmax(x, axis=-1),
            relax.op.nn.layer_norm(x, scale, shift, axes=[-1]),
            relax.op.mean(relax.op.multiply(x, x), [-1], keepdims=True),
        )

    def softmax(x, axis):
        powers = np.exp(x - x.max(axis, keepdims=True))
        return powers / powers.sum(axis, keepdims=True)

    def exact(x, mask, scale, shift):
        mean = x.mean(-1, keepdims=True)
        deviation = np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return (
            softmax(7 * x + mask, -1),
            softmax(x, 0),
            x
            - x.max(-1, keepdims=True)
            - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)),
            (x - mean) / deviation * scale + shift,
            (x * x).mean(-1, keepdims=True),
        )

    assume(columns > 1)  # a row of one has no deviation, and a logarithm of nothing but zero
    check([shape, shape, (columns,), (columns,)], make, exact, seed)


@FEW
@given(
    leading=st.lists(st.integers(1, 4), max_size=2),
    rows=st.integers(1, 40),
    depth=st.integers(1, 70),
    columns=st.integers(1, 70),
    seed=st.integers(0, 99),
)
def test_products_of_two_activations(leading, rows, depth, columns, seed):
    shapes = [(*leading, rows, depth), (*leading, depth, columns), (*leading, columns, depth)]

    def make(a, b, c):
        order = [*range(len(leading)), len(leading) + 1, len(leading)]
        scores = relax.op.matmul(a, relax.op.permute_dims(c, order))
        return relax.op.nn.relu(relax.op.matmul(a, b)), scores

    def exact(a, b, c):
        return np.maximum(a @ b, 0), a @ np.swapaxes(c, -1, -2)

    compiled = check(shapes, make, exact, seed)
    assert "dense" in {op.kind for op in compiled.graph.operators}


@FEW
@given(
    parts=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    size=st.integers(1, 9),
    groups=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_copies(parts, size, groups, seed):
    channels = sum(parts) * groups
    shapes = [(1, part * groups, size, size) for part in parts]

    def make(*xs):
        whole = relax.op.nn.relu(relax.op.concat(xs, 1))
        split = relax.op.reshape(whole, (1, groups, channels // groups, size, size))
        shuffled = relax.op.permute_dims(split, [0, 2, 1, 3, 4])
        return whole, relax.op.reshape(shuffled, (1, channels, size, size)), relax.op.tanh(xs[0])

    def exact(*xs):
        whole = np.maximum(np.concatenate(xs, 1), 0)
        five = whole.reshape(1, groups, channels // groups, size, size)
        return whole, five.transpose(0, 2, 1, 3, 4).reshape(whole.shape), np.tanh(xs[0])

    check(shapes, make, exact, seed)


@FEW
@given(
    channels=st.integers(2, 40),
    size=st.integers(9, 20),
    kernel=st.integers(2, 4),
    stride=st.integers(1, 3),
    dilation=st.integers(2, 3),
    seed=st.integers(0, 99),
)
def test_dilated_depthwise(channels, size, kernel, stride, dilation, seed):
    assume(size + 2 >= (kernel - 1) * dilation + 1)

    def make(x, w):
        return (
            relax.op.nn.conv2d(x, w, strides=stride, padding=1, dilation=dilation, groups=channels),
        )

    def exact(x, w):
        return (
            np.einsum("ncyxhw,chw->ncyx", windows(x, kernel, stride, dilation, 1, 0.0), w[:, 0]),
        )

    check([(1, channels, size, size), (channels, 1, kernel, kernel)], make, exact, seed)


@pytest.mark.parametrize(
    ("target", "lanes", "registers"),
    [
        ({"kind": "llvm", "mcpu": "znver4"}, 16, 32),
        ({"kind": "llvm", "mcpu": "znver3"}, 8, 16),
        ({"kind": "llvm", "mcpu": "x86-64"}, 4, 16),
        ({"kind": "llvm", "mtriple": "aarch64-linux-gnu"}, 4, 32),
    ],
)
def test_vectors_are_as_wide_as_the_instruction_set_says(target, lanes, registers):
    unit = vector_unit(resolve_target(target))
    assert (unit.lanes, unit.registers) == (lanes, registers)


@pytest.mark.parametrize("name", ["light:squeezenet", "zoo:bert_base@9", "light:shufflenet"])
def test_no_kernel_keeps_workspace(name):
    target = resolve_target("llvm")
    with target:
        mod = lowering_pipeline(target)(import_model(resolve_model(name)).mod)
    kernels = [func for _, func in mod.functions_items() if isinstance(func, tirx.PrimFunc)]
    assert len(kernels) > 10
    for func in kernels:
        found = []

        def visit(block, found=found):
            found.extend(b for b in block.alloc_buffers if b.scope() == "global")

        tvm_ffi.structural_walk(func.body, (s_tir.SBlock, visit), order="pre")
        assert not found, func.attrs["global_symbol"]


def test_wide_rows_are_spread_over_vectors():
    target = resolve_target("llvm")
    unit = vector_unit(target)
    x = tvm.te.placeholder((6, 8 * unit.lanes), name="x")
    func = tvm.te.create_prim_func([x, tvm.topi.nn.softmax(x, 1)])
    mod = ScheduleKernels(target)(tvm.IRModule({"main": func}))
    loops = []
    tvm_ffi.structural_walk(mod["main"].body, (tirx.For, loops.append), order="pre")
    vectors = [loop for loop in loops if loop.kind == tirx.ForKind.VECTORIZED]
    assert len(vectors) >= 4  # greatest, powers, their sum, quotients
    assert all(int(loop.extent) == unit.lanes for loop in vectors)
