"""What was compiled before, on disk: kernels for all networks, and whole builds.

Two bounded stores (`hios.entry_store`) under one folder. ``kernels`` holds object files by the
structural hash of the scheduled kernel; ``builds`` holds lowered networks by the content of the
model, so that building one again skips importing, passes and LLVM alike.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tvm

from hios.cache_folder import compile_stores
from hios.ir import CompiledGraph
from relay_passes.build_environment import is_observed, lowering_fingerprint
from relay_passes.build_record import decode_build, encode_build
from relay_passes.library import TvmKernelLibrary
from relay_passes.linked_library import LinkedKernelLibrary
from relay_passes.model_digest import model_digest

__all__ = ["CompileCache"]


class CompileCache:
    """Kernels and builds under one folder.

    Parameters
    ----------
    folder : Path
        Where; made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.kernels, self.builds = compile_stores(folder)

    def build_key(
        self,
        model: Any,
        target: tvm.target.Target,
        shapes: Mapping[str, tuple[int, ...]] | None,
        name: str | None,
        merges: Sequence[Sequence[str]],
        variant: str,
    ) -> str | None:
        """Return the key of a build; None where it cannot be kept.

        Parameters
        ----------
        model, target, shapes, name, merges
            As for `relay_passes.compile_graph`.
        variant : str
            What tells kinds of builds apart that agree in all else.
        """
        content = None if is_observed() else model_digest(model)
        if content is None:
            return None
        parts = [
            content,
            str(target),
            sorted((key, list(value)) for key, value in (shapes or {}).items()),
            name,
            [list(merge) for merge in merges],
            variant,
            lowering_fingerprint(),
        ]
        return f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]}.build"

    def load_build(self, key: str | None) -> CompiledGraph | None:
        """Return a build that was kept, or None."""
        data = None if key is None else self.builds.get(key)
        return None if data is None else decode_build(data)

    def keep_build(self, key: str | None, compiled: CompiledGraph) -> None:
        """Keep a build, unless it alone would push most others out."""
        if key is None:
            return
        library = _linked(compiled.library)
        if library is None:
            return
        size = len(library) + sum(value.nbytes for value in compiled.params.values())
        if size <= self.builds.limit_bytes // 2:
            self.builds.put(key, *encode_build(compiled, library))

    def trim(self) -> None:
        """Bring both stores back below their limits, after a build."""
        self.kernels.trim()
        self.builds.trim()


def _linked(library: Any) -> Any:
    """Return kernels as a shared library, or None where they are not machine code alone."""
    if isinstance(library, LinkedKernelLibrary):
        return library.data
    if not isinstance(library, TvmKernelLibrary) or library.cubin is None:
        return None
    with tempfile.TemporaryDirectory(prefix="hios-link-") as folder:
        path = Path(folder) / "kernels.so"
        library.export(path)
        return path.read_bytes()
