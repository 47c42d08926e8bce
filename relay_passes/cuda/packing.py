"""Put a cubin into an exported library in the place of CUDA source.

Without a GPU, TVM's CUDA module keeps its source and has it compiled when the library is loaded.
What TVM links into a library is one blob: the total length, the tree of imported modules, and
each module's own bytes. A CUDA module's bytes are a format name, the launch parameters of its
kernels, and the code (`CUDAModuleNode::SaveToBytes`); only the first and the last change here,
from ``cuda`` and the source to ``cubin`` and the machine code, which the runtime hands to the
driver as it is. Strings and vectors carry their length as a 64-bit little-endian number.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tvm_ffi

from hios.errors import StorageError

__all__ = ["device_module", "pack_imports", "pack_with_cubin", "packed_format"]

_SYMBOL = "__tvm_ffi__library_bin"
_OWN_CODE = b"_lib"  # stands for the host code of the library itself, which has no bytes here


def device_module(module: Any) -> Any:
    """Return the one CUDA module that `module` imports, itself or through others, or None."""
    found = [imported for imported in _imports(module) if imported.kind == "cuda"]
    return found[0] if len(found) == 1 else None


def pack_imports(cubin: bytes) -> Callable[[Any, bool, str, str], str]:
    """Return a packer of imported modules for ``export_library(fpack_imports=...)``.

    The packer writes an assembler file that includes the blob; C compilers accept it as they
    accept an object file.
    """

    def pack(module: Any, is_system_lib: bool, prefix: str, folder: str) -> str:
        blob = pack_with_cubin(
            _blob_of(module, is_system_lib, prefix), device_module(module), cubin
        )
        data, text = Path(folder, "devc.bin"), Path(folder, "devc.s")
        data.write_bytes(blob)
        symbol = prefix + _SYMBOL
        text.write_text(
            f'.section .rodata\n.globl {symbol}\n.type {symbol}, "object"\n.balign 64\n{symbol}:\n'
            f'.incbin "{data}"\n.size {symbol}, {len(blob)}\n'
            '.section .note.GNU-stack,"",%progbits\n'
        )
        return str(text)

    return pack


def pack_with_cubin(blob: bytes, device: Any, cubin: bytes) -> bytes:
    """Return `blob` with the source of its CUDA module replaced.

    Parameters
    ----------
    blob : bytes
        Imported modules as TVM packs them.
    device : tvm.runtime.Module
        The CUDA module among them.
    cubin : bytes
        Machine code of all its kernels.

    Raises
    ------
    StorageError
        When the blob has another form than that of the supported TVM.
    """
    source = str(device.inspect_source("cuda")).encode()
    modules = []
    head, parts = _split(blob)
    for kind, data in parts:
        if kind == b"cuda":
            start, end = _string(b"cuda"), _string(source)
            if not (data.startswith(start) and data.endswith(end)):
                raise StorageError(
                    "cannot put machine code into the kernel library: this version of TVM packs "
                    "CUDA modules in another form; install the version in pyproject.toml"
                )
            data = _string(b"cubin") + data[len(start) : -len(end)] + _string(cubin)
        modules.append(_string(kind) + (b"" if kind == _OWN_CODE else _string(data)))
    body = head + b"".join(modules)
    return struct.pack("<Q", len(body)) + body


def packed_format(library: bytes) -> str:
    """Return the format of the CUDA code in a linked library: ``cubin``, ``cuda``, or '' if none.

    The name of the module's kind is followed by the length of its bytes and by the format.
    """
    match = re.search(rb"\x04\0{7}cuda.{8}(?:\x05\0{7}(cubin)|\x04\0{7}(cuda))", library, re.DOTALL)
    return "" if match is None else (match[1] or match[2]).decode()


def _imports(module: Any) -> list[Any]:
    return [part for own in module.imports for part in (own, *_imports(own))]


def _blob_of(module: Any, is_system_lib: bool, prefix: str) -> bytes:
    text = tvm_ffi.get_global_func("runtime.ModulePackImportsToC")(module, is_system_lib, prefix)
    start = text.index("{", text.index(f"{_SYMBOL}[", text.index("const unsigned char")))
    digits = text[start + 1 : text.index("}", start)].replace("0x", "")
    return bytes.fromhex(re.sub(r"[,\s]+", "", digits))


def _split(blob: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Return the import tree as it is, and the kind and bytes of each module."""
    at = 8
    counts = []
    for _ in range(2):  # row pointers and children of the import tree
        (count,) = struct.unpack_from("<Q", blob, at)
        counts.append(count)
        at += 8 + 8 * count
    head, parts = blob[8:at], []
    for _ in range(counts[0] - 1):
        kind, at = _read_string(blob, at)
        data = b""
        if kind != _OWN_CODE:
            data, at = _read_string(blob, at)
        parts.append((kind, data))
    return head, parts


def _read_string(blob: bytes, at: int) -> tuple[bytes, int]:
    (size,) = struct.unpack_from("<Q", blob, at)
    return blob[at + 8 : at + 8 + size], at + 8 + size


def _string(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data
