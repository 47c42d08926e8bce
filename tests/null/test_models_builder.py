"""The builder: meaning of terms, units, parts, configuration, and its errors."""

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest

import hios_tvm.models as models
from hios.errors import HiosError, InvalidGraph, InvalidOption
from hios_tvm.models import (
    Block,
    Conv,
    Graph,
    Relu,
    Value,
    activation,
    addition,
    conv2d,
    get_parts,
    identity,
    linear,
    multiply,
    new_name,
    placeholder,
    pool2d,
    relu,
    relu_conv,
    relu_sep_conv,
    reset_name,
    rwconv2d,
    sep_conv,
    sequential,
    sigmoid,
    tanh,
)
from hios_tvm.models.onnx_export import draft_graph
from hios_tvm.models.summary import operator_graph, summarize

Array = npt.NDArray[np.float32]


def run(graph: Graph, data: Array) -> Array:
    model = graph.to_onnx(batch=data.shape[0])
    onnx.checker.check_model(model, full_check=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options)
    return np.asarray(session.run(None, {"data": data})[0])


def image(*shape: int) -> Array:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


def start(*shape: int) -> tuple[Value, Block]:
    reset_name()
    value = placeholder(output_shape=shape)
    return value, Block(enter_node=value.node)


def finish(value: Value, *blocks: Block) -> Graph:
    return Graph(name="net", input=value.node, blocks=list(blocks))


def demo(size: int = 12) -> Graph:
    """Two blocks as in the sample of HIOS."""
    v, block = start(1, size, size)
    k: dict[str, Any] = {"kernel": (3, 3), "stride": (1, 1), "padding": (1, 1), "act": "relu"}
    v1 = conv2d(block, inputs=[[v]], out_channels=1, **k)
    v2 = conv2d(block, inputs=[[v]], out_channels=1, **k)
    v3 = conv2d(block, inputs=[[v]], out_channels=1, **k)
    v1 = conv2d(block, inputs=[[v1]], out_channels=1, **k)
    out = identity(block, inputs=[[v1, v2], [v3]], is_exit=True)
    block1 = Block(enter_node=out.node)
    v11 = conv2d(block1, inputs=[[out]], out_channels=1, **k)
    v21 = conv2d(block1, inputs=[[out]], out_channels=1, **k)
    identity(block1, inputs=[[v11, v21]], is_exit=True)
    return Graph(name="demo", input=v.node, blocks=[block, block1])


def test_terms_are_added_and_concatenated() -> None:
    v, block = start(2, 3, 4)
    a = activation(block, [[v]], "tanh", inplace=True)
    b = sigmoid(block, [[v]])
    out = identity(block, [[a, b, v], [v]], is_exit=True)
    assert tuple(out.node.output_shape or ()) == (4, 3, 4)
    x = image(2, 2, 3, 4)
    summed = np.tanh(x) + 1 / (1 + np.exp(-x)) + x
    np.testing.assert_allclose(
        run(finish(v, block), x), np.concatenate([summed, x], axis=1), rtol=1e-5, atol=1e-6
    )


def test_elements_multiply_within_and_concatenate_between_terms() -> None:
    v, block = start(2, 3, 3)
    a = tanh(block, [[v]])
    product = multiply(block, [[v, a], [v]])
    addition(block, [[product, product]], is_exit=True)
    x = image(1, 2, 3, 3)
    expected = 2 * np.concatenate([x * np.tanh(x), x], axis=1)
    np.testing.assert_allclose(run(finish(v, block), x), expected, rtol=1e-5, atol=1e-6)


def test_a_value_may_be_some_channels() -> None:
    v, block = start(4, 2, 2)
    part = Value(v.node, 1, 3)
    identity(block, [[part], [v]], is_exit=True)
    x = image(1, 4, 2, 2)
    np.testing.assert_array_equal(run(finish(v, block), x), np.concatenate([x[:, 1:3], x], axis=1))


def test_convolution_computes_what_it_says() -> None:
    v, block = start(2, 5, 6)
    out = conv2d(block, [[v]], 3, (3, 2), (2, 1), (1, 0), act="tanh", is_exit=True)
    graph = finish(v, block)
    graph.init_weights(seed=5)
    conv = out.node
    assert isinstance(conv, Conv)
    assert conv.weight is not None
    assert conv.bias is not None
    x = image(1, 2, 5, 6)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    expected = np.zeros((1, *out.shape), np.float32)
    for c, i, j in np.ndindex(*out.shape):
        window = padded[0, :, 2 * i : 2 * i + 3, j : j + 2]
        expected[0, c, i, j] = np.tanh((window * conv.weight[c]).sum() + conv.bias[c])
    np.testing.assert_allclose(run(graph, x), expected, rtol=1e-4, atol=1e-5)


