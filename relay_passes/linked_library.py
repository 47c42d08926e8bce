"""The kernels of a graph as one shared library in memory."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from pathlib import Path
from typing import Any

import tvm

from hios.errors import StorageError
from hios.ir.serial import write_bytes

__all__ = ["LinkedKernelLibrary"]


class LinkedKernelLibrary:
    """Kernels linked in this process or an earlier one (`hios.ir.KernelLibrary`).

    Parameters
    ----------
    data : bytes-like
        The shared library.
    target : str
        What it was compiled for, as TVM's JSON.
    """

    def __init__(self, data: bytes | memoryview, target: str) -> None:
        self.data = data
        self._target = target
        self._lock = threading.Lock()
        self._module: Any = None

    @property
    def target(self) -> str:
        """The target as JSON."""
        return self._target

    @property
    def tvm_version(self) -> str:
        """The version of the installed TVM; the cache keeps apart what others compiled."""
        return str(tvm.__version__)

    @property
    def module(self) -> Any:
        """The runtime module; kernels by name, destination-passing style.

        Raises
        ------
        StorageError
            When there is no space for a copy of the library in the temporary folder.
        """
        with self._lock:
            if self._module is None:
                self._module = self._load()
            return self._module

    def _load(self) -> Any:
        # The dynamic loader knows libraries by their paths, so every load gets one of its own;
        # the mapping outlives the folder.
        name = hashlib.sha256(self.data).hexdigest()[:16]
        try:
            with tempfile.TemporaryDirectory(
                prefix="hios-kernels-", ignore_cleanup_errors=True
            ) as private:
                copy = Path(private) / f"{name}.so"
                copy.write_bytes(self.data)
                return tvm.runtime.load_module(str(copy))
        except OSError as problem:
            raise StorageError(
                f"cannot load kernels from {tempfile.gettempdir()!r}: {problem.strerror}; free "
                "some space there, or set TMPDIR"
            ) from problem

    def export(self, path: Path) -> None:
        """Write the kernels as a shared library, whole or not at all.

        Raises
        ------
        StorageError
            When the file cannot be written.
        """
        write_bytes(path, bytes(self.data))
