"""Merged convolutions: the same numbers as apart, in the pass, in networks, and in `build`."""

import numpy as np
import onnx
import pytest
from command_line import runner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper
from relax_fixtures import onnx_model, reference, relative_error, run_sequential
from tvm import relax

import hios_tvm
from hios.errors import InvalidOption
from hios.merge import merge_candidates
from hios_tvm.models.light import load_light
from hios_tvm.models.zoo import build as build_zoo
from relay_passes import compile_graph, compile_offers
from relay_passes.convolutions import convolution_identity
from relay_passes.straight_line import tensor_constant

RELAXED = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def identities(graph, members):
    return [graph.operators[op].attrs["convolution"] for op in members]


def all_merges(graph):
    return [identities(graph, members) for members in merge_candidates(graph)]


def n_convolutions(graph):
    return sum(op.kind == "conv2d" for op in graph.operators)


@st.composite
def branches(draw):
    """Draw convolutions of one value: kernels, paddings, biases, activations, readers."""
    stride = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    around = draw(st.tuples(*[st.integers(0, 1)] * 4))
    members = []
    for _ in range(draw(st.integers(2, 4))):
        kernel = draw(st.tuples(st.sampled_from([1, 2, 3, 5]), st.sampled_from([1, 2, 3])))
        before = [draw(st.integers(0, extent - 1)) for extent in kernel]
        # Of one output size, whatever the kernel; where it is centred differs.
        padding = [
            around[0] + before[0] * dilation[0],
            around[1] + before[1] * dilation[1],
            around[2] + (kernel[0] - 1 - before[0]) * dilation[0],
            around[3] + (kernel[1] - 1 - before[1]) * dilation[1],
        ]
        members.append(
            {
                "channels": draw(st.integers(1, 9)),
                "kernel": kernel,
                "padding": padding,
                "bias": draw(st.sampled_from(["none", "channels", "scalar"])),
                "activation": draw(st.sampled_from(["none", "relu", "relu", "leakyrelu"])),
                "is_read_early": draw(st.integers(0, 4)) == 0,
                "is_joined": draw(st.booleans()),
            }
        )
    size = draw(st.tuples(st.integers(4, 9), st.integers(4, 9)))
    return stride, dilation, members, (draw(st.integers(1, 2)), draw(st.integers(1, 12)), *size)