def test_average_pooling_leaves_padding_out() -> None:
    v, block = start(1, 4, 4)
    pool2d(block, [[v]], "avg", (3, 3), (1, 1), (1, 1), is_exit=True)
    x = np.ones((1, 1, 4, 4), np.float32)
    np.testing.assert_allclose(run(finish(v, block), x), x, rtol=1e-6)


@pytest.mark.parametrize(("kind", "function"), [("global_max", np.max), ("global_avg", np.mean)])
def test_global_pooling_takes_the_whole_image(kind: str, function: Any) -> None:
    v, block = start(3, 4, 5)
    out = pool2d(block, [[v]], kind, is_exit=True)
    x = image(2, 3, 4, 5)
    assert out.shape == (3, 1, 1)
    expected = function(x, axis=(2, 3), keepdims=True)
    np.testing.assert_allclose(run(finish(v, block), x), expected, rtol=1e-5, atol=1e-6)


def test_linear_flattens_and_can_be_read_by_anything() -> None:
    v, block = start(2, 2, 2)
    hidden = linear(block, [[v]], 4, act="relu")
    wide = conv2d(block, [[hidden]], 6)
    linear(block, [[wide]], 5, is_exit=True)
    assert run(finish(v, block), image(3, 2, 2, 2)).shape == (3, 5)


def test_sequential_is_one_unit_of_many_nodes() -> None:
    v, block = start(4, 8, 8)
    outs = [
        relu_sep_conv(block, [[v]], 6, (5, 5), (1, 1), (2, 2)),
        sep_conv(block, [[v]], 6, (3, 3), (1, 1), (1, 1)),
        rwconv2d(block, [[v]], 6),
        relu_conv(block, [[v]], 6),
    ]
    names = [new_name(), new_name()]
    nodes = [
        Relu(names[0], names[0], [[v]], None),
        Conv(names[1], names[1], None, 6, (1, 1), (1, 1), (0, 0), 1, "identity", None),
    ]
    outs.append(sequential(block, hint_name=None, nodes=nodes))
    identity(block, [outs], is_exit=True)
    graph = finish(v, block)
    assert graph.schedule_operators() == 6
    assert graph.unit_graph().number_of_edges() == 5
    kinds = [node.op_type for node in graph.to_onnx().graph.node]
    assert kinds.count("Conv") == 8
    assert run(graph, image(1, 4, 8, 8)).shape == (1, 6, 8, 8)


def test_uses_record_reader_term_and_place() -> None:
    v, block = start(1, 2, 2)
    a = relu(block, [[v]])
    out = identity(block, [[v], [v, a]], is_exit=True)
    assert [(u.name, t, i) for u, t, i in v.node.uses] == [
        (a.node.name, 0, 0),
        (out.node.name, 0, 0),
        (out.node.name, 1, 0),
    ]
    assert a.node.uses == [(out.node, 1, 1)]


def test_parts_split_after_the_given_values() -> None:
    v, block = start(1, 4, 4)
    a = relu(block, [[v]])
    b = relu_conv(block, [[a]], 2)
    c = relu(block, [[b]])
    d = identity(block, [[c]], is_exit=True)
    parts = get_parts(block, split_vars=[v, b, d])
    assert parts == [[a.node, b.node], [c.node, d.node]]
    block.parts = parts
    assert finish(v, block).parts() == [[a.node.name, b.node.name], [c.node.name, d.node.name]]
    with pytest.raises(InvalidGraph, match="must rise from -1"):
        get_parts(block, [v, c, b, d])
    with pytest.raises(InvalidGraph, match="must rise from -1"):
        get_parts(block, [v, b])


def test_configuration_survives_json() -> None:
    graph = demo()
    graph.greedy_schedule()
    config = json.loads(json.dumps(graph.export_config()))
    again = Graph.from_config(config)
    assert again.export_config() == graph.export_config()
    assert again.to_onnx(seed=3) == graph.to_onnx(seed=3)
    assert [len(v.uses) for v in again.nodes()] == [len(v.uses) for v in graph.nodes()]


