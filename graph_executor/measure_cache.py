"""Measured times on disk, so that no operator is measured twice on one machine.

One JSON file per *setting* (kind of CPU, number of cores, target, TVM version) maps the keys of
operators to their times. Files are written whole, by renaming. A file that cannot be read as
what it should be counts as empty and is written anew: it is a cache, and measuring again is
always right.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from hios.cache_folder import default_cache_dir
from hios.errors import StorageError
from hios.ir.serial import encode_json, write_bytes

__all__ = ["CachedLink", "CachedTime", "MeasureCache", "Setting", "default_cache_dir"]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a time depends on besides the operator.

    Attributes
    ----------
    cpu
        Model of the CPU.
    cores
        How many cores run the operator.
    target
        TVM's JSON of the target.
    tvm_version
        Of the compiler.
    """

    cpu: str
    cores: int
    target: str
    tvm_version: str


@dataclass(frozen=True, slots=True)
class CachedTime:
    """A measured operator.

    Attributes
    ----------
    median_us
        Its time.
    spread
        Half of the 10–90 % range over the median.
    samples
        How many measurements these stand on.
    """

    median_us: float
    spread: float
    samples: int


@dataclass(frozen=True, slots=True)
class CachedLink:
    """A measured link between two sets of cores."""

    bandwidth_gb_s: float
    latency_us: float


@dataclass(frozen=True, slots=True)
class _OperatorFile:
    setting: Setting
    times: Mapping[str, CachedTime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _LinkFile:
    cpu: str
    links: Mapping[str, CachedLink] = field(default_factory=dict)


class MeasureCache:
    """Measured times under one folder, which is made when first written to.

    Parameters
    ----------
    folder
        Where; by default `default_cache_dir`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or default_cache_dir()

    def operator_times(self, setting: Setting) -> dict[str, CachedTime]:
        """Return the known times of operators, by key."""
        try:
            data = self._path("operators", setting).read_bytes()
            found = msgspec.json.decode(data, type=_OperatorFile)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return {}
        return dict(found.times) if found.setting == setting else {}

    def store_operator_times(self, setting: Setting, times: Mapping[str, CachedTime]) -> None:
        """Add times; those of other keys stay.

        Raises
        ------
        StorageError
            When the folder cannot be written.
        """
        merged = {**self.operator_times(setting), **times}
        self._write(self._path("operators", setting), encode_json(_OperatorFile(setting, merged)))

    def links(self, cpu: str) -> dict[str, CachedLink]:
        """Return the known links, by their cores."""
        try:
            data = self._path("links", cpu).read_bytes()
            found = msgspec.json.decode(data, type=_LinkFile)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return {}
        return dict(found.links) if found.cpu == cpu else {}

    def store_links(self, cpu: str, links: Mapping[str, CachedLink]) -> None:
        """Add links; others stay.

        Raises
        ------
        StorageError
            When the folder cannot be written.
        """
        merged = {**self.links(cpu), **links}
        self._write(self._path("links", cpu), encode_json(_LinkFile(cpu, merged)))

    def _path(self, what: str, key: object) -> Path:
        digest = hashlib.sha256(encode_json(key)).hexdigest()[:24]
        return self._folder / f"{what}-{digest}.json"

    def _write(self, path: Path, data: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise StorageError(
                f"cannot make the cache folder {str(path.parent)!r}: {problem.strerror}; choose "
                "another one or do without a cache"
            ) from problem
        write_bytes(path, data)
