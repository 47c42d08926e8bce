"""Artifacts: whole or not at all, checked before use, equal after the way through a folder."""

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
import tvm
from command_line import small_network
from small_kernels import (
    LENGTH,
    Kernels,
    build_kernels,
    cpu_machine,
    random_compiled,
    random_cpu_schedule,
)
from tvm import te

import graph_executor.artifact as artifact_module
import hios.linking as linking_module
from graph_executor.artifact import FORMAT_VERSION, load_artifact, save_artifact
from graph_executor.executor import GraphExecutor, random_inputs
from graph_executor.host import host_features, vector_features
from hios.errors import ArtifactMismatch, MissingDependency, MissingFile, StorageError
from hios.ir import CompiledGraph
from relay_passes.library import TvmKernelLibrary
from relay_passes.offset_factor import AllowOffsets

CORES = sorted(os.sched_getaffinity(0))
MACHINE = cpu_machine([(CORES[0],), (CORES[-1],)], 1)


@pytest.fixture(scope="module")
def compiled():
    kernels = build_kernels()
    seed = next(s for s in range(50) if random_compiled(s, kernels).params)
    return random_compiled(seed, kernels)


@pytest.fixture(scope="module")
def schedule(compiled):
    return random_cpu_schedule(3, compiled.graph, MACHINE)


@pytest.fixture(scope="module")
def original(compiled, schedule, tmp_path_factory):
    return save_artifact(tmp_path_factory.mktemp("saved") / "m.hios", compiled, MACHINE, schedule)


@pytest.fixture
def folder(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "m.hios"))


def outputs(compiled, machine, schedule):
    with GraphExecutor(compiled, machine, schedule) as executor:
        return executor.run(random_inputs(executor.graph))


def test_round_trip_gives_the_same_bits(compiled, schedule, folder):
    loaded = load_artifact(folder)
    assert loaded.compiled.graph == compiled.graph
    assert loaded.machine == MACHINE
    assert loaded.schedule == schedule
    expected = outputs(compiled, MACHINE, schedule)
    found = outputs(loaded.compiled, loaded.machine, loaded.schedule)
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_loaded_artifact_can_be_saved_again(folder, tmp_path):
    loaded = load_artifact(folder)
    again = save_artifact(tmp_path / "again.hios", loaded.compiled, loaded.machine, loaded.schedule)
    assert (again / "manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()


def test_manifest_names_the_signature(compiled, folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    graph = compiled.graph
    assert manifest["format_version"] == FORMAT_VERSION
    assert [port["name"] for port in manifest["inputs"]] == [
        graph.tensors[t].name for t in graph.inputs
    ]
    assert manifest["outputs"][0]["shape"] == [1024]
    assert set(manifest["sha256"]) == {p.name for p in folder.iterdir()} - {"manifest.json"}


@pytest.mark.parametrize("part", artifact_module._PARTS)
@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied", "missing"])
def test_damage_is_found_before_anything_is_used(folder, part, damage):
    path = folder / part
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "truncated":
        path.write_bytes(data[:-1])
    elif damage == "emptied":
        path.write_bytes(b"")
    else:
        path.unlink()
    with pytest.raises(ArtifactMismatch, match=part) as caught:
        load_artifact(folder)
    assert "compile again" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 999}, "format version 999, this hios-tvm reads 1"),
        ({"requires": ["avx1024"]}, "for a CPU with avx1024"),
        ({"sha256": {}}, "lacks graph.json"),
        ({"inputs": 3}, "not a valid Manifest file"),
    ],
)
def test_foreign_manifests_say_what_to_do(folder, change, message):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ArtifactMismatch, match=message):
        load_artifact(folder)


def test_another_tvm_is_refused_before_its_kernels_are_loaded(folder):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tvm_version": "0.10.0"}))
    loaded = load_artifact(folder)
    with pytest.raises(ArtifactMismatch, match=r"compiled by TVM 0\.10\.0"):
        GraphExecutor(loaded.compiled, loaded.machine, loaded.schedule)


def test_what_is_no_artifact_is_named(tmp_path, folder):
    with pytest.raises(MissingFile, match="no artifact"):
        load_artifact(tmp_path / "nowhere.hios")
    with pytest.raises(ArtifactMismatch, match="is no artifact"):
        load_artifact(tmp_path)
    plain = tmp_path / "plain.hios"
    plain.write_text("hello")
    with pytest.raises(ArtifactMismatch, match="is no artifact"):
        load_artifact(plain)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(ArtifactMismatch, match="format_version"):
        load_artifact(folder)


