"""Read Universal Binary JSON (UBJSON, draft 12), the format of XGBoost's model files.

XGBoost ends the whole process on a damaged file, so files from outside are read here. Arrays of
one numeric type, in which trees are stored, become numpy arrays.
"""

import struct
from typing import Any

import numpy as np

__all__ = ["read_ubjson"]

_NUMBERS = {"i": ">i1", "U": ">u1", "I": ">i2", "l": ">i4", "L": ">i8", "d": ">f4", "D": ">f8"}
_INTEGERS = frozenset("iUIlL")
_CONSTANTS: dict[str, bool | None] = {"T": True, "F": False, "Z": None, "N": None}
_MOST_DEPTH = 64


def read_ubjson(data: bytes) -> Any:
    """Return the value that `data` holds: dict, list, array, str, int, float, bool or None.

    Raises
    ------
    ValueError
        When it is cut, goes on behind the value, or is not UBJSON.
    """
    reader = _Reader(data)
    try:
        value = reader.value(reader.marker(), 0)
    except (struct.error, IndexError, UnicodeDecodeError, OverflowError) as problem:
        raise ValueError(f"damaged near byte {reader.at}: {problem}") from problem
    if reader.at != len(data):
        raise ValueError(f"{len(data) - reader.at} bytes behind the end")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def marker(self) -> str:
        self.at += 1
        return chr(self.data[self.at - 1])

    def value(self, marker: str, depth: int) -> Any:
        if depth > _MOST_DEPTH:
            raise ValueError(f"nested deeper than {_MOST_DEPTH} at byte {self.at}")
        if marker in _NUMBERS:
            return self.numbers(marker, 1)[0].item()
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        if marker == "S":
            return self.text(self.length())
        if marker == "C":
            return self.text(1)
        if marker == "[":
            return self.array(depth)
        if marker == "{":
            return self.object(depth)
        raise ValueError(f"unknown type {marker!r} at byte {self.at - 1}")

    def array(self, depth: int) -> Any:
        kind, count = self.header()
        if kind in _NUMBERS and count is not None:
            return self.numbers(kind, count)
        found: list[Any] = []
        while count is None or len(found) < count:
            marker = kind or self.marker()
            if count is None and marker == "]":
                break
            found.append(self.value(marker, depth + 1))
        return found

    def object(self, depth: int) -> dict[str, Any]:
        kind, count = self.header()
        found: dict[str, Any] = {}
        read = 0
        while count is None or read < count:
            if count is None and chr(self.data[self.at]) == "}":
                self.at += 1
                break
            name = self.text(self.length())
            found[name] = self.value(kind or self.marker(), depth + 1)
            read += 1
        return found

    def header(self) -> tuple[str, int | None]:
        """Return the type (or nothing) and the count (or None) that a container announces."""
        kind = ""
        if chr(self.data[self.at]) == "$":
            self.at += 1
            kind = self.marker()
            if chr(self.data[self.at]) != "#":
                raise ValueError(f"a type without a count at byte {self.at}")
        if chr(self.data[self.at]) == "#":
            self.at += 1
            return kind, self.length()
        return kind, None

    def length(self) -> int:
        marker = self.marker()
        if marker not in _INTEGERS:
            raise ValueError(f"a length of type {marker!r} at byte {self.at - 1}")
        count = int(self.numbers(marker, 1)[0])
        if not 0 <= count <= len(self.data):
            raise ValueError(f"a length of {count} at byte {self.at}")
        return count

    def text(self, length: int) -> str:
        return self.take(length).decode()

    def numbers(self, marker: str, count: int) -> Any:
        kind = np.dtype(_NUMBERS[marker])
        raw = self.take(kind.itemsize * count)
        return np.frombuffer(raw, kind).astype(kind.newbyteorder("="))

    def take(self, size: int) -> bytes:
        taken = self.data[self.at : self.at + size]
        if len(taken) < size:
            raise ValueError(f"cut at byte {len(self.data)}")
        self.at += size
        return taken
