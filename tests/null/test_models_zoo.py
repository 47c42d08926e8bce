"""The zoo: figures of the papers, structure facts of IOS, and networks that compute something."""

import json
import re

import networkx as nx
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner

from hios.errors import InvalidOption, UnsupportedModel
from hios.structure import largest_block, width
from hios_tvm.cli import models as models_verb
from hios_tvm.models import zoo
from hios_tvm.models.listing import list_models
from hios_tvm.models.reference import is_model_reference, load_model_reference
from hios_tvm.models.summary import ModelSummary, summarize
from hios_tvm.models.zoo.randwire import WIRING, randwire_small, wiring_graph

NARROW = 0.1


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options)


def inputs_of(model: onnx.ModelProto) -> np.ndarray:  # type: ignore[type-arg]
    (data,) = model.graph.input
    shape = [d.dim_value for d in data.type.tensor_type.shape.dim]
    return np.random.default_rng(3).standard_normal(shape, dtype=np.float32)


@pytest.fixture(scope="module")
def summaries() -> dict[str, ModelSummary]:
    return {name: summarize(zoo.draft(name)) for name in zoo.NETWORKS}


# Parameters counted by hand from the papers' tables with folded batch normalisation, that is one
# bias a channel. Published totals hold two more or fewer numbers a channel; see the next table.
EXACT_PARAMETERS = {
    "inception_v3": 23_817_352,
    "nasnet_large": 88_654_816,
    "squeezenet": 1_248_424,
    "resnet50": 25_530_472,
    "vgg16": 138_357_544,
    "alexnet": 61_100_840,
    "retinanet": 34_041_559,
    # 12 layers of 4·(768² + 768) + 2·768·3072 + 3072 + 768 + 4·768
    "bert_base": 12 * (4 * (768**2 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768),
    # attention, two norms, router, 8 experts
    "moe_block": 4 * (768**2 + 768) + 4 * 768 + 769 * 8 + 8 * (2 * 768 * 3072 + 3072 + 768),
}

# (parameters in M, multiply-adds in G, tolerance, source)
PUBLISHED: dict[str, tuple[float, float, float, str]] = {
    "inception_v3": (23.8, 5.7, 0.005, "torchvision without auxiliary head; paper: 5 G, < 25 M"),
    "nasnet_large": (88.9, 23.8, 0.005, "Zoph et al., table 2"),
    "nasnet_mobile": (5.3, 0.564, 0.01, "Zoph et al., table 3"),
    "randwire_small": (5.6, 0.583, 0.04, "Xie et al., table 2, WS(4, 0.75); wiring differs"),
    "randwire_regular": (31.9, 4.0, 0.04, "Xie et al., table 3, C=109; wiring differs"),
    "randwire_large": (61.5, 7.9, 0.055, "Xie et al., table 3, C=154; wiring differs"),
    "squeezenet": (1.24, 0.82, 0.02, "torchvision squeezenet1_0; paper: 4.8 MB"),
    "resnet50": (25.56, 4.09, 0.002, "torchvision resnet50"),
    "vgg16": (138.36, 15.47, 0.001, "torchvision vgg16; paper: 138 M"),
    "alexnet": (61.1, 0.71, 0.006, "torchvision alexnet, the variant of 2014"),
    "retinanet": (34.01, 151.54, 0.001, "torchvision retinanet_resnet50_fpn at 800"),
    "bert_base": (85.05, 11.2, 0.005, "110 M less embeddings and pooler; 22.5 GFLOP at 128"),
}

LOGITS: dict[str, tuple[int, ...]] = dict.fromkeys(zoo.NETWORKS, (1, 1000)) | {
    "squeezenet": (1, 1000, 1, 1),
    "squeezenet_bypass": (1, 1000, 1, 1),
    "bert_base": (1, 128, 768),
    "moe_block": (1, 128, 768),
}


@pytest.mark.parametrize("name", EXACT_PARAMETERS)
def test_parameters_are_exact(summaries: dict[str, ModelSummary], name: str) -> None:
    assert summaries[name].parameters == EXACT_PARAMETERS[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_work_are_as_published(
    summaries: dict[str, ModelSummary], name: str
) -> None:
    parameters, macs, tolerance, _ = PUBLISHED[name]
    assert summaries[name].parameters / 1e6 == pytest.approx(parameters, rel=tolerance)
    assert summaries[name].macs / 1e9 == pytest.approx(macs, rel=tolerance)


def test_complex_bypass_adds_four_projections(summaries: dict[str, ModelSummary]) -> None:
    added = sum(a * b + b for a, b in ((96, 128), (128, 256), (256, 384), (384, 512)))
    plain, bypass = summaries["squeezenet"], summaries["squeezenet_bypass"]
    assert bypass.parameters - plain.parameters == added


@pytest.mark.parametrize("name", [n for n in zoo.NETWORKS if n != "retinanet"])
def test_output_shape_at_full_size(name: str) -> None:
    (output,) = zoo.draft(name).skeleton().graph.output
    assert tuple(d.dim_value for d in output.type.tensor_type.shape.dim) == LOGITS[name]


def test_detector_predicts_on_five_levels() -> None:
    outputs = zoo.draft("retinanet", 800).skeleton().graph.output
    shapes = {o.name: tuple(d.dim_value for d in o.type.tensor_type.shape.dim) for o in outputs}
    anchors = 9 * (100**2 + 50**2 + 25**2 + 13**2 + 7**2)
    assert shapes == {"scores": (1, anchors, 91), "boxes": (1, anchors, 4)}


@pytest.mark.parametrize(
    ("name", "n", "d"),
    [
        ("inception_v3", 11, 6),
        ("randwire_large", 33, 8),
        ("randwire_regular", 33, 8),
        ("randwire_small", 33, 8),
        ("nasnet_large", 18, 8),
        ("nasnet_mobile", 18, 8),
        ("squeezenet_bypass", 6, 3),
    ],
)
def test_largest_block_is_that_of_the_ios_paper(name: str, n: int, d: int) -> None:
    """IOS, MLSys 2021, table 1; units are counted before any fusion."""
    graph = zoo.graph(name)
    facts = largest_block(graph.unit_graph(), graph.parts())
    assert (facts.operators, facts.width) == (n, d)


@pytest.mark.parametrize("name", ["inception_v3", "randwire_small", "squeezenet_bypass"])
def test_cuts_find_the_widest_block_without_being_told(name: str) -> None:
    graph = zoo.graph(name)
    facts = largest_block(graph.unit_graph(), graph.parts())
    assert largest_block(graph.unit_graph()).width == facts.width


def test_work_of_the_builder_and_of_onnx_agree(summaries: dict[str, ModelSummary]) -> None:
    for name, network in zoo.NETWORKS.items():
        if network.as_graph is not None:
            graph = zoo.graph(name)
            assert graph.flops() == summaries[name].flops, name
            assert graph.parameters() == summaries[name].parameters, name


def test_chains_have_no_parallelism_and_branches_have(
    summaries: dict[str, ModelSummary],
) -> None:
    for name in ("vgg16", "alexnet"):
        assert (summaries[name].width, summaries[name].parallelism) == (1, 1.0)
    for name, least in (("nasnet_large", 2.5), ("moe_block", 3.0), ("randwire_large", 2.0)):
        assert summaries[name].parallelism > least
    assert summaries["retinanet"].width == 10
    assert summaries["moe_block"].width >= 8


@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_smallest_network_passes_the_checker_and_tells_inputs_apart(name: str) -> None:
    network = zoo.NETWORKS[name]
    size = max(network.least_size, 16)
    model = zoo.build(name, size, width=NARROW)
    onnx.checker.check_model(model, full_check=True)
    x = inputs_of(model)
    run = session(model).run
    first, second = run(None, {"data": x}), run(None, {"data": x[..., ::-1].copy()})
    for a, b in zip(first, second, strict=True):
        assert np.isfinite(a).all()
        assert a.std() > 1e-2
        assert np.abs(a - b).mean() > 0.01 * a.std()


@pytest.mark.parametrize("name", [n for n, z in zoo.NETWORKS.items() if z.least_size > 1])
def test_one_pixel_less_names_the_operator(name: str) -> None:
    least = zoo.NETWORKS[name].least_size
    zoo.draft(name, least, width=NARROW)
    with pytest.raises(InvalidOption, match=rf"needs an image of {least} .*operator '\d+'") as bad:
        zoo.draft(name, least - 1, width=NARROW)
    assert "\n" not in str(bad.value)


@pytest.mark.parametrize("name", [n for n, z in zoo.NETWORKS.items() if z.least_size == 1])
def test_one_pixel_is_enough_for_padded_networks(name: str) -> None:
    model = zoo.build(name, 1, width=NARROW)
    assert all(np.isfinite(y).all() for y in session(model).run(None, {"data": inputs_of(model)}))


@pytest.mark.parametrize("name", ["squeezenet", "bert_base", "retinanet", "nasnet_mobile"])
def test_images_of_a_batch_do_not_mix(name: str) -> None:
    size = max(zoo.NETWORKS[name].least_size, 16)
    single, triple = (session(zoo.build(name, size, n, width=NARROW)) for n in (1, 3))
    x = inputs_of(zoo.draft(name, size, 3, width=NARROW).to_model())
    whole = triple.run(None, {"data": x})
    for index in range(3):
        alone = single.run(None, {"data": x[index : index + 1]})
        for a, b in zip(whole, alone, strict=True):
            scale = np.abs(b).max()
            np.testing.assert_allclose(a[index] / scale, b[0] / scale, rtol=1e-4, atol=1e-5)


def test_seed_decides_the_weights_and_nothing_else() -> None:
    one, same, other = (zoo.build("squeezenet", 31, seed=s, width=NARROW) for s in (1, 1, 2))
    assert one.SerializeToString() == same.SerializeToString()
    assert one != other
    del one.graph.initializer[:], other.graph.initializer[:]
    assert one == other
    with pytest.raises(InvalidOption, match="seed is -1"):
        zoo.build("squeezenet", 31, seed=-1, width=NARROW)


def test_wiring_is_connected_oriented_and_seeded() -> None:
    graph = wiring_graph(32, 7)
    assert graph.number_of_nodes() == 32
    assert graph.number_of_edges() == 64
    assert all(u < v for u, v in graph.edges)
    assert nx.is_weakly_connected(graph)
    assert sorted(graph.edges) == sorted(wiring_graph(32, 7).edges)
    assert sorted(graph.edges) != sorted(wiring_graph(32, 8).edges)
    assert max(width(wiring_graph(32, WIRING + i)) for i in range(3)) == 8
    assert randwire_small(wiring=1).flops() != randwire_small(wiring=2).flops()


def test_unknown_networks_and_numbers_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match="no network 'vgg17'; it has inception_v3, nasnet"):
        zoo.build("vgg17")
    with pytest.raises(UnsupportedModel, match="exists as ONNX only"):
        zoo.graph("bert_base")
    for arguments, message in (
        ({"image_size": 0}, "image_size is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"width": 0.0}, "width is 0.0"),
        ({"width": 9.0}, "width is 9.0"),
    ):
        with pytest.raises(InvalidOption, match=re.escape(message)):
            zoo.build("squeezenet", **arguments)  # type: ignore[arg-type]


def test_references_name_size_and_batch() -> None:
    model = load_model_reference("zoo:squeezenet@32x2")
    (data,) = model.graph.input
    assert [d.dim_value for d in data.type.tensor_type.shape.dim] == [2, 3, 32, 32]
    assert is_model_reference("light:vgg19")
    assert not is_model_reference("C:/models/vgg19.onnx")
    light = load_model_reference("light:squeezenet")
    onnx.checker.check_model(light)


@pytest.mark.parametrize(
    "text",
    ["zoo:", "zoo:vgg17", "zoo:vgg16@", "zoo:vgg16@64x", "zoo:vgg16@-3", "zoo:vgg16 ", "vgg16"],
)
def test_wrong_references_list_the_names(text: str) -> None:
    with pytest.raises(UnsupportedModel, match=r"zoo:NAME@SIZE.*inception_v3.*moe_block.*vgg19"):
        load_model_reference(text)


def test_wrong_light_references_list_the_names() -> None:
    with pytest.raises(UnsupportedModel, match="no light network 'nope'; there are bvlc_alexnet"):
        load_model_reference("light:nope")


def test_rows_follow_the_references() -> None:
    rows = list_models(["squeezenet@64x2", "zoo:moe_block"])
    assert [(row.name, row.size, row.batch) for row in rows] == [
        ("squeezenet", 64, 2),
        ("moe_block", 128, 1),
    ]
    assert rows[0].parameters == 1_248_424
    assert rows[1].parallelism > 3


def test_any_model_with_static_shapes_can_be_counted() -> None:
    model = load_model_reference("light:squeezenet")
    summary = summarize(model)
    # SqueezeNet 1.1, whose fire modules are those of 1.0 with the pools moved forward.
    assert summary.parameters == pytest.approx(1.235e6, rel=0.001)
    assert summary.width == 2
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    with pytest.raises(UnsupportedModel, match="give the inputs static shapes"):
        summarize(model)


def test_verb_prints_a_table_or_json() -> None:
    shown = CliRunner().invoke(models_verb.command, ["squeezenet@64", "vgg16"])
    assert shown.exit_code == 0
    assert "138.36 M" in shown.stdout
    data = CliRunner().invoke(models_verb.command, ["squeezenet@64", "--json"])
    (row,) = json.loads(data.stdout)["models"]
    assert (row["name"], row["size"], row["width"]) == ("squeezenet", 64, 2)
    assert row["parallelism"] == pytest.approx(row["flops"] / row["critical_flops"])


@pytest.mark.full
@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_full_size_runs_in_onnx_runtime(name: str) -> None:
    model = zoo.build(name)
    outputs = session(model).run(None, {"data": inputs_of(model)})
    for output in outputs:
        assert np.isfinite(output).all()
        assert output.std() > 1e-2
