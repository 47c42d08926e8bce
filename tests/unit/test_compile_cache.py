"""Compiled kernels and builds on disk: the same code, sooner, whatever happened to the files."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
import tvm
from command_line import small_network
from onnx import numpy_helper

import hios_tvm
from hios.cache_folder import compile_stores
from hios.entry_store import CacheWarning
from relay_passes import compile_graph
from relay_passes.linked_library import LinkedKernelLibrary


def content(compiled):
    """Return everything of a compiled graph that a run depends on."""
    digest = hashlib.sha256(compiled.library.data)
    for tensor, value in sorted(compiled.params.items()):
        digest.update(f"{tensor} {value.dtype} {value.shape}".encode() + value.tobytes())
    return digest.hexdigest(), compiled.graph, dict(compiled.attrs), compiled.library.target


@pytest.fixture(scope="module")
def fresh():
    """The small network, compiled without any cache."""
    return compile_graph(small_network())


@pytest.fixture(scope="module")
def filled(tmp_path_factory, fresh):
    """A cache that holds it."""
    folder = tmp_path_factory.mktemp("cache")
    first = compile_graph(small_network(), cache=folder)
    assert content(first) == content(fresh)
    return folder


@pytest.fixture
def cache(filled, tmp_path):
    """A copy to play with."""
    for path in filled.rglob("*.*"):
        place = tmp_path / path.relative_to(filled)
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(path.read_bytes())
    return tmp_path


@pytest.fixture
def compiled_now(monkeypatch):
    """The symbols of the kernels that LLVM compiles."""
    from relay_passes import kernel_objects

    real, names = kernel_objects._compile, []

    def compile_and_tell(symbol, func, target):
        names.append(symbol)
        return real(symbol, func, target)

    monkeypatch.setattr(kernel_objects, "_compile", compile_and_tell)
    return names


def other_weights():
    model = small_network()
    for weight in model.graph.initializer:
        value = numpy_helper.to_array(weight) * np.float32(0.5)
        weight.CopyFrom(numpy_helper.from_array(value, weight.name))
    return model


def without_relu():
    model = small_network()
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type = "Sigmoid"
    return model


def test_a_second_build_is_the_same_and_compiles_nothing(cache, fresh, compiled_now):
    assert content(compile_graph(small_network(), cache=cache)) == content(fresh)
    assert compiled_now == []


def test_kernels_serve_other_weights_and_other_networks(cache, compiled_now):
    compile_graph(other_weights(), cache=cache)
    assert compiled_now == []  # weights are no part of a kernel
    compile_graph(without_relu(), cache=cache)
    total = compile_stores(cache)[0].usage().entries
    assert 0 < len(compiled_now) < total / 2, compiled_now


def test_a_file_and_a_model_that_changes(cache, tmp_path, compiled_now):
    path = tmp_path / "small.onnx"
    onnx.save(small_network(), path)
    before = compile_graph(path, cache=cache)
    onnx.save(other_weights(), path)
    after = compile_graph(path, cache=cache)
    assert content(before)[0] != content(after)[0]


def test_external_data_is_part_of_a_model(tmp_path):
    from relay_passes.model_digest import model_digest

    path = tmp_path / "m.onnx"
    onnx.save(small_network(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    before = model_digest(path)
    assert before == model_digest(str(path))
    data = bytearray((tmp_path / "w.bin").read_bytes())
    data[0] ^= 1
    (tmp_path / "w.bin").write_bytes(data)
    assert before != model_digest(path)
    (tmp_path / "w.bin").unlink()
    assert model_digest(path) is None


@pytest.mark.parametrize("kind", ["kernels", "builds"])
def test_damage_is_found_told_and_mended(cache, fresh, kind, compiled_now):
    builds = compile_stores(cache)[1]
    if kind == "kernels":
        for path in builds.folder.iterdir():
            path.unlink()
    victim = sorted((cache / kind).iterdir())[0]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 0xFF
    victim.write_bytes(data)
    with pytest.warns(CacheWarning, match="is damaged"):
        mended = compile_graph(small_network(), cache=cache)
    assert content(mended) == content(fresh)
    assert len(compiled_now) == (1 if kind == "kernels" else 0)
    assert victim.exists()
    assert content(compile_graph(small_network(), cache=cache)) == content(fresh)


def test_what_the_code_depends_on_is_in_the_key(cache, compiled_now, monkeypatch):
    from relay_passes import build_environment

    monkeypatch.setattr(build_environment, "_SCHEMA", -1)
    compile_graph(small_network(), cache=cache)
    everything = len(compiled_now)
    assert everything >= 4
    with tvm.transform.PassContext(config={"tirx.disable_vectorize": True}):
        plain = compile_graph(small_network(), cache=cache)
    assert len(compiled_now) == 2 * everything
    generic = compile_graph(small_network(), {"kind": "llvm"}, cache=cache)
    assert len(compiled_now) == 3 * everything
    assert len({content(plain)[0], content(generic)[0]}) == 2


def test_whoever_watches_passes_sees_them_all(cache, compiled_now):
    seen = []

    @tvm.ir.instrument.pass_instrument
    class Watch:
        def run_before_pass(self, mod, info):
            seen.append(str(info.name))

    with tvm.transform.PassContext(instruments=[Watch()]):
        compile_graph(small_network(), cache=cache)
    assert "HiosScheduleKernels" in seen
    assert compiled_now


def test_without_a_compiler_llvm_loads_kernels_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    compiled = compile_graph(small_network(), cache=tmp_path)
    assert not isinstance(compiled.library, LinkedKernelLibrary)
    kernel = compiled.graph.operators[0].kernel
    assert compiled.library.module.get_function(kernel) is not None
    assert compile_stores(tmp_path)[1].usage().entries == 0


def test_a_second_decision_runs_nothing(tmp_path, monkeypatch):
    """The same network on the same cores: what ran fastest then is what is taken now."""
    from hios_tvm import kept_schedules

    real, calls = kept_schedules.select_fastest, []

    def select(compiled, candidates, progress=None):
        calls.append([candidate.name for candidate in candidates])
        return real(compiled, candidates, progress=progress)

    monkeypatch.setattr(kept_schedules, "select_fastest", select)

    def build(**changed):
        with hios_tvm.build(small_network(), devices=1, **{"cache": tmp_path} | changed) as model:
            return model.schedule

    first = build()
    assert build() == first
    assert any(name.startswith("measured_") for name in first.notes)
    assert len(calls) == 1
    build(cache=False)
    assert len(calls) == 2


BUILD = """
import hashlib, sys
from pathlib import Path
from command_line import small_network
from relay_passes import compile_graph
compiled = compile_graph(small_network(), cache=Path(sys.argv[1]))
print(hashlib.sha256(compiled.library.data).hexdigest())
"""


def test_two_processes_fill_one_cache(tmp_path, fresh):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BUILD, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(2)
    ]
    digests = {process.communicate()[0].strip() for process in processes}
    assert digests == {hashlib.sha256(fresh.library.data).hexdigest()}
    assert content(compile_graph(small_network(), cache=tmp_path)) == content(fresh)