def test_configuration_keeps_every_kind_of_operator() -> None:
    v, block = start(4, 8, 8)
    a = relu_sep_conv(block, [[v]], 4, (3, 3), (1, 1), (1, 1))
    b = pool2d(block, [[v]], "max", (3, 3), (1, 1), (1, 1))
    c = multiply(block, [[a, b]])
    d = tanh(block, [[relu(block, [[c]])]])
    linear(block, [[d], [v]], 3, is_exit=True)
    graph = finish(v, block)
    again = Graph.from_config(json.loads(json.dumps(graph.export_config())))
    x = image(1, 4, 8, 8)
    np.testing.assert_array_equal(run(graph, x), run(again, x))


@pytest.mark.parametrize("field", ["blocks", "name", "input"])
def test_configuration_without_a_field_is_an_error(field: str) -> None:
    config = demo().export_config()
    del config[field]
    with pytest.raises(InvalidGraph, match=f"no field '{field}'"):
        Graph.from_config(config)


def test_configuration_of_an_unknown_operator_is_an_error() -> None:
    config = demo().export_config()
    config["blocks"][0]["exit_node"]["type"] = "warp"
    with pytest.raises(InvalidGraph, match="unknown operator type 'warp'"):
        Graph.from_config(config)
    del config["blocks"][0]["exit_node"]["type"]
    config["blocks"][0]["inner_nodes"][0].pop("kernel")
    with pytest.raises(InvalidGraph, match="has no field 'kernel'"):
        Graph.from_config(config)


def test_schedules_hold_every_unit_once_and_in_order() -> None:
    graph = demo()
    graph.sequential_schedule()
    stages = graph.blocks[0].stages
    assert stages is not None
    assert [len(stage) for stage in stages] == [1, 1, 1, 1, 1]
    graph.greedy_schedule(max_num_stream=2)
    stages = graph.blocks[0].stages
    assert stages is not None
    assert [[group[0] for group in stage] for stage in stages] == [["1", "2"], ["3", "4"], ["5"]]
    assert "parallel(" in str(graph)
    with pytest.raises(InvalidOption, match="max_num_stream is 0"):
        graph.greedy_schedule(0)


def test_weights_come_from_the_seed() -> None:
    graph = demo()
    assert graph.to_onnx(seed=1) == graph.to_onnx(seed=1)
    assert graph.to_onnx(seed=1) != graph.to_onnx(seed=2)
    free = graph.to_onnx(seed=7)
    graph.init_weights(seed=7)
    assert graph.to_onnx() == free


def test_given_weights_are_used_and_checked() -> None:
    graph = demo()
    conv = graph.blocks[0].inner_nodes[0]
    assert isinstance(conv, Conv)
    conv.weight = np.full(conv.weight_shape, 2.0, np.float32)
    stored = {t.name: t for t in graph.to_onnx().graph.initializer}
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(stored["conv_1.weight"]), conv.weight)
    conv.weight = np.zeros((1, 1, 5, 5), np.float32)
    with pytest.raises(InvalidOption, match=r"conv operator '1' .* must be \(1, 1, 3, 3\)"):
        graph.to_onnx()


def test_work_agrees_with_the_exported_model() -> None:
    graph = demo()
    summary = summarize(graph.to_onnx())
    assert summary.flops == graph.flops()
    assert summary.macs == graph.macs()
    assert summary.parameters == graph.parameters()
    assert summary == summarize(draft_graph(graph))
    # 3×3 convolutions of 1 → 1, of which two read 2 channels, on 12×12.
    assert graph.macs() == 12 * 12 * 9 * (4 + 2 * 2)


def test_operators_join_what_they_alone_follow() -> None:
    graph = operator_graph(demo().to_onnx())
    members = {name: graph.nodes[name]["members"] for name in graph}
    assert members["conv_1"] == ["conv_1", "conv_1.relu"]
    # Two convolutions feed the addition; it joins one of them, never both.
    joined = [name for name, parts in members.items() if any("sum" in part for part in parts)]
    assert len(joined) == 2
    assert sum(len(parts) for parts in members.values()) == len(demo().to_onnx().graph.node)


def test_output_does_not_forget_the_input() -> None:
    a, b = image(1, 1, 12, 12), image(1, 1, 12, 12)[..., ::-1].copy()
    first, second = run(demo(), a), run(demo(), b)
    assert np.abs(first - second).max() > 0.05 * first.std()


def test_everything_public_is_documented() -> None:
    for name in models.__all__:
        assert getattr(models, name).__doc__, name


