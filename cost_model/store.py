"""Files of records: JSON lines that only grow, and that survive whatever happens to the writer.

One line a record, appended in one write and forced to disk before the next group is measured: a
process that is killed loses the group it was at, no more. What it may leave behind is half a
line at the end, which the next writer removes, and says so. A file whose name ends in ``.gz`` is
a sequence of gzip members, one for each writer, flushed after every record, so that all but the
last record can be read however the writer ended.

Lines that are no records are reported by their numbers and left out, never silently. One process
at a time writes to a file; the others are told who that is.
"""

import fcntl
import json
import os
import socket
import threading
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from cost_model.records import GroupRecord, decode_record, encode_record
from hios.errors import InvalidRecord, StorageError
from hios.ir.serial import read_bytes, write_bytes

__all__ = ["Damage", "RecordFile", "RecordStore", "read_records"]

_GZIP = 31  # zlib's code for "with a gzip header"
_MAGIC = b"\x1f\x8b\x08"


@dataclass(frozen=True, slots=True)
class Damage:
    """A line that is no record.

    Attributes
    ----------
    line
        Its number, from 1.
    reason
        What is wrong with it.
    is_torn
        Whether it is the half-written end of the file.
    """

    line: int
    reason: str
    is_torn: bool = False


@dataclass(frozen=True, slots=True)
class RecordFile:
    """What a file holds.

    Attributes
    ----------
    path
        The file.
    records
        In the order of the file, the rejected ones too.
    damaged
        Lines that are no records.
    """

    path: Path
    records: tuple[GroupRecord, ...]
    damaged: tuple[Damage, ...]

    def report(self) -> str:
        """Return one line about the damage; empty when there is none."""
        if not self.damaged:
            return ""
        numbers = ", ".join(str(damage.line) for damage in self.damaged[:8])
        more = f" and {len(self.damaged) - 8} more" if len(self.damaged) > 8 else ""
        lines = "line" if len(self.damaged) == 1 else "lines"
        return (
            f"{str(self.path)!r}: left out damaged {lines} {numbers}{more} "
            f"({self.damaged[0].reason})"
        )


def read_records(path: str | os.PathLike[str]) -> RecordFile:
    """Read all records of a file.

    Parameters
    ----------
    path
        JSON lines, compressed where the name ends in ``.gz``.

    Returns
    -------
    RecordFile
        With the lines that are damaged; what follows a damaged line is read.

    Raises
    ------
    MissingFile
        When the file cannot be read.
    """
    where = Path(path)
    data = read_bytes(where)
    if where.suffix == ".gz":
        data, tear = _inflate(data)
    else:
        tear = ""
    lines = data.split(b"\n")
    is_whole = not lines[-1]
    if is_whole:
        lines.pop()
    records = []
    damaged = []
    for number, line in enumerate(lines, 1):
        is_last = number == len(lines) and not is_whole
        try:
            records.append(decode_record(line, f"line {number}"))
        except InvalidRecord as problem:
            reason = str(problem).partition(": ")[2]
            damaged.append(Damage(number, "half a line" if is_last else reason, is_last))
    if tear and not (damaged and damaged[-1].is_torn):
        damaged.append(Damage(len(lines) + 1, tear, True))
    return RecordFile(where, tuple(records), tuple(damaged))


def _inflate(data: bytes) -> tuple[bytes, str]:
    """Decompress all members as far as they go; also tell what stopped it, if anything did."""
    found = []
    tear = ""
    while data:
        member = zlib.decompressobj(_GZIP)
        try:
            # Byte by byte at worst: what comes before the damage is worth having.
            found.append(member.decompress(data))
        except zlib.error as problem:
            found.append(_until_damage(data))
            tear = f"compressed data are damaged ({problem})"
            following = data.find(_MAGIC, 1)
            data = data[following:] if following > 0 else b""
            if data:
                found.append(b"\n")
            continue
        if not member.eof:
            tear = tear or "compressed data end too early"
            break
        data = member.unused_data
    return b"".join(found), tear