def constant_kernels(value: float) -> Kernels:
    """Return kernels of the usual names that write `value` whatever they read."""
    functions = {}
    for n_in in range(1, 5):
        for n_out in (1, 2):
            inputs = [te.placeholder((LENGTH,), name=f"a{i}") for i in range(n_in)]
            outputs = [
                te.compute((LENGTH,), lambda i: tvm.tirx.const(value, "float32"), name=f"b{k}")
                for k in range(n_out)
            ]
            name = f"mix_{n_in}_{n_out}"
            functions[name] = te.create_prim_func([*inputs, *outputs]).with_attr(
                "global_symbol", name
            )
    executable = tvm.compile(AllowOffsets()(tvm.IRModule(functions)), target={"kind": "llvm"})
    return Kernels(executable.jit(), executable)


def test_a_path_that_was_saved_again_runs_the_new_kernels(compiled, schedule, tmp_path):
    loaded = []
    for value in (1.0, 2.0, 3.0):
        now = CompiledGraph(compiled.graph, constant_kernels(value), compiled.params)
        save_artifact(tmp_path / "m.hios", now, MACHINE, schedule)
        loaded.append(load_artifact(tmp_path / "m.hios"))
        if value == 2.0:
            continue  # its kernels are not loaded before the folder holds other ones
        found = outputs(loaded[-1].compiled, MACHINE, schedule)
        produced = [
            found[name]
            for name, t in zip(found, compiled.graph.outputs, strict=True)
            if compiled.graph.producer(t) is not None
        ]
        assert produced
        assert all(np.all(array == value) for array in produced)
    with pytest.raises(ArtifactMismatch, match="replaced after the artifact was loaded"):
        outputs(loaded[1].compiled, MACHINE, schedule)
    with pytest.raises(ArtifactMismatch, match="replaced after the artifact was loaded"):
        save_artifact(tmp_path / "n.hios", loaded[1].compiled, MACHINE, schedule)
    outputs(loaded[0].compiled, MACHINE, schedule)  # loaded in time
    assert [p.name for p in tmp_path.iterdir()] == ["m.hios"]


