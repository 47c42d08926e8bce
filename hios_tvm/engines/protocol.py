"""What a comparison needs from an engine, and from whoever can open one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from hios_tvm.engines.subject import Subject

__all__ = ["TOLERANCES", "Arrays", "Contender", "Engine", "Precision", "needs"]

Arrays = Mapping[str, npt.NDArray[Any]]
"""Inputs by the names of the model's signature."""

Precision = Literal["fp32", "tf32", "fp16"]
"""In which an engine multiplies."""

TOLERANCES: Mapping[Precision, float] = {"fp32": 1e-3, "tf32": 1e-2, "fp16": 3e-2}
"""Largest ‖out − ref‖ / ‖ref‖ over all outputs that counts as the same answer."""


class Engine(Protocol):
    """One way to run a model."""

    @property
    def name(self) -> str:
        """Row label of a comparison."""
        ...

    def run(self, inputs: Arrays) -> Sequence[np.ndarray[Any, np.dtype[Any]]]:
        """Run once and return the outputs in the order of the model's signature."""
        ...

    def close(self) -> None:
        """Release threads and memory; further runs are errors."""
        ...


@dataclass(frozen=True, slots=True)
class Contender:
    """An engine that may enter a comparison: what it is called and how it is opened.

    Attributes
    ----------
    key
        On the command line, unique: ``ort-parallel``.
    family
        Several of one make: ``ort``.
    label
        Row label where it is absent; an opened engine may say more (a version, a choice).
    settings
        Threads and whatever else its time depends on.
    absence
        Returns why it cannot run this network here, with the remedy, or None where it can.
        Looks only; never raises.
    open
        Returns the engine, ready to run; called after `absence` returned None.
    precision
        In which it multiplies.
    note
        What a reader must know beside its figures.
    """

    key: str
    family: str
    label: str
    settings: str
    absence: "Callable[[Subject], str | None]"
    open: "Callable[[Subject], Engine]"
    precision: Precision = "fp32"
    note: str = ""


def needs(module: str, package: str) -> str | None:
    """Return what to install where a module cannot be found; it is not imported.

    Examples
    --------
    >>> needs("json", "json"), needs("no_such_module", "no-such-package")
    (None, 'no-such-package is not installed; run: pip install no-such-package')
    """
    import importlib.util

    try:
        found = importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # a parent package is missing or broken
        found = False
    return None if found else f"{package} is not installed; run: pip install {package}"
