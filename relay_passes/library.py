"""The kernels of a graph as one compiled TVM module."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import tvm

from hios.errors import StorageError
from hios.linking import check_linking, linking_failure

__all__ = ["TvmKernelLibrary"]


class TvmKernelLibrary:
    """Kernels compiled in this process (`hios.ir.KernelLibrary`).

    Parameters
    ----------
    executable : tvm.runtime.Executable
        Result of `tvm.compile` on a module of PrimFuncs.
    target : tvm.target.Target
        What it was compiled for.
    """

    def __init__(self, executable: Any, target: tvm.target.Target) -> None:
        self._executable = executable
        self._target = target
        self._module: Any = None

    @property
    def target(self) -> str:
        """The target as JSON."""
        return str(self._target)

    @property
    def tvm_version(self) -> str:
        """The version of the installed TVM."""
        return str(tvm.__version__)

    @property
    def module(self) -> Any:
        """The runtime module; kernels by name, destination-passing style."""
        if self._module is None:
            self._module = self._executable.jit()
        return self._module

    def export(self, path: Path) -> None:
        """Write the kernels as a shared library, whole or not at all.

        Raises
        ------
        StorageError
            When the file cannot be written, or object files in the temporary folder.
        MissingDependency
            When there is no C compiler to link with.
        """
        check_linking()
        try:
            handle, name = tempfile.mkstemp(suffix=".so", dir=path.parent)
            os.close(handle)
        except OSError as error:
            raise StorageError(f"cannot write kernels to {path}: {error.strerror}") from None
        temporary = Path(name)
        try:
            self._executable.export_library(str(temporary))
            temporary.replace(path)
        except (OSError, RuntimeError, ValueError) as error:
            raise StorageError(
                f"cannot link kernels to {path}: {linking_failure(error)}; a C compiler (cc) and "
                "space are needed"
            ) from None
        finally:
            temporary.unlink(missing_ok=True)
