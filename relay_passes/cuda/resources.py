"""What each kernel of a cubin takes of a multiprocessor, read from the ELF file itself.

The registers and the frame of each function stand in the section ``.nv.info`` as attributes
``EIATTR_REGCOUNT`` (0x2f) and ``EIATTR_FRAME_SIZE`` (0x11), each a symbol and a number; static
shared memory is the size of ``.nv.shared.NAME``, in which code for compute capability 9.0 and
up counts 1 KiB that the system keeps for itself (CUDA C++ Programming Guide, "Shared Memory" of
compute capability 9.0). ``cuobjdump --dump-resource-usage`` tells the same; not every toolkit
has it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hios.errors import InvalidGraph

__all__ = ["KernelResources", "read_resources"]

_REGCOUNT, _FRAME_SIZE = 0x2F, 0x11
_SYSTEM_SHARED_BYTES = 1024


@dataclass(frozen=True, slots=True)
class KernelResources:
    """Static resources of one kernel.

    Attributes
    ----------
    registers
        32-bit registers of a thread.
    shared_bytes
        Static shared memory of a block, without what the system keeps.
    local_bytes
        Stack frame of a thread: arrays that are indexed at run time, and spilled registers.
    """

    registers: int
    shared_bytes: int
    local_bytes: int


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    offset: int
    size: int
    link: int


def read_resources(cubin: bytes, arch: str) -> dict[str, KernelResources]:
    """Return the resources of every kernel, by its name in the cubin.

    Parameters
    ----------
    cubin : bytes
        A 64-bit little-endian ELF file.
    arch : str
        What it was made for; decides how much shared memory the system keeps.

    Raises
    ------
    InvalidGraph
        When it is no cubin.
    """
    if cubin[:6] != b"\x7fELF\x02\x01":
        raise InvalidGraph("CUDA machine code is no 64-bit ELF file; compile the kernels anew")
    sections = _sections(cubin)
    by_name = {section.name: section for section in sections}
    info = by_name.get(".nv.info")
    if info is None:
        return {}
    symbols = _symbols(cubin, sections)
    facts: dict[str, dict[int, int]] = {}
    at, end = info.offset, info.offset + info.size
    while at < end:
        form, attribute = cubin[at], cubin[at + 1]
        if form != 4:  # a small value in the attribute itself
            at += 4
            continue
        (size,) = struct.unpack_from("<H", cubin, at + 2)
        if attribute in (_REGCOUNT, _FRAME_SIZE):
            symbol, value = struct.unpack_from("<II", cubin, at + 4)
            facts.setdefault(symbols[symbol], {})[attribute] = value
        at += 4 + size
    kept = _SYSTEM_SHARED_BYTES if int(arch.removeprefix("sm_")) >= 90 else 0
    found = {}
    for name, fact in facts.items():
        if f".text.{name}" not in by_name:
            continue
        shared = by_name.get(f".nv.shared.{name}")
        found[name] = KernelResources(
            registers=fact.get(_REGCOUNT, 0),
            shared_bytes=0 if shared is None else max(0, shared.size - kept),
            local_bytes=fact.get(_FRAME_SIZE, 0),
        )
    return found


def _sections(elf: bytes) -> list[_Section]:
    (start,) = struct.unpack_from("<Q", elf, 0x28)
    entry, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    rows = [struct.unpack_from("<IIQQQQII", elf, start + entry * i) for i in range(count)]
    strings = rows[names][4]
    return [_Section(_text(elf, strings + r[0]), r[4], r[5], r[6]) for r in rows]


def _symbols(elf: bytes, sections: list[_Section]) -> list[str]:
    table = next(section for section in sections if section.name == ".symtab")
    strings = sections[table.link].offset
    return [
        _text(elf, strings + struct.unpack_from("<I", elf, at)[0])
        for at in range(table.offset, table.offset + table.size, 24)
    ]


def _text(elf: bytes, at: int) -> str:
    return elf[at : elf.index(b"\0", at)].decode()
