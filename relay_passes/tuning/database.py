"""Tuning records on disk, one folder per target and version of TVM.

====================  ==================================================================
``manifest.json``     format, target and TVM version, as text
``workloads.json``    MetaSchedule's unscheduled kernels, one a line
``records.json``      MetaSchedule's trials (how to schedule, how long it took), one a line
``verdicts.json``     tuned kernels measured side by side with those of our rules
====================  ==================================================================

A trial is written as soon as it is measured. A line that a killed process left unfinished is
dropped at the next opening. Traces replay only in the version of TVM that wrote them, and times
hold only for their target, so another target or version is another folder: never mixed up.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import tvm
from tvm import tirx
from tvm.s_tir import meta_schedule as ms

from hios.errors import HiosWarning, MissingFile, StorageError
from hios.ir.serial import encode_json, write_bytes

__all__ = ["TuningDatabase", "TuningNote", "Verdict"]

_FORMAT = 1


class TuningNote(HiosWarning):
    """Records were dropped or not used; our rules' kernels stand in for them."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A tuned kernel beside the one of our rules, measured in turns on this kind of machine.

    Attributes
    ----------
    rule_us, tuned_us
        Medians, by number of cores as text.
    error
        ‖tuned − rule‖ / ‖rule‖ over all outputs; None where it was not looked at (remotely).
    is_faster
        Whether the tuned one was faster on every number of cores, and right.
    """

    rule_us: Mapping[str, float]
    tuned_us: Mapping[str, float]
    error: float | None
    is_faster: bool


@dataclass(frozen=True, slots=True)
class _Manifest:
    format: int
    target: str
    tvm_version: str


@dataclass(frozen=True, slots=True)
class _Verdicts:
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)


class TuningDatabase:
    """The records for one target.

    Parameters
    ----------
    root : Path
        The folder that the user names; the records of each target have one of their own in it.
    target : tvm.target.Target
        What the kernels are for.
    create : bool
        Make the folder when there is none, to tune into it.

    Raises
    ------
    MissingFile
        When there is no such folder, and none shall be made.
    StorageError
        When it cannot be made or written.

    Warns
    -----
    TuningNote
        When it holds records, but none for this target and version of TVM.
    """

    def __init__(self, root: Path, target: tvm.target.Target, create: bool = False) -> None:
        self.target = target
        manifest = _Manifest(_FORMAT, str(target), str(tvm.__version__))
        self.folder = root / _folder_name(manifest)
        if create:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as problem:
                raise StorageError(
                    f"cannot make the database {str(root)!r}: {problem.strerror}"
                ) from problem
            write_bytes(self.folder / "manifest.json", encode_json(manifest, indent=2))
        elif not root.is_dir():
            raise MissingFile(
                f"no tuning database {str(root)!r}; make one with `hios tune MODEL --database "
                f"{root}`"
            )
        self._records: Any = None
        self.verdicts: dict[str, Verdict] = {}
        if not self.folder.is_dir():
            warnings.warn(
                f"database {root} has no records for target {manifest.target} and TVM "
                f"{manifest.tvm_version} ({_others(root)}); our rules' kernels are used",
                TuningNote,
                stacklevel=2,
            )
            return
        paths = [self.folder / name for name in ("workloads.json", "records.json")]
        for path in paths:
            _drop_unfinished(path)
        workloads, records = map(str, paths)
        self._records = ms.database.JSONDatabase(workloads, records)
        try:
            data = (self.folder / "verdicts.json").read_bytes()
            self.verdicts = dict(msgspec.json.decode(data, type=_Verdicts).verdicts)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            self.verdicts = {}

    @property
    def records(self) -> Any:
        """MetaSchedule's own database, or None where there is none for this target."""
        return self._records

    def best(self, workload: tvm.IRModule) -> tirx.PrimFunc | None:
        """Return a kernel as its fastest trial schedules it, or None."""
        if self._records is None or not self._records.has_workload(workload):
            return None
        found = self._records.query_ir_module(workload, self.target, "main")
        return None if found is None else found["main"]

    def trials(self, workload: tvm.IRModule) -> int:
        """Return how many trials of a kernel are written."""
        if self._records is None or not self._records.has_workload(workload):
            return 0
        entry = self._records.commit_workload(workload)
        return len(self._records.get_top_k(entry, 1 << 20))

    def store_verdict(self, key: str, verdict: Verdict) -> None:
        """Write down how a tuned kernel compares."""
        self.verdicts[key] = verdict
        write_bytes(self.folder / "verdicts.json", encode_json(_Verdicts(self.verdicts)))

    def digest(self) -> str:
        """Return a hash of all that a build with this database depends on."""
        digest = hashlib.sha256()
        for name in ("records.json", "verdicts.json"):
            path = self.folder / name
            digest.update(path.read_bytes() if path.is_file() else b"")
        return digest.hexdigest()


def _folder_name(manifest: _Manifest) -> str:
    kind = json.loads(manifest.target).get("kind", "target")
    digest = hashlib.sha256(encode_json(manifest)).hexdigest()[:12]
    return f"{kind}-{digest}"


def _others(root: Path) -> str:
    """Say which targets a database does know."""
    known = []
    for path in sorted(root.glob("*/manifest.json")):
        try:
            other = msgspec.json.decode(path.read_bytes(), type=_Manifest)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            continue
        known.append(f"{other.target} with TVM {other.tvm_version}")
    return f"it knows {'; '.join(known)}" if known else "it is empty"


def _drop_unfinished(path: Path) -> None:
    """Keep the lines before the first one that is not whole."""
    if not path.is_file():
        return
    data = path.read_bytes()
    whole = 0
    for line in data.splitlines(keepends=True):
        try:
            json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n"):
            break
        whole += len(line)
    if whole < len(data):
        warnings.warn(
            f"{path} ends in an unfinished line, which is dropped", TuningNote, stacklevel=3
        )
        write_bytes(path, data[:whole])