@pytest.mark.parametrize("data", [b"", b"\x7fELF" + bytes(60), b"no library" * 100])
def test_kernels_that_are_no_library_are_named_where_they_lie(folder, data, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    (folder / "kernels.so").write_bytes(data)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["sha256"]["kernels.so"] = hashlib.sha256(data).hexdigest()
    path.write_text(json.dumps(manifest))
    loaded = load_artifact(folder)
    with pytest.raises(ArtifactMismatch, match="cannot be loaded as a kernel library") as caught:
        GraphExecutor(loaded.compiled, loaded.machine, loaded.schedule)
    assert str(caught.value).startswith(repr(str(folder / "kernels.so")))
    assert list(temporary.iterdir()) == []


def test_no_copy_of_the_kernels_stays(folder, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    loaded = load_artifact(folder)
    outputs(loaded.compiled, loaded.machine, loaded.schedule)
    assert list(temporary.iterdir()) == []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(StorageError, match="nowhere"):
        GraphExecutor(load_artifact(folder).compiled, loaded.machine, loaded.schedule)


def test_an_older_artifact_is_replaced_and_nothing_else(compiled, schedule, folder, tmp_path):
    before = (folder / "manifest.json").stat().st_ino
    save_artifact(folder, compiled, MACHINE, schedule)
    assert (folder / "manifest.json").stat().st_ino != before
    assert load_artifact(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["m.hios"]
    other = tmp_path / "photos"
    other.mkdir()
    (other / "one.jpg").write_text("x")
    with pytest.raises(StorageError, match="is no artifact"):
        save_artifact(other, compiled, MACHINE, schedule)
    assert (other / "one.jpg").exists()
    with pytest.raises(StorageError, match="cannot write"):
        save_artifact(tmp_path / "no" / "parent.hios", compiled, MACHINE, schedule)


@pytest.mark.parametrize("limit", [512, 20_000])
def test_a_write_that_fails_leaves_the_older_artifact(schedule, original, folder, tmp_path, limit):
    before = (folder / "manifest.json").read_bytes()
    # Its kernels are a file: LLVM would end the process where it cannot write.
    loaded = load_artifact(original).compiled
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(StorageError):
            save_artifact(folder, loaded, MACHINE, schedule)
        with pytest.raises(StorageError):
            save_artifact(tmp_path / "new.hios", loaded, MACHINE, schedule)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (folder / "manifest.json").read_bytes() == before
    assert load_artifact(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["m.hios"]


@pytest.fixture
def tiny_disk(tmp_path):
    where = tmp_path / "disk"
    where.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(where)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("cannot mount a tmpfs here")
    yield where
    subprocess.run(["umount", str(where)], check=True)


def test_a_full_place_for_object_files_is_noticed_in_time(
    compiled, schedule, tmp_path, monkeypatch
):
    monkeypatch.setattr(linking_module, "_OBJECT_BYTES", 1 << 60)
    with pytest.raises(StorageError, match="set TMPDIR"):
        save_artifact(tmp_path / "m.hios", compiled, MACHINE, schedule)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_half_written(schedule, original, tiny_disk):
    loaded = load_artifact(original)
    with pytest.raises(StorageError) as caught:
        save_artifact(tiny_disk / "m.hios", loaded.compiled, MACHINE, schedule)
    assert "nothing was left half-written" in str(caught.value)
    assert list(tiny_disk.iterdir()) == []


def test_a_full_disk_is_named_while_kernels_are_linked(compiled, schedule, tiny_disk):
    library = TvmKernelLibrary(compiled.library.executable, tvm.target.Target("llvm"))
    fresh = CompiledGraph(compiled.graph, library, compiled.params)
    with pytest.raises(StorageError, match="No space left on device"):
        save_artifact(tiny_disk / "m.hios", fresh, MACHINE, schedule)
    assert list(tiny_disk.iterdir()) == []


COMPILE = "import sys; from hios_tvm.cli.main import main; sys.exit(main(sys.argv[1:]))"


def compile_small(tmp_path, before="", **environment):
    """Compile a small network to an artifact in a process of its own."""
    onnx.save(small_network(), tmp_path / "m.onnx")
    folder = tmp_path / "out"
    folder.mkdir()
    command = ["compile", str(tmp_path / "m.onnx"), "-o", str(folder / "n.hios")]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            before + COMPILE,
            *command,
            "--devices",
            "1",
            "--costs",
            "analytic",
            "--no-select",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("hios: error:")]
    assert "Traceback" not in done.stderr
    return done.returncode, lines, [p.name for p in folder.iterdir()]


@pytest.mark.parametrize("limit", [8 << 10, 1 << 20])
def test_a_fresh_model_under_a_file_size_limit_is_no_crash(tmp_path, limit):
    before = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); "
    code, lines, left = compile_small(tmp_path, before)
    assert code == 2
    assert len(lines) == 1
    assert f"{limit >> 10} KiB" in lines[0]
    assert left == []


def test_a_missing_compiler_is_named(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    code, lines, left = compile_small(tmp_path, PATH=str(empty), CXX="", CC="")
    assert code == 2
    assert len(lines) == 1
    assert "install gcc or clang, or set CXX" in lines[0]
    assert left == []


def test_a_compiler_that_is_no_program_is_named(compiled, schedule, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/g++")
    with pytest.raises(MissingDependency, match="CXX='/nowhere/g\\+\\+' is no program"):
        save_artifact(tmp_path / "m.hios", compiled, MACHINE, schedule)
    assert list(tmp_path.iterdir()) == []


def change_graph(folder, change):
    """Rewrite the tensors of a saved graph, hashes included."""
    path = folder / "graph.json"
    graph = json.loads(path.read_text())
    change(graph["tensors"])
    path.write_text(json.dumps(graph))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"]["graph.json"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("size", [0, 4, 4 * LENGTH - 1, 4 * LENGTH + 1])
def test_a_size_that_is_not_that_of_the_shape_never_runs(folder, size):
    def change(tensors):
        produced = next(t for t in tensors if t.get("producer") is not None)
        produced["bytes"] = size

    change_graph(folder, change)
    loaded = load_artifact(folder)
    with pytest.raises(ArtifactMismatch, match=f"has {size} bytes"):
        GraphExecutor(loaded.compiled, loaded.machine, loaded.schedule)


@pytest.mark.parametrize("dtype", ["int32", "float64", "bfloat16", "uint32"])
def test_weights_of_another_dtype_are_refused(compiled, folder, dtype):
    weight = min(compiled.params)

    def change(tensors):
        tensors[weight]["dtype"] = dtype

    change_graph(folder, change)
    with pytest.raises(ArtifactMismatch, match=f"as float32, the graph needs {dtype}"):
        load_artifact(folder)


def test_weights_that_numpy_does_not_know_come_back(compiled, schedule, tmp_path):
    weight = min(compiled.params)
    tensors = list(compiled.graph.tensors)
    tensors[weight] = replace(tensors[weight], dtype="bfloat16", bytes=2 * LENGTH)
    value = compiled.params[weight].astype(ml_dtypes.bfloat16)
    changed = CompiledGraph(
        replace(compiled.graph, tensors=tuple(tensors)),
        compiled.library,
        {**compiled.params, weight: value},
    )
    saved = save_artifact(tmp_path / "m.hios", changed, MACHINE, schedule)
    found = load_artifact(saved).compiled.params[weight]
    assert found.dtype == value.dtype
    np.testing.assert_array_equal(found.view("u2"), value.view("u2"))


def test_loading_needs_no_tvm(original):
    code = (
        "import sys; from graph_executor.artifact import load_artifact; "
        f"load_artifact({str(original)!r}); assert 'tvm' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_features_are_spelled_as_llvm_spells_them():
    names = ["fpu", "avx512_vnni", "avx2", "avx_vnni", "fma", "sse4_1"]
    assert vector_features(names) == {"avx512vnni", "avx2", "avxvnni", "fma"}
    assert host_features() is None or all("_" not in name for name in host_features())