def module(stride, dilation, members, shape, rng):
    """Build the branches; those that are joined end in one concatenation."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(shape, "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            outputs, joined = [], []
            data = builder.emit(relax.op.tanh(x))
            for member in members:
                weight = rng.standard_normal((member["channels"], shape[1], *member["kernel"]))
                value = builder.emit(
                    relax.op.nn.conv2d(
                        data,
                        tensor_constant(weight.astype(np.float32)),
                        strides=stride,
                        padding=member["padding"],
                        dilation=dilation,
                    )
                )
                if member["is_read_early"]:
                    outputs.append(builder.emit(relax.op.negative(value)))
                if member["bias"] != "none":
                    size = (1, member["channels"] if member["bias"] == "channels" else 1, 1, 1)
                    bias = rng.standard_normal(size).astype(np.float32)
                    value = builder.emit(relax.op.add(value, tensor_constant(bias)))
                if member["activation"] != "none":
                    value = builder.emit(getattr(relax.op.nn, member["activation"])(value))
                (joined if member["is_joined"] else outputs).append(value)
            if joined:
                outputs.append(builder.emit(relax.op.concat(joined, axis=1)))
            out = builder.emit_output(relax.Tuple(outputs))
        builder.emit_func_output(out)
    return builder.get()


@RELAXED
@given(branches(), st.randoms(use_true_random=False))
def test_merged_convolutions_compute_the_same(drawn, random):
    rng = np.random.default_rng(random.randrange(2**32))
    mod = module(*drawn, rng)
    apart = compile_graph(mod)
    (merge,) = merge_candidates(apart.graph)
    members = list(merge)
    random.shuffle(members)
    merged = compile_graph(mod, merges=[identities(apart.graph, members)])
    assert n_convolutions(apart.graph) == len(drawn[2])
    assert n_convolutions(merged.graph) == len(drawn[2]) - len(merge) + 1
    x = rng.standard_normal(drawn[3], dtype=np.float32)
    for out, right in zip(run_sequential(merged, [x]), run_sequential(apart, [x]), strict=True):
        assert out.shape == right.shape
        np.testing.assert_allclose(out, right, rtol=1e-5, atol=1e-5 * np.abs(right).max())


@pytest.mark.parametrize("name", ["inception_v1", "squeezenet"])
def test_networks_with_all_merges_agree(light_network, name):
    network = light_network(name)
    apart = network.compiled
    merges = all_merges(apart.graph)
    assert len(merges) >= 8
    merged = compile_graph(load_light(name), merges=merges)
    gone = sum(len(merge) - 1 for merge in merges)
    assert n_convolutions(merged.graph) == n_convolutions(apart.graph) - gone
    x, expected = network.inputs[0], network.references[0]
    (out,), (right,) = run_sequential(merged, [x]), run_sequential(apart, [x])
    assert relative_error(out, right) <= 1e-5
    assert relative_error(out, expected) <= 1e-3


def test_a_zoo_network_agrees_when_merged():
    model = build_zoo("inception_v3", 75, width=0.125)
    apart = compile_graph(model)
    merged = compile_graph(model, merges=all_merges(apart.graph))
    assert n_convolutions(merged.graph) < n_convolutions(apart.graph)
    x = np.random.default_rng(3).standard_normal((1, 3, 75, 75), dtype=np.float32)
    (out,), (right,) = run_sequential(merged, [x]), run_sequential(apart, [x])
    assert relative_error(out, right) <= 1e-5
    assert relative_error(out, reference(model, [x])[0]) <= 1e-3


def test_neighbouring_slices_need_no_copy(light_network):
    apart = light_network("squeezenet").compiled
    merged = compile_graph(load_light("squeezenet"), merges=all_merges(apart.graph))
    kinds = [op.kind for op in merged.graph.operators]
    assert "concat" in [op.kind for op in apart.graph.operators]
    assert not {"concat", "slice"} & set(kinds)


def test_convolutions_tell_their_facts(light_network):
    graph = light_network("squeezenet").compiled.graph
    convolutions = [op for op in graph.operators if op.kind == "conv2d"]
    assert len({op.attrs["convolution"] for op in convolutions}) == len(convolutions) == 26
    first = convolutions[0].attrs
    assert first["groups"] == 1
    assert first["stride"] == "2x2"
    assert first["dilation"] == "1x1"
    assert first["kernel_size"] == "3x3"
    assert first["channel_axis"] == 3
    assert len(str(first["padding"]).split("x")) == 4
    shuffled = light_network("shufflenet").compiled.graph
    groups = {op.attrs["groups"] for op in shuffled.operators if op.kind == "conv2d"}
    assert max(groups) > 1


def test_identity_depends_on_values_alone():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((8, 4, 3, 3), dtype=np.float32)
    packed = np.zeros((3, 3, 4, 16), dtype=np.float32)
    packed[..., :8] = weight.transpose(2, 3, 1, 0)
    assert convolution_identity(weight, 64) == convolution_identity(packed, 64)
    assert convolution_identity(weight, 64) != convolution_identity(weight, 65)
    weight[0, 0, 0, 0] *= -1.0
    assert convolution_identity(weight, 64) != convolution_identity(packed, 64)


def heads(n_twins=0, channels=4):
    """Four narrow 1×1 convolutions of one value, side by side; the last ones share weights."""
    rng = np.random.default_rng(5)
    weights = {f"w{i}": rng.standard_normal((channels, 64, 1, 1), np.float32) for i in range(4)}
    for i in range(n_twins):
        weights[f"w{3 - i}"] = weights["w3"]
    nodes = [helper.make_node("Conv", ["x", f"w{i}"], [f"c{i}"]) for i in range(4)]
    nodes += [helper.make_node("Relu", [f"c{i}"], [f"r{i}"]) for i in range(4)]
    nodes.append(helper.make_node("Concat", [f"r{i}" for i in range(4)], ["y"], axis=1))
    return onnx_model(nodes, {"x": (1, 64, 28, 28)}, {"y": (1, 4 * channels, 28, 28)}, weights)


def test_convolutions_that_cannot_be_told_apart_are_not_offered():
    graph = compile_graph(heads(n_twins=2)).graph
    (candidates,) = merge_candidates(graph)
    assert len(candidates) == 2
    assert sum("convolution" in op.attrs for op in graph.operators) == 2


@pytest.mark.parametrize(
    ("choose", "problem"),
    [
        (lambda names: [["nobody", names[0]]], "occurs 0 times"),
        (lambda names: [names[:1]], "at least 2 of one input"),
        (lambda names: [[names[0], names[0]]], "at least 2 of one input"),
        (lambda names: [names[:2], names[1:3]], "is in 2 merges"),
    ],
)
def test_impossible_merges_are_refused(choose, problem):
    (candidates,) = merge_candidates(graph := compile_graph(heads()).graph)
    names = identities(graph, candidates)
    with pytest.raises(InvalidOption, match=problem):
        compile_graph(heads(), merges=choose(names))


def test_offers_stand_alone(light_network):
    apart = light_network("inception_v1").compiled.graph
    merges = [merge[:2] for merge in all_merges(apart)[:2]]
    offers = compile_offers(load_light("inception_v1"), merges=[*merges, merges[0][:1]])
    graph = offers.graph
    assert len(graph.inputs) == 3
    assert n_convolutions(graph) == 3
    # One of the two slices goes into a concatenation, which takes it without a copy.
    assert sum(op.kind == "slice" for op in graph.operators) == 2
    keys = {op.attrs["key"] for op in apart.operators}
    alone = [op.attrs["key"] for op in graph.operators if op.kind == "conv2d"]
    assert [key in keys for key in alone] == [False, False, True]


@pytest.mark.parametrize(
    ("scheduler", "costs", "devices"),
    [("ios", "analytic", 1), ("ios", "profile", 1), ("hios-lp", "analytic", 2)],
)
def test_build_merges_where_it_pays(tmp_path, scheduler, costs, devices):
    model = heads()
    x = {"x": np.random.default_rng(1).standard_normal((1, 64, 28, 28), dtype=np.float32)}
    options = {"scheduler": scheduler, "costs": costs, "select": False, "cache": tmp_path}
    with hios_tvm.build(model, devices=devices, merge=True, **options) as merged:
        assert merged.schedule.notes["merged"] == 1
        # The concatenation of all slices is the merged result itself.
        assert [op.kind for op in merged.graph.operators if op.kind != "transpose"] == ["conv2d"]
        assert merged.predict().makespan_us > 0.0
        out = merged.run(x)["y"]
        merged.save(tmp_path / "merged.hios")
    with hios_tvm.build(model, devices=devices, merge=False, **options) as apart:
        assert n_convolutions(apart.graph) == 4
        right = apart.run(x)["y"]
    assert relative_error(out, right) <= 1e-5
    assert relative_error(out, reference(model, [x["x"]])[0]) <= 1e-3
    with hios_tvm.load(tmp_path / "merged.hios") as loaded:
        np.testing.assert_array_equal(loaded.run(x)["y"], out)


def test_build_measures_the_merge_beside_the_rest(tmp_path):
    with hios_tvm.build(heads(), devices=1, scheduler="ios", cache=tmp_path) as model:
        notes = model.schedule.notes
        assert {"measured_ios_us", "measured_ios-merged_us", "measured_sequential_us"} <= set(notes)
        best = min(value for name, value in notes.items() if name.startswith("measured_"))
        is_merged = n_convolutions(model.graph) == 1
        assert is_merged == (best == notes["measured_ios-merged_us"])


def test_no_merge_when_the_costs_say_no():
    model = load_light("squeezenet")
    with hios_tvm.build(
        model, devices=1, scheduler="ios", costs="analytic", select=False, merge=True
    ) as built:
        # A 1×1 kernel padded to 3×3 multiplies by zeros for more than the launch that it saves.
        assert n_convolutions(built.graph) == 26
        assert "merged" not in built.schedule.notes or built.schedule.notes["merged"] == 0


def test_merge_needs_the_model_and_known_costs(tmp_path):
    model = heads()
    compiled = compile_graph(model)
    with pytest.raises(InvalidOption, match="compiled already"):
        hios_tvm.build(compiled, devices=1, costs="analytic", merge=True)
    with hios_tvm.build(model, devices=1, costs="analytic", select=False) as built:
        table = built.costs
    with pytest.raises(InvalidOption, match="know no merged operators"):
        hios_tvm.build(model, devices=1, costs=table, merge=True)
    # By default ios then goes without.
    with hios_tvm.build(model, devices=1, scheduler="ios", costs=table, select=False) as built:
        assert n_convolutions(built.graph) == 4


def test_the_command_line_merges_on_request(tmp_path, monkeypatch, capfd):
    hios = runner(capfd)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tmp_path / "heads.onnx"
    onnx.save(heads(), path)
    common = ["--devices", "1", "--costs", "analytic", "--json", "--quiet"]
    for flag, n_operators in (("--merge", 1), ("--no-merge", 5)):
        out = tmp_path / f"{flag[2:]}.hios"
        code, _, told = hios("compile", path, "-o", out, "--no-select", flag, *common)
        assert code == 0, told
        with hios_tvm.load(out) as model:
            kinds = [op.kind for op in model.graph.operators if op.kind != "transpose"]
        assert len(kinds) == n_operators
    code, _, told = hios("schedule", path, "--merge", *common)
    assert code != 0
    assert "needs a verb that runs it" in told
