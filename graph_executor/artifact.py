"""A compiled and scheduled model as a folder, ``NAME.hios/``.

============================  ==================================================================
``manifest.json``             format version, TVM version, target, signature, hashes of the rest
``graph.json``                the operator graph
``machine.json``              the devices and links it was scheduled for
``schedule.json``             what runs where
``kernels.so``                the compiled kernels
``params.safetensors``        the weights, by tensor id
``prediction.json``           the simulated timeline and the memory of each device (for readers)
============================  ==================================================================

The folder is filled under a temporary name beside its place and then renamed, so a full disk
leaves nothing half-written, and an older artifact of the same name stays until the new one is
whole. Loading checks the format version and every hash before anything is used; only
``kernels.so`` is ever executed, and nothing is unpickled.

Kernels are loaded late, when the folder may hold another model already, and the dynamic loader
takes a path that it knows for the library that it has. So what is loaded is a copy, hashed while
it is made, under a path that no other load shares.
"""

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

import hios
from graph_executor.backend import Array
from graph_executor.dtypes import numpy_dtype
from graph_executor.executor import output_names
from graph_executor.host import host_features
from graph_executor.prediction import Prediction, predict
from hios.errors import (
    ArtifactMismatch,
    HiosError,
    InfeasibleSchedule,
    InvalidGraph,
    InvalidMachine,
    MissingFile,
    StorageError,
)
from hios.ir.graph import OpGraph
from hios.ir.ids import TensorId
from hios.ir.kernels import CompiledGraph, KernelLibrary
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.ir.serial import decode_json, encode_json, read_bytes, storage_error
from hios.ir.timeline import Timeline

__all__ = [
    "FORMAT_VERSION",
    "Artifact",
    "LoadedLibrary",
    "Manifest",
    "Port",
    "load_artifact",
    "save_artifact",
]

FORMAT_VERSION = 1

_PARTS = ("graph.json", "machine.json", "schedule.json", "kernels.so", "params.safetensors")
_MANIFEST = "manifest.json"
_PREDICTION = "prediction.json"
_PLAIN_KINDS = "fiub"


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a folder holds.

    Attributes
    ----------
    format_version
        `FORMAT_VERSION` of the writer.
    name
        Of the graph.
    hios_version, tvm_version
        Of the writer; kernels need a TVM of the same minor version.
    target
        TVM's JSON of the target that the kernels were compiled for.
    requires
        Vector extensions of the CPU that the kernels use.
    inputs, outputs
        The signature of the model.
    sha256
        Hash of every other file, by name.
    attrs
        Where the model came from.
    """

    format_version: int
    name: str
    hios_version: str
    tvm_version: str
    target: str
    requires: tuple[str, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    sha256: Mapping[str, str]
    attrs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Version:
    """The one field that every format version has."""

    format_version: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """A loaded folder."""

    manifest: Manifest
    compiled: CompiledGraph
    machine: Machine
    schedule: Schedule
    prediction: Prediction | None = None


class LoadedLibrary:
    """Kernels in a file (`hios.ir.KernelLibrary`), loaded when first used.

    Parameters
    ----------
    path
        The shared library.
    target
        TVM's JSON of its target.
    tvm_version
        Of the TVM that compiled it.
    sha256
        Of the file, in hexadecimal.
    requires
        Vector extensions of the CPU that it uses.
    """

    def __init__(
        self,
        path: Path,
        target: str,
        tvm_version: str,
        sha256: str,
        requires: tuple[str, ...] = (),
    ) -> None:
        self.requires = requires
        self._path = path
        self._sha256 = sha256
        self._lock = threading.Lock()
        self._target = target
        self._tvm_version = tvm_version
        self._module: Any = None

    @property
    def target(self) -> str:
        """The target as TVM's JSON."""
        return self._target

    @property
    def tvm_version(self) -> str:
        """The version of TVM that compiled the kernels."""
        return self._tvm_version

    @property
    def module(self) -> Any:
        """The loaded module.

        Raises
        ------
        ArtifactMismatch
            When the TVM that is installed is another one, or cannot load the file, or the file
            is no longer the one that the artifact was loaded with.
        MissingFile
            When the file is gone.
        StorageError
            When there is no space for a copy of it in the temporary folder.
        """
        with self._lock:
            if self._module is None:
                self._module = self._load()
            return self._module

    def _load(self) -> Any:
        from graph_executor import tvm_runtime

        here = tvm_runtime.runtime_version()
        if _minor(here) != _minor(self._tvm_version):
            raise ArtifactMismatch(
                f"{str(self._path)!r} was compiled by TVM {self._tvm_version}, TVM {here} is "
                f"installed; compile it again, or install TVM {_minor(self._tvm_version)}"
            )
        try:
            # The mapping outlives the folder.
            with tempfile.TemporaryDirectory(
                prefix="hios-kernels-", ignore_cleanup_errors=True
            ) as private:
                copy = Path(private) / f"{self._sha256[:16]}.so"
                self.export(copy)
                return tvm_runtime.load_library(copy, self._path)
        except OSError as problem:
            if isinstance(problem, HiosError):
                raise
            raise storage_error(Path(tempfile.gettempdir()), problem) from problem

    def export(self, path: Path) -> None:
        """Copy the file, if it still is the one that was loaded.

        Raises
        ------
        StorageError
            When it cannot be written.
        MissingFile
            When it is gone.
        ArtifactMismatch
            When it is another one by now.
        """
        data = read_bytes(self._path)
        if hashlib.sha256(data).hexdigest() != self._sha256:
            raise ArtifactMismatch(
                f"{str(self._path)!r} was replaced after the artifact was loaded; load it again"
            )
        try:
            path.write_bytes(data)
        except OSError as problem:
            raise storage_error(path, problem) from problem


