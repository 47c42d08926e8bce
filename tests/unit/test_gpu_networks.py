"""Networks as a GPU machine gets them: without large weights, which come back exactly."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.gpu.networks import (
    find_networks,
    has_all_weights,
    load_network,
    reference_of,
    save_network,
)
from benchmarks.two_convs import pair_model
from hios.errors import MissingFile
from hios_tvm import sources
from relay_passes.cuda.cubin import find_nvcc

CHANNELS = 32


@pytest.fixture(scope="module")
def pair():
    """Two convolutions compiled for a GPU, and their model."""
    if find_nvcc() is None:
        pytest.skip("no nvcc here")
    model = pair_model(CHANNELS, 7)
    return sources.compile_model(model, "cuda:sm_90"), model


def test_weights_that_the_model_holds_come_back_exactly(pair, tmp_path, monkeypatch):
    compiled, model = pair
    folder = tmp_path / "pair"
    assert save_network(folder, compiled, 0, "zoo:pair", model)
    assert (folder / "weights.safetensors").stat().st_size < CHANNELS * CHANNELS * 9 * 4
    monkeypatch.setattr(sources, "resolve_model", lambda reference: model)
    loaded = load_network(folder)
    assert has_all_weights(folder)
    assert reference_of(folder) == "zoo:pair"
    assert find_networks(tmp_path) == [folder]
    assert loaded.params.keys() == compiled.params.keys()
    for tensor, value in compiled.params.items():
        assert np.array_equal(loaded.params[tensor], value)


def test_other_weights_are_drawn_alike_each_time(pair, tmp_path):
    compiled, _ = pair
    assert not save_network(tmp_path, compiled, 0)
    assert not has_all_weights(tmp_path)
    one, two = load_network(tmp_path), load_network(tmp_path)
    for tensor, value in compiled.params.items():
        assert np.array_equal(one.params[tensor], two.params[tensor])
        assert one.params[tensor].shape == value.shape
        if value.nbytes > 4096:
            assert one.params[tensor].std() == pytest.approx(value.std(), rel=0.1)


def test_small_weights_are_kept(pair, tmp_path):
    compiled, _ = pair
    assert save_network(tmp_path, compiled)
    assert json.loads((tmp_path / "network.json").read_text())["drawn"] == {}
    loaded = load_network(tmp_path)
    assert all(np.array_equal(loaded.params[t], v) for t, v in compiled.params.items())


def test_a_folder_without_networks_is_one_clear_error(tmp_path):
    with pytest.raises(MissingFile, match="no networks in"):
        find_networks(tmp_path)
    with pytest.raises(MissingFile, match="no network "):
        load_network(tmp_path)


def test_without_tvms_compiler_the_runtime_still_loads_what_stands_beside_it():
    program = "from graph_executor import tvm_runtime; import tvm; print(*tvm.base._LOADED_LIBS)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"TVM_USE_RUNTIME_LIB": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = done.stdout.split()
    assert "tvm_runtime_extra" in found
    assert "tvm_compiler" not in found
