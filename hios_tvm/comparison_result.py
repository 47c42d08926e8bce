"""What a comparison says, as plain data: the JSON of `hios compare`, with its schema.

The published schemas (``hios_tvm/schemas``) are made of these classes; a test holds both together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

__all__ = [
    "FORMAT",
    "ComparisonResult",
    "EngineRow",
    "HostFacts",
    "InputFacts",
    "Verdict",
    "json_schema",
]

FORMAT = 1
"""Version of the layout below; grows when a field changes its meaning or goes."""

Status = Literal["measured", "differs", "absent"]


@dataclass(frozen=True, slots=True)
class InputFacts:
    """One input, the same for all engines: normal random numbers from a seed."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Where it was measured: processor, its vector extensions, cores used, versions by package.

    Virtual machines call many processors by one name; the extensions tell them apart.
    """

    cpu: str
    cores: tuple[int, ...]
    system: str
    python: str
    vectors: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineRow:
    """One engine. Times in microseconds; what was not measured or is not told is null.

    ``status`` is ``measured``; ``differs`` when its outputs are not the reference's within the
    tolerance; ``absent`` when it did not run, and ``remedy`` says what would make it.
    ``speedup`` is the baseline's median over this one's, with a 90 % bootstrap interval.
    ``relative_error`` is ‖out − ref‖ / ‖ref‖ over all outputs. ``lingering_us`` is the processor
    time that its threads went on using after a turn.
    """

    key: str
    family: str
    name: str
    precision: str
    settings: str
    status: Status
    note: str = ""
    remedy: str | None = None
    runs: int = 0
    median_us: float | None = None
    p10_us: float | None = None
    p90_us: float | None = None
    p99_us: float | None = None
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    relative_error: float | None = None
    tolerance: float | None = None
    energy_j: float | None = None
    lingering_us: float | None = None
    samples_us: tuple[float, ...] = ()

    @property
    def title(self) -> str:
        """The name, and the precision where it is not float32."""
        return self.name if self.precision == "fp32" else f"{self.name}, {self.precision}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many times faster ours is than a rival (90 % interval): its median over ours."""

    ours: str
    rival: str
    ratio: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """One comparison: one network, one process, all engines taking turns."""

    model: str
    operators: int
    devices: tuple[str, ...]
    streams: int
    inputs: tuple[InputFacts, ...]
    seed: int
    host: HostFacts
    date: str
    command: str
    baseline: str
    reference: str
    energy_source: str | None
    rows: tuple[EngineRow, ...]
    verdicts: tuple[Verdict, ...] = ()
    hios_tvm: str = ""
    format: int = FORMAT

    def row(self, key: str) -> EngineRow | None:
        """Return the row of an engine, or None where it did not take part."""
        return next((row for row in self.rows if row.key == key), None)

    def measured(self, family: str | None = None) -> Sequence[EngineRow]:
        """Return the rows that have times, fastest first."""
        rows = [
            row for row in self.rows if row.median_us is not None and family in (None, row.family)
        ]
        return sorted(rows, key=lambda row: row.median_us or 0.0)


def json_schema(kind: type[Any], title: str) -> bytes:
    """Return the JSON Schema (2020-12) of a result, as it is published.

    Parameters
    ----------
    kind
        `ComparisonResult`, or another class of results.
    title
        What prints it.
    """
    made = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **msgspec.json.schema(kind),
    }
    return msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n"
