"""What the executor needs of a TVM runtime, whatever its generation.

Kernels are called in destination-passing style, inputs first. They refuse tensors whose device
ids differ, on the CPU too, so every logical CPU device has an id of its own and a missing copy
cannot pass unnoticed.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Kernel", "MemoryProtocol", "TvmRuntime"]

Array = npt.NDArray[Any]
Kernel = Callable[..., Any]


class MemoryProtocol(Protocol):
    """One allocation on one device."""

    def tensor(self, offset: int, shape: Sequence[int], dtype: str) -> Any:
        """Return a part of it as a tensor that kernels take."""
        ...

    def array(
        self, offset: int, shape: Sequence[int], dtype: str
    ) -> np.ndarray[Any, np.dtype[Any]]:
        """Return the same part as a numpy array that shares its memory."""
        ...

    def fill(self, byte: int) -> None:
        """Set every byte."""
        ...


class TvmRuntime(Protocol):
    """One generation of TVM; each is a module with these functions, documented in `ffi_tvm`."""

    def Memory(self, kind: str, index: int, size_bytes: int) -> MemoryProtocol:  # noqa: N802
        """Allocate `size_bytes` on the device ``kind:index``."""
        ...

    def runtime_version(self) -> str:
        """Return the version of the TVM that is loaded."""
        ...

    def load_library(self, path: Path, origin: Path | None = None) -> Any:
        """Load an exported kernel library."""
        ...

    def open_executable(self, executable: Any) -> tuple[Callable[[str], Any], Any]:
        """Return a function from names to what an executable carries, and its kernels."""
        ...

    def export_executable(self, executable: Any, path: Path) -> None:
        """Write an executable as a shared library."""
        ...

    def find_kernel(self, module: Any, name: str) -> Kernel:
        """Return the function called `name` of a loaded library."""
        ...

    def bind_launch(self, kernel: Kernel, tensors: Sequence[Any]) -> Callable[[], Any]:
        """Return a call of `kernel` with its tensors."""
        ...

    def bind_copy(self, source: Any, target: Any) -> Callable[[], Any]:
        """Return a call that copies one tensor to another."""
        ...

    def device_tensor(
        self, owner: Any, pointer: int, index: int, shape: Sequence[int], dtype: str
    ) -> Any:
        """Return memory of a CUDA device, which `owner` keeps, as a tensor that kernels take."""
        ...

    def set_stream(self, index: int, handle: int) -> None:
        """Make kernels of the calling thread go to a stream of a CUDA device; 0: the legacy one."""
        ...

    def set_threads(self, cores: Sequence[int]) -> Callable[[], Any]:
        """Return a call that makes the kernels of the calling thread run on `cores`."""
        ...

    def target_features(self, target: str) -> tuple[str, ...]:
        """Return the vector extensions that kernels for an LLVM target may use."""
        ...
