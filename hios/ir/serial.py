"""JSON in and out for the core types, and the one way in which a file is written.

All core types are plain frozen dataclasses; msgspec encodes and checks them. A file is
written under a temporary name and then renamed, so a full disk or a crash leaves either the
old file or none.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from hios.errors import HiosError, MissingFile, StorageError

__all__ = [
    "decode_json",
    "encode_json",
    "read_bytes",
    "storage_error",
    "write_atomically",
    "write_bytes",
]

T = TypeVar("T")


def encode_json(value: object, indent: int | None = None) -> bytes:
    """Encode a core type (or any plain structure) as UTF-8 JSON.

    Equal values give equal bytes: field order is declaration order and mapping keys are
    sorted.

    Parameters
    ----------
    value
        A dataclass, mapping, sequence or scalar.
    indent
        Spaces per level; None for the compact form.
    """
    data = msgspec.json.encode(value, order="deterministic")
    return data if indent is None else msgspec.json.format(data, indent=indent)


def decode_json(data: bytes | str, kind: type[T], error: type[HiosError], what: str) -> T:
    """Decode JSON into `kind`.

    Parameters
    ----------
    data
        UTF-8 JSON.
    kind
        The dataclass (or typing form) to build.
    error
        The error class raised when `data` does not describe a `kind`.
    what
        How the message names the source, for example a file path.

    Raises
    ------
    HiosError
        Of class `error`, with the path of the offending field.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise error(f"{what}: not a valid {kind.__name__} file: {problem}") from problem


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a whole file.

    Raises
    ------
    MissingFile
        When it does not exist, is a folder, or may not be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise MissingFile(f"cannot read {os.fspath(path)!r}: {reason}; check the path") from problem


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], None]) -> None:
    """Have `write` fill a temporary file beside `path`, then rename it to `path`.

    Raises
    ------
    StorageError
        When anything cannot be written; the temporary file is removed and an older file
        under `path` is left as it was.
    """
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
    except OSError as problem:
        raise storage_error(target, problem) from problem
    temporary = Path(name)
    try:
        write(temporary)
        # mkstemp makes the file private; give it the mode that a plain open() would have.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    except OSError as problem:
        raise storage_error(target, problem) from problem
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` through a temporary name (see `write_atomically`)."""

    def fill(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_atomically(path, fill)


def storage_error(path: Path, problem: OSError) -> StorageError:
    """Return the error for what could not be written, where nothing is left half-written."""
    reason = problem.strerror or str(problem)
    return StorageError(f"cannot write {str(path)!r}: {reason}; nothing was left half-written")
