"""A bounded folder of entries that can be made again, shared by any number of processes.

An entry is one file named after its key. Its first line carries the hash of the rest, and it is
written under a temporary name and renamed, so a reader sees a whole entry or none: a writer that
is killed leaves a temporary file, which a later `trim` removes, and two writers of one key leave
the entry of one of them. What is damaged all the same (a disk error, a curious editor) does not
match its hash: it is removed, told about, and made again.

Reading an entry makes it young. `trim` removes the oldest ones until the folder fits its limit.
"""

import contextlib
import hashlib
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hios.errors import HiosWarning, StorageError
from hios.ir.serial import write_atomically

__all__ = ["CacheWarning", "EntryStore", "Usage"]

_MAGIC = b"hios-entry 1 sha256 "
_HEADER_BYTES = 128
"""A round number, so that what is aligned in the content is aligned in the file."""

_FULL = 0.9
"""Share of the limit that stays filled after entries were removed."""

_ABANDONED_S = 3600.0
"""Age from which a temporary file belongs to no living writer."""


class CacheWarning(HiosWarning):
    """A cache entry was damaged, or the cache cannot be written; the work was done anyway."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a store holds.

    Attributes
    ----------
    entries
        Number of entries.
    size_bytes
        Their size on disk.
    limit_bytes
        The most that `EntryStore.trim` leaves.
    """

    entries: int
    size_bytes: int
    limit_bytes: int


class EntryStore:
    """Entries under one folder, which is made when first written to.

    Parameters
    ----------
    folder
        Where.
    limit_bytes
        The most that stays there after `trim`.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._is_writable = True
        self._has_written = False

    def get(self, key: str) -> memoryview | None:
        """Return an entry, or None when there is none that is whole.

        Parameters
        ----------
        key
            Letters, digits, dots and dashes.

        Warns
        -----
        CacheWarning
            When the entry was damaged; it is removed.
        """
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        content = memoryview(data)[_HEADER_BYTES:]
        if data[:_HEADER_BYTES] != _header(content):
            warnings.warn(
                f"cache entry {path} is damaged; it is removed and made again",
                CacheWarning,
                stacklevel=2,
            )
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return content

    def put(self, key: str, *parts: bytes | memoryview) -> None:
        """Keep an entry; one of the same key is replaced.

        Parameters
        ----------
        key
            As in `get`.
        parts
            The content, in pieces that are written one after another.

        Warns
        -----
        CacheWarning
            When it cannot be written, once; later calls do nothing then.
        """
        if not self._is_writable:
            return

        def fill(temporary: Path) -> None:
            with temporary.open("wb") as file:
                file.write(_header(*parts))
                for part in parts:
                    file.write(part)

        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, fill)
        except OSError as problem:
            self._is_writable = False
            reason = str(problem) if isinstance(problem, StorageError) else problem.strerror
            warnings.warn(
                f"the cache in {self.folder} cannot be written ({reason}); choose another folder "
                "or do without a cache",
                CacheWarning,
                stacklevel=2,
            )
            return
        self._has_written = True

    def trim(self) -> None:
        """Remove what writers left behind, and the oldest entries above the limit.

        Looks at every entry, but only where this object has written one.
        """
        if not self._has_written:
            return
        self._has_written = False
        now = time.time()
        found = []
        for file in self._files():
            if not file.is_entry:
                if now - file.used > _ABANDONED_S:
                    _remove(file.path)
                continue
            found.append(file)
        total = sum(file.size_bytes for file in found)
        if total <= self.limit_bytes:
            return
        for file in sorted(found, key=lambda file: (file.used, file.path.name)):
            if total <= self.limit_bytes * _FULL:
                return
            _remove(file.path)
            total -= file.size_bytes

    def usage(self) -> Usage:
        """Count the entries and their bytes."""
        sizes = [file.size_bytes for file in self._files() if file.is_entry]
        return Usage(len(sizes), sum(sizes), self.limit_bytes)

    def _path(self, key: str) -> Path:
        return self.folder / key

    def _files(self) -> Iterator["_File"]:
        try:
            entries = list(os.scandir(self.folder))
        except OSError:
            return
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_file(follow_symlinks=False):
                    facts = entry.stat(follow_symlinks=False)
                    is_entry = not entry.name.startswith(".")
                    yield _File(Path(entry.path), facts.st_size, facts.st_mtime, is_entry)


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    size_bytes: int
    used: float
    is_entry: bool


def _header(*parts: bytes | memoryview) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return (_MAGIC + digest.hexdigest().encode()).ljust(_HEADER_BYTES - 1) + b"\n"


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
