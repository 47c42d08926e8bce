"""Reads the graph and the schedule that an executable of TVM's virtual machine carries.

Embedding format 1: besides ``main`` the executable has functions without parameters,
``hios_manifest`` (JSON: format, TVM version, target, ids of the weights, attributes),
``hios_graph``, ``hios_schedule`` and ``hios_machine`` (JSON of those types; the last may be
empty) and ``hios_weights`` (the weights in the order of the manifest). Its runtime module has the
kernels by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hios.errors import ArtifactMismatch, InvalidGraph, InvalidMachine
from hios.ir.graph import OpGraph
from hios.ir.ids import TensorId
from hios.ir.kernels import CompiledGraph
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.ir.serial import decode_json

__all__ = ["EMBEDDING_FORMAT", "Embedded", "EmbeddedLibrary", "read_embedded"]

EMBEDDING_FORMAT = 1


@dataclass(frozen=True, slots=True)
class _Manifest:
    format: int
    tvm_version: str = ""
    target: str = ""
    weights: tuple[int, ...] = ()
    attrs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Embedded:
    """What an executable carries.

    Attributes
    ----------
    compiled
        Graph, kernels and weights.
    schedule
        What runs where.
    machine
        The devices it was scheduled for; None where the executable does not say.
    """

    compiled: CompiledGraph
    schedule: Schedule
    machine: Machine | None


class EmbeddedLibrary:
    """The kernels inside an executable (`hios.ir.KernelLibrary`).

    Parameters
    ----------
    executable
        The executable, or the library loaded from it.
    module
        Its runtime module.
    target, tvm_version
        Of the compilation.
    """

    def __init__(self, executable: Any, module: Any, target: str, tvm_version: str) -> None:
        self._executable = executable
        self._module = module
        self._target = target
        self._tvm_version = tvm_version

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
        """The runtime module."""
        return self._module

    def export(self, path: Path) -> None:
        """Write the whole executable as a shared library.

        Raises
        ------
        StorageError
            When it cannot be written.
        """
        from graph_executor import tvm_runtime

        tvm_runtime.export_executable(self._executable, path)


def read_embedded(executable: Any) -> Embedded:
    """Read graph, schedule, machine, weights and kernels of an executable.

    Parameters
    ----------
    executable
        From ``tvm.compile`` with a pipeline of ours or ``relay.build`` in a pass context of ours,
        or the library loaded after an export.

    Raises
    ------
    ArtifactMismatch
        When it is no executable, carries no schedule, or one of another format.
    """
    from graph_executor import tvm_runtime

    value, module = tvm_runtime.open_executable(executable)
    text = value("hios_manifest")
    if not isinstance(text, str):
        raise ArtifactMismatch(
            "the executable carries no schedule; compile it with "
            "relax_pipeline=hios_tvm.pipeline(devices=[...]), or build it inside "
            "hios_tvm.pass_context(devices=[...]) where TVM has Relay"
        )
    manifest = decode_json(text, _Manifest, ArtifactMismatch, "embedded manifest")
    if manifest.format != EMBEDDING_FORMAT:
        raise ArtifactMismatch(
            f"the executable has embedding format {manifest.format}, this hios-tvm reads "
            f"{EMBEDDING_FORMAT}; compile it again with this version"
        )
    try:
        graph = OpGraph.from_json(_text(value, "hios_graph"), "embedded graph")
        machine_text = _text(value, "hios_machine")
        machine = Machine.from_json(machine_text, "embedded machine") if machine_text else None
    except (InvalidGraph, InvalidMachine) as problem:
        raise ArtifactMismatch(f"{problem}; compile again") from problem
    schedule = decode_json(
        _text(value, "hios_schedule"), Schedule, ArtifactMismatch, "embedded schedule"
    )
    weights = value("hios_weights") or []
    if len(weights) != len(manifest.weights):
        raise ArtifactMismatch(
            f"the executable carries {len(weights)} weights, its manifest names "
            f"{len(manifest.weights)}; compile it again"
        )
    params = {TensorId(t): data for t, data in zip(manifest.weights, weights, strict=True)}
    library = EmbeddedLibrary(executable, module, manifest.target, manifest.tvm_version)
    return Embedded(CompiledGraph(graph, library, params, dict(manifest.attrs)), schedule, machine)


def _text(value: Any, name: str) -> str:
    found = value(name)
    if not isinstance(found, str):
        raise ArtifactMismatch(f"the executable lacks {name}; compile it again")
    return found
