"""CUDA kernels on random shapes: the generated source runs in an emulator (see `cuda_emulator`)."""

import numpy as np
import pytest
from convolution import convolve
from cuda_emulator import EmulatedGraphs
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from relax_fixtures import references, relative_error
from tvm import relax

from hios_tvm.models.light import load_light
from relay_passes import resolve_target
from relay_passes.straight_line import tensor_constant

# Every example is compiled, so each holds several kernels, and few are drawn.
FEW = settings(
    max_examples=2,
    deadline=None,
    derandomize=True,
    # Shrinking would compile for minutes; the message names the case that fails.
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TARGET = "cuda:sm_90"


def module_of(inputs, build, dtype="float32"):
    """Return a Relax module: `build` gets a builder and the inputs, whose shapes are given."""
    builder = relax.BlockBuilder()
    params = [relax.Var(f"x{i}", relax.TensorType(s, dtype)) for i, s in enumerate(inputs)]
    with builder.function("main", params):
        with builder.dataflow():
            out = builder.emit_output(build(builder, *params))
        builder.emit_func_output(out)
    return builder.get()


@st.composite
def convolutions(draw, grouped=False, depthwise=False):
    groups = draw(st.integers(2, 4)) if grouped else 1
    ic, oc = draw(st.integers(1, 21)), draw(st.integers(1, 70))
    if depthwise:
        groups, ic, oc = draw(st.integers(2, 40)), 1, 1
    kernel = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    return {
        "x": (draw(st.integers(1, 2)), groups * ic, *(s + draw(st.integers(0, 13)) for s in span)),
        "w": (groups * oc, ic, *kernel),
        "stride": (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        "padding": tuple(draw(st.integers(0, 3)) for _ in range(4)),
        "dilation": dilation,
        "groups": groups,
        "residual": draw(st.booleans()),
    }


def check_convolutions(cases, dtype="float32", tolerance=1e-5, target=TARGET, rounded=None):
    """Compare with float64; where factors are `rounded`, with the product of rounded ones too."""
    rng = np.random.default_rng(3)
    modules, wanted, exact, given_inputs = {}, {}, {}, {}
    for index, case in enumerate(cases):
        x = rng.standard_normal(case["x"]).astype(dtype)
        w = (rng.standard_normal(case["w"]) / np.prod(case["w"][1:]) ** 0.5).astype(dtype)
        bias = rng.standard_normal(case["w"][0]).astype(dtype).reshape(1, -1, 1, 1)
        attrs = {key: case[key] for key in ("stride", "padding", "dilation", "groups")}
        out = convolve(x, w, **attrs)
        inputs = [x]
        behind = bias
        if case["residual"]:
            inputs.append(rng.standard_normal(out.shape).astype(dtype))
            behind = bias.astype("float64") + inputs[1]
        name = f"c{index}"
        if rounded is not None:
            exact[name] = np.maximum(convolve(rounded(x), rounded(w), **attrs) + behind, 0)

        def build(builder, data, *rest, w=w, bias=bias, attrs=attrs):
            y = relax.op.nn.conv2d(
                data,
                tensor_constant(w),
                strides=attrs["stride"],
                padding=attrs["padding"],
                dilation=attrs["dilation"],
                groups=attrs["groups"],
            )
            y = relax.op.add(builder.emit(y), tensor_constant(bias))
            for other in rest:
                y = relax.op.add(builder.emit(y), other)
            return relax.op.nn.relu(builder.emit(y))

        modules[name] = module_of([a.shape for a in inputs], build, dtype)
        wanted[name], given_inputs[name] = np.maximum(out + behind, 0), inputs
    graphs = EmulatedGraphs(modules, resolve_target(target))
    for name, inputs in given_inputs.items():
        (found,) = graphs(name, *inputs)
        # Of a single output that the activation cuts off, nothing is left to compare with.
        size = max(np.linalg.norm(wanted[name]), 1e-3)
        error = np.linalg.norm(found - wanted[name]) / size
        assert error < tolerance, (cases[int(name[1:])], error)
        if rounded is not None:
            assert relative_error(found, exact[name]) < 1e-6 < 1e-5 < error, cases[int(name[1:])]
    return graphs


@FEW
@given(st.lists(convolutions(), min_size=6, max_size=6))
def test_convolution(cases) -> None:
    check_convolutions(cases)


@FEW
@given(
    st.lists(convolutions(grouped=True), min_size=3, max_size=3),
    st.lists(convolutions(depthwise=True), min_size=3, max_size=3),
)
def test_grouped_and_depthwise_convolution(grouped, depthwise) -> None:
    check_convolutions(grouped + depthwise)


@FEW
@given(
    st.lists(
        st.tuples(*(st.integers(1, 90) for _ in range(3)), st.integers(0, 2), st.booleans()),
        min_size=5,
        max_size=5,
    )
)
def test_products(cases) -> None:
    rng = np.random.default_rng(4)
    modules, wanted, given_inputs = {}, {}, {}
    for index, (rows, depth, columns, batch, constant) in enumerate(cases):
        leading = {0: (), 1: (3,), 2: (2, 2)}[batch]
        x = rng.standard_normal((*leading, rows, depth), dtype=np.float32)
        w = rng.standard_normal(
            (depth, columns) if constant else (*leading, depth, columns), dtype=np.float32
        )
        name = f"m{index}"
        if constant:
            modules[name] = module_of(
                [x.shape], lambda _, a, w=w: relax.op.matmul(a, tensor_constant(w))
            )
            given_inputs[name] = [x]
        else:
            modules[name] = module_of([x.shape, w.shape], lambda _, a, b: relax.op.matmul(a, b))
            given_inputs[name] = [x, w]
        wanted[name] = x.astype("float64") @ w.astype("float64")
    x = rng.standard_normal((1, 1003), dtype=np.float32)
    w = rng.standard_normal((1003, 37), dtype=np.float32)
    modules["row"] = module_of([x.shape], lambda _, a: relax.op.matmul(a, tensor_constant(w)))
    wanted["row"], given_inputs["row"] = x.astype("float64") @ w.astype("float64"), [x]
    graphs = EmulatedGraphs(modules, resolve_target(TARGET))
    for name, inputs in given_inputs.items():
        (found,) = graphs(name, *inputs)
        assert relative_error(found, wanted[name]) < 1e-5, name


def test_other_families() -> None:
    rng = np.random.default_rng(5)
    image = rng.standard_normal((2, 12, 19, 17), dtype=np.float32)
    table = rng.standard_normal((3, 7, 130), dtype=np.float32)
    soft = np.exp(table - table.max(-1, keepdims=True))
    centred = table - table.mean(-1, keepdims=True)
    ones, zeros = np.ones(130, np.float32), np.zeros(130, np.float32)
    cases = {
        "max_pool": (
            image,
            lambda _, a: relax.op.nn.max_pool2d(a, (3, 3), (2, 2), (1, 1, 1, 1)),
            np.lib.stride_tricks.sliding_window_view(
                np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf),
                (3, 3),
                axis=(2, 3),
            )[:, :, ::2, ::2].max((-1, -2)),
        ),
        "avg_pool": (
            image,
            lambda _, a: relax.op.nn.avg_pool2d(a, (3, 2), (1, 1)),
            np.lib.stride_tricks.sliding_window_view(image, (3, 2), axis=(2, 3)).mean((-1, -2)),
        ),
        "global_pool": (
            image,
            lambda _, a: relax.op.mean(a, [2, 3], keepdims=True),
            image.mean((2, 3), keepdims=True),
        ),
        "softmax": (
            table,
            lambda _, a: relax.op.nn.softmax(a, -1),
            soft / soft.sum(-1, keepdims=True),
        ),
        "layer_norm": (
            table,
            lambda _, a: relax.op.nn.layer_norm(
                a, tensor_constant(ones), tensor_constant(zeros), axes=[-1]
            ),
            centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5),
        ),
        "transpose": (
            table,
            lambda _, a: relax.op.permute_dims(a, [2, 0, 1]),
            table.transpose(2, 0, 1),
        ),
        "concat": (
            table,
            lambda b, a: relax.op.concat([a, b.emit(relax.op.nn.relu(a))], 1),
            np.concatenate([table, np.maximum(table, 0)], 1),
        ),
        "total": (table, lambda _, a: relax.op.sum(a), table.astype("float64").sum()),
    }
    modules = {name: module_of([x.shape], build) for name, (x, build, _) in cases.items()}
    graphs = EmulatedGraphs(modules, resolve_target(TARGET))
    for name, (x, _, wanted) in cases.items():
        (found,) = graphs(name, x)
        assert found.shape == np.shape(wanted)
        assert relative_error(found, wanted) < 1e-5, name
    assert not any(
        op.attrs["workspaces"] for g in graphs.graphs.values() for op in g.graph.operators
    )


@pytest.mark.full
@pytest.mark.parametrize("name", ["shufflenet", "squeezenet", "inception_v1"])
def test_network(name) -> None:
    model = load_light(name)
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(6).standard_normal(shape, dtype=np.float32)
    graphs = EmulatedGraphs({name: model}, resolve_target(TARGET))
    (found,) = graphs(name, x)
    assert relative_error(found, references(model, [[x]])[0][0]) < 1e-5
