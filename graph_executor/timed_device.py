"""Where and how groups of operators are timed: what their times depend on besides themselves.

Records of measured groups keep it as it is (`cost_model.records`), so new optional fields may be
added, and a field never changes its meaning.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Cache", "Mode", "TimedDevice"]

Mode = Literal["eager", "graph"]
"""How groups are launched: one call after another, or as one replayed graph."""

Cache = Literal["warm", "cold"]
"""What the last-level cache holds at the start: the data of the run before, or nothing of it."""


@dataclass(frozen=True, slots=True)
class TimedDevice:
    """What is known of the device that runs groups.

    Attributes
    ----------
    name
        Model of the CPU or GPU; cost models are trained and chosen by it.
    kind
        ``cpu`` or ``cuda``.
    uuid
        The one piece of hardware, where it tells; empty otherwise.
    units
        Multiprocessors, or cores that the device owns.
    clock_mhz
        0 where unknown.
    bandwidth_gb_s, peak_gflops
        Of the whole device; measured or from a data sheet, None where unknown.
    cache_bytes
        Last-level cache that the device can use; 0 where unknown.
    limits
        Per multiprocessor ``threads``, ``blocks``, ``registers``, ``shared_bytes``; CUDA only.
    """

    name: str
    kind: str
    uuid: str
    units: int
    clock_mhz: int = 0
    bandwidth_gb_s: float | None = None
    peak_gflops: float | None = None
    cache_bytes: int = 0
    limits: Mapping[str, int] = field(default_factory=dict)