def _until_damage(data: bytes) -> bytes:
    member = zlib.decompressobj(_GZIP)
    found = []
    try:
        for start in range(0, len(data), 64):
            found.append(member.decompress(data[start : start + 64]))
    except zlib.error:
        pass
    return b"".join(found)


class RecordStore:
    """A file open for appending, locked against other writers.

    Parameters
    ----------
    path
        Made when it is not there. What is in it stays.

    Attributes
    ----------
    found
        What the file held when it was opened, with the damage that was found.

    Raises
    ------
    StorageError
        When another process writes to it, or it cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._mutex = threading.Lock()
        self._lock = _Lock(self._path)
        self._file = -1
        try:
            self.found = self._repair()
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError as problem:
            self._lock.release()
            if isinstance(problem, StorageError):
                raise
            raise _cannot_write(self._path, problem) from problem
        except BaseException:
            self._lock.release()
            raise
        is_packed = self._path.suffix == ".gz"
        self._packer = zlib.compressobj(9, zlib.DEFLATED, _GZIP) if is_packed else None
        self._has_member = False

    def append(self, record: GroupRecord) -> None:
        """Add one record; it is on disk when this returns. Any thread may call it.

        Raises
        ------
        StorageError
            When it cannot be written.
        InvalidRecord
            When the record contradicts itself.
        """
        record.validate()
        line = encode_record(record)
        with self._mutex:
            if self._packer is not None:
                line = self._packer.compress(line) + self._packer.flush(zlib.Z_SYNC_FLUSH)
                self._has_member = True
            self._write(line)

    def close(self) -> None:
        """End the file and let other writers have it; may be called twice."""
        with self._mutex:
            if self._file < 0:
                return
            try:
                if self._packer is not None and self._has_member:
                    self._write(self._packer.flush())
            finally:
                os.close(self._file)
                self._file = -1
                self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        except OSError as problem:
            raise _cannot_write(self._path, problem) from problem

    def _repair(self) -> RecordFile:
        """Read what is there and remove half a line, or half a gzip member, from its end."""
        if not self._path.exists():
            return RecordFile(self._path, (), ())
        found = read_records(self._path)
        data = self._path.read_bytes()
        if self._path.suffix == ".gz":
            whole, tear = _inflate(data)
            if tear:
                kept = whole[: whole.rfind(b"\n") + 1]
                packer = zlib.compressobj(9, zlib.DEFLATED, _GZIP)
                write_bytes(self._path, packer.compress(kept) + packer.flush() if kept else b"")
        elif data and not data.endswith(b"\n"):
            with self._path.open("r+b") as file:
                if found.damaged and found.damaged[-1].is_torn:
                    file.truncate(data.rfind(b"\n") + 1)
                else:  # just the end of the line is missing
                    file.seek(0, os.SEEK_END)
                    file.write(b"\n")
        return found


class _Lock:
    """A lock file beside the data, held as long as the process lives; it names the holder."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f".{path.name}.lock")
        while True:
            try:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as problem:
                raise _cannot_write(path, problem) from problem
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = _holder(os.pread(self._file, 4096, 0))
                os.close(self._file)
                raise StorageError(
                    f"{str(path)!r} is being written by {holder}; wait for it, or give another file"
                ) from None
            if self._is_current():
                break
            os.close(self._file)  # its last holder has removed it meanwhile
        told = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%H:%M:%S"),
        }
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, json.dumps(told).encode(), 0)

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file), self._path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._file)


def _holder(data: bytes) -> str:
    try:
        told = json.loads(data)
        return f"process {told['pid']} on {told['host']} since {told['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _cannot_write(path: Path, problem: OSError) -> StorageError:
    reason = problem.strerror or str(problem)
    return StorageError(f"cannot write {str(path)!r}: {reason}; choose another file or make room")