def save_artifact(
    path: str | os.PathLike[str],
    compiled: CompiledGraph,
    machine: Machine,
    schedule: Schedule,
    timeline: Timeline | None = None,
) -> Path:
    """Write an artifact folder, whole or not at all.

    Parameters
    ----------
    path
        The folder; its parent must exist. An older artifact there is replaced.
    compiled, machine, schedule
        What to keep.
    timeline
        The simulated one, where costs are known.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    StorageError
        When something cannot be written, or `path` is taken by anything but an artifact.
    MissingDependency
        When kernels compiled in this process need a C compiler to be linked, and there is none.
    """
    target = Path(path)
    if target.exists() and not (target / _MANIFEST).is_file():
        raise StorageError(
            f"{str(target)!r} exists and is no artifact; choose another name or remove it"
        )
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as problem:
        raise storage_error(target, problem) from problem
    try:
        _fill(temporary, compiled, machine, schedule, timeline)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        if target.exists():
            older = temporary.with_name(temporary.name + ".old")
            target.rename(older)
            try:
                temporary.rename(target)
            except OSError:
                older.rename(target)
                raise
            shutil.rmtree(older, ignore_errors=True)
        else:
            temporary.rename(target)
    except OSError as problem:
        if isinstance(problem, StorageError):
            raise
        raise storage_error(target, problem) from problem
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _fill(
    folder: Path,
    compiled: CompiledGraph,
    machine: Machine,
    schedule: Schedule,
    timeline: Timeline | None,
) -> None:
    (folder / "graph.json").write_bytes(compiled.graph.to_json())
    (folder / "machine.json").write_bytes(encode_json(machine, indent=2))
    (folder / "schedule.json").write_bytes(schedule.to_json())
    compiled.library.export(folder / "kernels.so")
    data = {str(tensor): _plain(value) for tensor, value in sorted(compiled.params.items())}
    try:
        safetensors.numpy.save_file(data, folder / "params.safetensors")
    except safetensors.SafetensorError as problem:
        raise StorageError(
            f"cannot write {str(folder / 'params.safetensors')!r}: {problem}; nothing was left "
            "half-written"
        ) from problem
    graph = compiled.graph
    prediction = predict(graph, machine, schedule, timeline)
    (folder / _PREDICTION).write_bytes(prediction.to_json())
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name=graph.name,
        hios_version=hios.__version__,
        tvm_version=compiled.library.tvm_version,
        target=compiled.library.target,
        requires=_required_features(compiled.library),
        inputs=tuple(_port(graph, graph.tensors[t].name, t) for t in graph.inputs),
        outputs=tuple(
            _port(graph, name, t)
            for name, t in zip(output_names(compiled), graph.outputs, strict=True)
        ),
        sha256={part: _hash(folder / part) for part in (*_PARTS, _PREDICTION)},
        attrs=compiled.attrs,
    )
    (folder / _MANIFEST).write_bytes(encode_json(manifest, indent=2))