def mismatched_term() -> None:
    v, block = start(2, 4, 4)
    a = conv2d(block, [[v]], 3)
    conv2d(block, [[v, a]], 3)


def mismatched_height() -> None:
    v, block = start(2, 4, 4)
    a = pool2d(block, [[v]], "max", (2, 2), (2, 2))
    identity(block, [[v], [a]])


def not_a_list_of_terms() -> None:
    v, block = start(2, 4, 4)
    conv2d(block, [v], 3)  # type: ignore[list-item]


def missing_exit() -> None:
    v, block = start(2, 4, 4)
    conv2d(block, [[v]], 3)
    finish(v, block)


def two_exits() -> None:
    v, block = start(2, 4, 4)
    relu(block, [[v]], is_exit=True)
    relu(block, [[v]], is_exit=True)


def broken_chain() -> None:
    v, block = start(2, 4, 4)
    relu(block, [[v]], is_exit=True)
    second = Block(v.node)
    relu(second, [[v]], is_exit=True)
    finish(v, block, second)


def foreign_value() -> None:
    v, block = start(2, 4, 4)
    other = relu(Block(v.node), [[v]])
    relu(block, [[other]], is_exit=True)
    finish(v, block)


def same_names() -> None:
    v, block = start(2, 4, 4)
    a = relu(block, [[v]])
    reset_name()
    relu(block, [[a]], is_exit=True)
    finish(v, block)


MISTAKES: list[tuple[Any, type[HiosError], str]] = [
    (mismatched_term, InvalidGraph, r"conv operator '2' adds .* '0' is 2×4×4, '1' is 3×4×4"),
    (mismatched_height, InvalidGraph, r"identity operator '2' concatenates .* '1' is 2×2×2"),
    (not_a_list_of_terms, InvalidGraph, r"conv operator '1' got .* must be a list of terms"),
    (missing_exit, InvalidGraph, r"conv operator '1'.*is_exit=True"),
    (two_exits, InvalidGraph, r"relu operator '2' ends a block that relu operator '1' ends"),
    (broken_chain, InvalidGraph, r"entered by placeholder operator '0'.*must form a chain"),
    (foreign_value, InvalidGraph, r"reads relu operator '1', which does not come before"),
    (same_names, InvalidGraph, r"two operators named '0'"),
]


@pytest.mark.parametrize(
    ("make", "error", "message"), MISTAKES, ids=lambda m: getattr(m, "__name__", "")
)
def test_mistakes_name_the_operator(make: Any, error: type[HiosError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"act": "gelu"}, "unknown act 'gelu'; it must be one of relu, sigmoid, tanh, identity"),
    ({"kernel": (3,)}, r"kernel=\(3,\); it must be two integers"),
    ({"kernel": 3}, "kernel=3; it must be two integers"),
    ({"stride": (0, 1)}, "integers ≥ 1"),
    ({"padding": (-1, 0)}, "integers ≥ 0"),
    ({"groups": 3}, "groups=3, which does not divide its 2 input and 4 output channels"),
    ({"out_channels": 0}, "out_channels=0; it must be a positive integer"),
    ({"out_channels": 2.5}, "out_channels=2.5"),
    ({"kernel": (5, 5)}, "kernel 5×5 .* does not fit its input of 4×4; the image is too small"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS)
def test_wrong_options_name_the_operator(options: dict[str, Any], message: str) -> None:
    v, block = start(2, 4, 4)
    with pytest.raises(InvalidOption, match=f"conv operator '1'.*{message}"):
        conv2d(block, [[v]], **{"out_channels": 4, **options})
    assert not block.inner_nodes


def test_wrong_pooling_and_activation_name_the_operator() -> None:
    v, block = start(2, 4, 4)
    with pytest.raises(InvalidOption, match=r"pool operator '1' has unknown pool_type 'median'"):
        pool2d(block, [[v]], "median")
    with pytest.raises(InvalidOption, match=r"padding \(2, 2\) for kernel \(3, 3\)"):
        pool2d(block, [[v]], "max", (3, 3), (1, 1), (2, 2))
    with pytest.raises(InvalidOption, match="unknown act_type 'identity'"):
        activation(block, [[v]], "identity")
    with pytest.raises(InvalidOption, match="three positive integers"):
        placeholder((3, 0, 4))
    relu(block, [[v]], is_exit=True)
    with pytest.raises(InvalidOption, match="batch is 0"):
        finish(v, block).to_onnx(batch=0)
