"""Every mistake of a user: one clear line, exit code 2, nothing half-written."""

import json
import resource
import shutil

import numpy as np
import onnx
import pytest
from command_line import runner, small_network
from onnx import TensorProto, helper

from hios.costs.analytic import AnalyticCosts
from hios.errors import StorageError
from hios.ir import DeviceId, Placement, Schedule
from hios.simulator import complete_links
from hios_tvm.arrays import read_arrays, write_arrays
from hios_tvm.machines import resolve_machine
from hios_tvm.model import Model
from hios_tvm.sources import compile_model


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A model and an artifact of it for two devices, not to be changed."""
    where = tmp_path_factory.mktemp("bad")
    onnx.save(small_network(), where / "small.onnx")
    compiled = compile_model(str(where / "small.onnx"))
    machine = resolve_machine("cpu:0,cpu:1")
    placements = [
        Placement(op, DeviceId(turn % 2))
        for turn, op in enumerate(compiled.graph.topological_order())
    ]
    decided = Schedule("in-turn", tuple(placements))
    costs = AnalyticCosts(compiled.graph, machine)
    decided = complete_links(compiled.graph, machine, costs, decided)
    Model(compiled, machine, decided).save(where / "small.hios")
    return where


@pytest.fixture
def hios(capfd, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return runner(capfd)


@pytest.fixture
def refused(hios):
    """Run `hios` and check that it refuses in one line that holds all the words."""

    def check(*arguments, words):
        code, out, err = hios(*arguments)
        assert code == 2, (out, err)
        assert out == ""
        assert err.startswith("hios: error: "), err
        assert err.count("\n") == 1, err
        assert len(err) < 500, err
        for word in words:
            assert word in err, err

    return check


@pytest.fixture
def artifact(original, tmp_path):
    return shutil.copytree(original / "small.hios", tmp_path / "small.hios")


def one_node(path, operator, shape=(1, 4), **attributes):
    node = helper.make_node(operator, ["x"], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


class TestModels:
    @pytest.mark.parametrize("verb", ["compile", "run", "bench", "inspect", "schedule"])
    def test_missing_file(self, refused, tmp_path, verb):
        refused(verb, tmp_path / "none.onnx", words=["none.onnx"])
        assert list(tmp_path.iterdir()) == []

    def test_missing_artifact(self, refused, tmp_path):
        refused("run", tmp_path / "none.hios", words=["none.hios"])

    @pytest.mark.parametrize("size", [0, 10, 500])
    def test_truncated_onnx(self, refused, original, tmp_path, size):
        path = tmp_path / "cut.onnx"
        path.write_bytes((original / "small.onnx").read_bytes()[:size])
        refused("compile", path, "-o", tmp_path / "m.hios", words=["cut.onnx", "damaged"])
        assert not (tmp_path / "m.hios").exists()

    def test_not_an_onnx_file(self, refused, tmp_path):
        path = tmp_path / "text.onnx"
        path.write_text("hello " * 100)
        refused("compile", path, words=["text.onnx"])

    def test_unknown_kind_of_file(self, refused, tmp_path):
        path = tmp_path / "model.tflite"
        path.write_bytes(b"x")
        refused("compile", path, words=[".tflite", ".onnx"])

    def test_unknown_reference(self, refused):
        refused("compile", "zoo:nonsense", words=["nonsense"])
        refused("compile", "light:nonsense", words=["nonsense", "inception_v1"])

    def test_operator_that_tvm_cannot_import(self, refused, tmp_path):
        one_node(tmp_path / "b.onnx", "Bernoulli")
        refused("compile", tmp_path / "b.onnx", words=["Bernoulli"])

    def test_control_flow(self, refused, tmp_path):
        branch = helper.make_graph(
            [helper.make_node("Relu", ["x"], ["z"])],
            "branch",
            [],
            [helper.make_tensor_value_info("z", TensorProto.FLOAT, (1, 4))],
        )
        node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
        inputs = [
            helper.make_tensor_value_info("c", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4)),
        ]
        outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4))]
        graph = helper.make_graph([node], "g", inputs, outputs)
        path = tmp_path / "if.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
        refused("compile", path, words=["If", "control flow"])

    def test_dynamic_shape(self, refused, tmp_path):
        onnx.save(small_network("batch"), tmp_path / "d.onnx")
        refused("compile", tmp_path / "d.onnx", words=["'data'", "batch", "--shapes"])

    @pytest.mark.parametrize(
        ("shapes", "word"),
        [
            ("data", "NAME:DIMS"),
            ("nonsense:1x3x16x16", "nonsense"),
            ("data:1x3", "dimensions"),
            ("data:1x3x16x32", "32"),
        ],
    )
    def test_wrong_shapes(self, refused, original, shapes, word):
        refused("compile", original / "small.onnx", "--shapes", shapes, words=[word])

    def test_wrong_target(self, refused, original):
        refused("compile", original / "small.onnx", "--target", "nonsense", words=["nonsense"])

    def test_a_graph_file_has_nothing_to_run(self, refused, tmp_path):
        path = tmp_path / "g.json"
        path.write_text('{"operators": [{"id": 0, "time_us": 1}], "edges": []}')
        for verb in ("run", "bench", "compile"):
            refused(verb, path, words=["g.json", "hios simulate"])


class TestDevices:
    @pytest.mark.parametrize(("target", "devices"), [("llvm", "cuda:0"), ("cuda", "cpu:0")])
    def test_kernels_that_no_device_could_run(self, refused, original, tmp_path, target, devices):
        arguments = ("--target", target, "--devices", devices, "-o", tmp_path / "m.hios")
        refused("compile", original / "small.onnx", *arguments, words=[target, "devices"])
        assert not (tmp_path / "m.hios").exists()

    def test_unknown_device(self, refused, original):
        refused("compile", original / "small.onnx", "--devices", "tpu:0", words=["tpu:0"])

    def test_described_machine_cannot_run(self, refused, original):
        refused(
            *("bench", original / "small.onnx", "--machine", "2xA40-NVLink"),
            words=["cuda:0", "hios doctor"],
        )

    def test_unknown_scheduler(self, refused, original):
        refused(
            *("compile", original / "small.onnx", "--scheduler", "magic", "--costs", "analytic"),
            words=["magic", "hios-lp"],
        )

    def test_unknown_costs(self, refused, original):
        refused("compile", original / "small.onnx", "--costs", "magic", words=["magic", "profile"])

    def test_too_few_devices_for_an_artifact(self, refused, artifact):
        refused("run", artifact, "--devices", "cpu:0", words=["device"])


class TestRunTime:
    @pytest.mark.parametrize(
        ("arrays", "words"),
        [
            ({"nonsense": np.zeros((1, 3, 16, 16), np.float32)}, ["nonsense", "data", "1x3x16x16"]),
            ({"data": np.zeros((1, 3, 8, 8), np.float32)}, ["data", "1x3x8x8", "1x3x16x16"]),
            ({"data": np.zeros((1, 3, 16, 16))}, ["data", "float64", "float32"]),
            ({}, ["data", "missing"]),
        ],
    )
    def test_wrong_inputs(self, refused, artifact, tmp_path, arrays, words):
        np.savez(tmp_path / "x.npz", **arrays)
        out = tmp_path / "y.npz"
        refused("run", artifact, "-i", tmp_path / "x.npz", "-o", out, words=words)
        assert not out.exists()

    def test_inputs_that_are_no_arrays(self, refused, artifact, tmp_path):
        path = tmp_path / "x.npz"
        refused("run", artifact, "-i", path, words=["x.npz"])
        path.write_text("hello")
        refused("run", artifact, "-i", path, words=["x.npz"])
        np.savez(path, data=np.array([{}], dtype=object), allow_pickle=True)
        refused("run", artifact, "-i", path, words=["x.npz"])

    def test_output_of_trace(self, refused, artifact, tmp_path):
        refused("trace", artifact, "-o", tmp_path / "t.svg", words=["t.svg", ".png", ".json"])
        refused("trace", artifact, words=["--output"])


class TestArtifacts:
    @pytest.mark.parametrize(
        "part", ["graph.json", "kernels.so", "params.safetensors", "schedule.json"]
    )
    def test_damaged(self, refused, artifact, part):
        data = bytearray((artifact / part).read_bytes())
        data[len(data) // 2] ^= 0xFF
        (artifact / part).write_bytes(data)
        refused("run", artifact, words=[part, "damaged"])

    def test_part_is_missing(self, refused, artifact):
        (artifact / "kernels.so").unlink()
        refused("run", artifact, words=["kernels.so"])

    def test_foreign_format(self, refused, artifact):
        manifest = json.loads((artifact / "manifest.json").read_text())
        (artifact / "manifest.json").write_text(json.dumps(manifest | {"format_version": 99}))
        refused("run", artifact, words=["99"])

    def test_a_folder_that_is_no_artifact(self, refused, tmp_path):
        refused("run", tmp_path, words=["manifest.json"])

    def test_an_artifact_never_replaces_other_things(self, refused, original, tmp_path):
        precious = tmp_path / "precious"
        precious.mkdir()
        (precious / "photo.jpg").write_bytes(b"x")
        refused("compile", original / "small.hios", "-o", precious, words=["precious"])
        assert (precious / "photo.jpg").exists()

    @pytest.mark.parametrize("limit", [512, 4096])
    def test_a_full_disk_leaves_nothing(self, refused, original, tmp_path, limit):
        # The limit on the size of a file stands in for a full disk: writing fails half-way.
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            refused(
                *("compile", original / "small.hios", "-o", tmp_path / "new.hios"),
                words=["cannot write", "new.hios"],
            )
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert list(tmp_path.iterdir()) == []

    def test_a_full_disk_keeps_old_outputs(self, tmp_path):
        target = tmp_path / "y.npz"
        write_arrays(target, {"any/name": np.arange(3), "file": np.float32(2)})
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            with pytest.raises(StorageError, match=r"cannot write .*y\.npz"):
                write_arrays(target, {"y": np.zeros(10_000)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        kept = read_arrays(target)
        np.testing.assert_array_equal(kept["any/name"], [0, 1, 2])
        assert kept["file"] == 2
        assert list(tmp_path.iterdir()) == [target]
