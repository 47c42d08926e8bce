"""The program of a HIOS user, only its import lines changed."""

import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import hios_tvm
from hios.errors import InvalidOption
from hios.ir import Schedule
from hios_tvm.models import (
    Block,
    Graph,
    conv2d,
    dump_results,
    identity,
    optimize,
    placeholder,
    reset_name,
)

_SAME = {"kernel": (3, 3), "stride": (1, 1), "padding": (1, 1), "act": "relu"}


def sample_network() -> Graph:
    reset_name()
    v = placeholder(output_shape=(1, 500, 500))
    block = Block(enter_node=v.node)
    v1 = conv2d(block, inputs=[[v]], out_channels=1, **_SAME)
    v2 = conv2d(block, inputs=[[v]], out_channels=1, **_SAME)
    v3 = conv2d(block, inputs=[[v]], out_channels=1, **_SAME)
    v1 = conv2d(block, inputs=[[v1]], out_channels=1, **_SAME)
    out = identity(block, inputs=[[v1, v2], [v3]], is_exit=True)
    block1 = Block(enter_node=out.node)
    v11 = conv2d(block1, inputs=[[out]], out_channels=1, **_SAME)
    v21 = conv2d(block1, inputs=[[out]], out_channels=1, **_SAME)
    v31 = conv2d(block1, inputs=[[out]], out_channels=1, **_SAME)
    v11 = conv2d(block1, inputs=[[v11]], out_channels=1, **_SAME)
    identity(block1, inputs=[[v11, v21, v31]], is_exit=True)
    graph = Graph(name="demo", input=v.node, blocks=[block, block1])
    graph.init_weights()
    return graph


@pytest.mark.parametrize("opt_type", ["hios_lp", "hios_mr"])
def test_the_program_of_a_hios_user_runs(
    opt_type: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    graph = sample_network()
    begin = time.time()
    optimize(
        500,
        500,
        graph,
        opt_type,
        batch_size=1,
        warmup=2,
        number=6,
        repeat=6,
        ngpu=2,
        device="cpu",
    )
    cost = time.time() - begin
    stem = f"cpu_{opt_type}_demo"
    decided = Schedule.from_json((tmp_path / f"{stem}_par_1_500_500").read_bytes())
    assert decided.scheduler == opt_type.replace("_", "-")
    for _ in range(2):  # the second call measures what the first one moved
        result = dump_results(
            graph.name,
            500,
            500,
            cost,
            opt_type,
            batch_size=1,
            warmup=2,
            number=2,
            repeat=6,
            ngpu=2,
            device="cpu",
        )
        text = (tmp_path / "outputs" / f"{stem}_results_1_500_500").read_text()
        assert capsys.readouterr().out == text
        assert text.splitlines() == [
            "Only Inter Operator latency:",
            str(result.inter_ms),
            "With Intra Operator latency:",
            str(result.both_ms),
            "Optimization cost:",
            str(cost),
        ]
        assert result.inter_ms is not None
        assert result.inter_ms > 0
        assert result.both_ms > 0
    left = {path.name for path in tmp_path.iterdir()} - {"cache"}
    assert left == {"outputs"}
    assert {path.name for path in (tmp_path / "outputs").iterdir()} == {
        f"{stem}_nonpar_1_500_500",
        f"{stem}_par_1_500_500",
        f"{stem}_par_1_500_500.hios",
        f"{stem}_results_1_500_500",
    }
    x = np.random.default_rng(0).standard_normal((1, 1, 500, 500), dtype=np.float32)
    session = ort.InferenceSession(graph.to_onnx().SerializeToString())
    with hios_tvm.load(tmp_path / "outputs" / f"{stem}_par_1_500_500.hios") as model:
        found = model.run({"data": x})["output"]
    expected = np.asarray(session.run(None, {"data": x})[0])
    assert expected.std() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    with pytest.raises(InvalidOption, match="is for 2 devices, not 3"):
        dump_results(graph.name, 500, 500, cost, opt_type, ngpu=3)