def load_artifact(path: str | os.PathLike[str]) -> Artifact:
    """Read an artifact folder and check it.

    Raises
    ------
    MissingFile
        When there is no such folder.
    ArtifactMismatch
        When it is no artifact, or a damaged one, of another format version, or for another
        kind of CPU.
    """
    folder = Path(path)
    if not folder.exists():
        raise MissingFile(f"no artifact {str(folder)!r}; check the path")
    manifest = _read_manifest(folder)
    # Artifacts of before have no prediction, and need none.
    has_prediction = _PREDICTION in manifest.sha256
    for part in (*_PARTS, _PREDICTION) if has_prediction else _PARTS:
        expected = manifest.sha256.get(part)
        if expected is None or not (folder / part).is_file():
            raise ArtifactMismatch(
                f"{str(folder)!r} lacks {part}; copy the whole folder, or compile again"
            )
        if _hash(folder / part) != expected:
            raise ArtifactMismatch(
                f"{str(folder / part)!r} is damaged (its hash is not the manifest's); copy the "
                "artifact again, or compile again"
            )
    available = host_features()
    if available is not None and (missing := sorted(set(manifest.requires) - available)):
        raise ArtifactMismatch(
            f"{str(folder)!r} is for a CPU with {', '.join(missing)}, which this one lacks; "
            "compile it on this machine"
        )
    try:
        graph = OpGraph.from_json(read_bytes(folder / "graph.json"), str(folder / "graph.json"))
        machine = Machine.from_json(
            read_bytes(folder / "machine.json"), str(folder / "machine.json")
        )
        schedule = Schedule.from_json(
            read_bytes(folder / "schedule.json"), str(folder / "schedule.json")
        )
    except (InvalidGraph, InvalidMachine, InfeasibleSchedule) as problem:
        raise ArtifactMismatch(f"{problem}; compile again") from problem
    library = LoadedLibrary(
        folder / "kernels.so",
        manifest.target,
        manifest.tvm_version,
        manifest.sha256["kernels.so"],
        manifest.requires,
    )
    params = _load_params(folder / "params.safetensors", graph)
    compiled = CompiledGraph(graph, library, params, dict(manifest.attrs))
    prediction = None
    if has_prediction:
        where = folder / _PREDICTION
        prediction = Prediction.from_json(read_bytes(where), str(where))
    return Artifact(manifest, compiled, machine, schedule, prediction)


def _read_manifest(folder: Path) -> Manifest:
    path = folder / _MANIFEST
    if not path.is_file():
        raise ArtifactMismatch(
            f"{str(folder)!r} is no artifact (it has no {_MANIFEST}); give a folder written by "
            "'hios compile'"
        )
    data = read_bytes(path)
    version = decode_json(data, _Version, ArtifactMismatch, str(path)).format_version
    if version != FORMAT_VERSION:
        raise ArtifactMismatch(
            f"{str(folder)!r} has format version {version}, this hios-tvm reads "
            f"{FORMAT_VERSION}; compile it again with this version"
        )
    return decode_json(data, Manifest, ArtifactMismatch, str(path))


def _load_params(path: Path, graph: OpGraph) -> dict[TensorId, Array]:
    try:
        data = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError) as problem:
        raise ArtifactMismatch(f"cannot read {str(path)!r}: {problem}; compile again") from problem
    params: dict[TensorId, Array] = {}
    for key, value in data.items():
        if not key.isdecimal() or int(key) >= len(graph.tensors):
            raise ArtifactMismatch(f"{str(path)!r} holds {key!r}, no tensor; compile again")
        tensor = graph.tensors[int(key)]
        dtype = numpy_dtype(tensor.dtype)
        if value.dtype != dtype:
            if dtype.kind in _PLAIN_KINDS or value.dtype != _carrier(dtype):
                raise ArtifactMismatch(
                    f"{str(path)!r} holds {tensor.name!r} as {value.dtype}, the graph needs "
                    f"{tensor.dtype}; compile again"
                )
            value = value.view(dtype)
        params[tensor.id] = value
    return params


def _plain(value: Array) -> Array:
    """Return the value in a dtype that every reader knows: others as raw unsigned integers."""
    if value.dtype.kind in _PLAIN_KINDS:
        return value
    return value.view(_carrier(value.dtype))


def _carrier(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the unsigned integer that carries the bits of a dtype that few readers know."""
    return np.dtype(f"u{dtype.itemsize}")


def _port(graph: OpGraph, name: str, tensor: TensorId) -> Port:
    return Port(name, graph.tensors[tensor].shape, graph.tensors[tensor].dtype)


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as problem:
        raise MissingFile(f"cannot read {str(path)!r}: {problem.strerror}") from problem


def _required_features(library: KernelLibrary) -> tuple[str, ...]:
    if isinstance(library, LoadedLibrary):
        return library.requires
    from graph_executor.tvm_runtime import target_features

    return target_features(library.target)


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
