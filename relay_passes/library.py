"""The kernels of a graph as one compiled TVM module."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import tvm

from hios.errors import StorageError
from hios.linking import check_linking, linking_failure
from relay_passes.cuda.packing import pack_imports

__all__ = ["TvmKernelLibrary"]


class TvmKernelLibrary:
    """Kernels compiled in this process (`hios.ir.KernelLibrary`).

    Parameters
    ----------
    executable : tvm.runtime.Executable
        Result of `tvm.compile` on a module of PrimFuncs.
    target : tvm.target.Target
        What it was compiled for.
    cubin : bytes, optional
        Machine code of its CUDA kernels, which takes the place of their source.
    """

    def __init__(
        self, executable: Any, target: tvm.target.Target, cubin: bytes | None = None
    ) -> None:
        self._executable = executable
        self._target = target
        self._cubin = cubin
        self._module: Any = None

    @property
    def cubin(self) -> bytes | None:
        """Machine code of its CUDA kernels, where it has some."""
        return self._cubin

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
            if self._cubin is None:
                self._module = self._executable.jit()
            else:
                # TVM can only load machine code from a library: run what an artifact would hold.
                with tempfile.TemporaryDirectory(prefix="hios-kernels-") as folder:
                    path = Path(folder, "kernels.so")
                    self.export(path)
                    self._module = tvm.runtime.load_module(str(path))
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
            packing = {} if self._cubin is None else {"fpack_imports": pack_imports(self._cubin)}
            self._executable.export_library(str(temporary), **packing)
            temporary.replace(path)
        except (OSError, RuntimeError, ValueError) as error:
            raise StorageError(
                f"cannot link kernels to {path}: {linking_failure(error)}; a C compiler (cc) and "
                "space are needed"
            ) from None
        finally:
            temporary.unlink(missing_ok=True)
