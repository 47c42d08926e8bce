"""What the two rooms above hand to each other: a graph and the kernels that it calls.

`relay_passes` makes a `CompiledGraph`, `graph_executor` runs it; neither knows the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hios.ir.graph import OpGraph
from hios.ir.ids import TensorId

__all__ = ["CompiledGraph", "KernelLibrary"]


class KernelLibrary(Protocol):
    """Compiled kernels, callable by name in destination-passing style."""

    @property
    def target(self) -> str:
        """The target as TVM's JSON."""
        ...

    @property
    def tvm_version(self) -> str:
        """The version of TVM that compiled the kernels."""
        ...

    @property
    def module(self) -> Any:
        """The loaded runtime module, or None when there is only a file."""
        ...

    def export(self, path: Path) -> None:
        """Write the kernels as a shared library.

        Raises
        ------
        StorageError
            When it cannot be written.
        """
        ...


@dataclass(frozen=True, slots=True)
class CompiledGraph:
    """A lowered model.

    Attributes
    ----------
    graph
        The operator graph; `Operator.kernel` names functions of the library.
    library
        Its kernels.
    params
        Data of every weight (tensor without producer that is no graph input and no view),
        C-contiguous, with the shape and dtype of the tensor.
    attrs
        Where the model came from, for `inspect` and reports.
    """

    graph: OpGraph
    library: KernelLibrary
    params: Mapping[TensorId, np.ndarray[Any, np.dtype[Any]]]
    attrs: Mapping[str, str] = field(default_factory=dict)
