"""From a file of groups to a model, and from the model to schedules that run."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from command_line import runner, small_network
from synthetic_groups import HOST, records

import hios_tvm
from cost_model.learn import learn
from cost_model.learned import LearnedCosts
from cost_model.model_file import load_model, save_model
from cost_model.records import encode_record
from cost_model.train import TrainOptions
from hios.errors import CostModelMismatch, InvalidOption
from hios.ir.presets import available_cores

QUICK = TrainOptions(rounds=40, depth=3, eta=0.1, quantile_rounds=20, calibration_folds=2)


def here(record):
    """Return a record as if measured on as many cores as one device of this host has."""
    return replace(record, device=replace(HOST, units=len(available_cores())))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of groups, a model trained on them, and a network."""
    where = tmp_path_factory.mktemp("learned")
    lines = [encode_record(here(record)) for record in records(60, models=3)]
    (where / "one.jsonl").write_bytes(b"".join(lines[:40]) + b'{"half a line')
    (where / "two.jsonl").write_bytes(b"".join(lines[40:]))
    save_model(learn([here(r) for r in records(60, models=3)], QUICK, ()).model, where / "m.ubj")
    onnx.save(small_network(), where / "small.onnx")
    return where


@pytest.fixture
def hios(capfd, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return runner(capfd)


def test_train_tells_what_it_did(hios, folder, tmp_path):
    out = tmp_path / "new.ubj"
    files = (folder / "one.jsonl", folder / "two.jsonl")
    code, told, err = hios("train", *files, "-o", out, "--split", "unseen-model", "--json")
    assert code == 0, err
    assert "left out damaged line 41" in err
    facts = json.loads(told)
    assert facts["groups"] == facts["records"] == 60
    assert facts["networks"] == ["0", "1", "2"]
    (split,) = facts["splits"]
    assert (split["split"], split["folds"]) == ("unseen-model", 3)
    assert 0 < split["learned"]["mape"]["value"] < split["baselines"]["LB"]["mape"]["value"]
    assert load_model(out).facts.data_hash == facts["data_hash"]


def test_train_prints_a_table(hios, folder, tmp_path):
    arguments = (folder / "two.jsonl", "-o", tmp_path / "m.ubj", "--split", "unseen-group")
    code, told, _ = hios("train", *arguments)
    assert code == 0
    for word in ("learned", "nearest neighbour", "shared cores", "20 groups", "noise is unknown"):
        assert word in told


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "collect more"), ("nonsense\n", "collect more"), (None, "cannot read")],
)
def test_train_refuses_what_holds_no_groups(hios, tmp_path, content, words):
    path = tmp_path / "g.jsonl"
    if content is not None:
        path.write_text(content)
    code, _, err = hios("train", path, "-o", tmp_path / "m.ubj")
    assert code == 2
    assert words in err
    assert not (tmp_path / "m.ubj").exists()


@pytest.mark.parametrize("scheduler", ["ios", "hios-lp"])
def test_schedules_are_decided_by_a_model(hios, folder, scheduler):
    arguments = ("--scheduler", scheduler, "--devices", "1", "--streams", "2", "--json")
    code, told, err = hios(
        *("schedule", folder / "small.onnx", "--costs", "learned"),
        *("--model", folder / "m.ubj", *arguments),
    )
    assert code == 0, err
    learned = json.loads(told)
    # A model given is a model wanted.
    code, told, _ = hios("schedule", folder / "small.onnx", "--model", folder / "m.ubj", *arguments)
    assert code == 0
    # Times are cached: both ways are one, the clock of the decision apart.
    for key in ("scheduler", "makespan_us", "sequential_us"):
        assert json.loads(told)[key] == learned[key]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--costs", "analytic", "--model", "m.ubj"), "only learned costs use one"),
        (("--costs", "learned", "--model", "none.ubj"), "cannot read"),
        (("--costs", "learned", "--model", "small.onnx"), "no cost model of hios-tvm"),
    ],
)
def test_mistakes_are_one_line(hios, folder, monkeypatch, arguments, words):
    monkeypatch.chdir(folder)
    code, out, err = hios("schedule", "small.onnx", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_a_graph_file_has_no_use_for_a_model(hios, folder, tmp_path):
    (tmp_path / "g.json").write_text('{"operators": [{"id": 0, "time_us": 1}], "edges": []}')
    code, _, err = hios("schedule", tmp_path / "g.json", "--model", folder / "m.ubj")
    assert code == 2
    assert "brings its own times" in err


def test_no_shipped_model_is_said(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("cost_model.shipped._FOLDER", tmp_path)
    with pytest.raises(CostModelMismatch, match=r"no cost model for .* comes with"):
        hios_tvm.build(str(folder / "small.onnx"), costs="learned", cache=tmp_path)


def test_what_is_built_runs_and_may_merge(folder, tmp_path):
    options = {"costs": "learned", "cost_model": folder / "m.ubj", "cache": tmp_path}
    x = {"data": np.random.default_rng(0).standard_normal((1, 3, 16, 16), dtype=np.float32)}
    network = small_network()
    with hios_tvm.build(network, devices=1, streams=2, scheduler="ios", **options) as model:
        assert isinstance(model.costs, LearnedCosts | None)
        found = model.run(x)["logits"]
    with hios_tvm.build(network, devices=1, scheduler="sequential", costs="analytic") as plain:
        np.testing.assert_allclose(found, plain.run(x)["logits"], rtol=1e-4, atol=1e-4)
    with pytest.raises(InvalidOption, match="only learned costs"):
        hios_tvm.build(network, costs="profile", cost_model=folder / "m.ubj")
