"""What cards tell about themselves, in our words: their clocks, and how two are connected."""

from dataclasses import dataclass

__all__ = ["DeviceHealth", "Wiring"]

_SLOWED = frozenset(
    {"hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"}
)


@dataclass(frozen=True, slots=True)
class DeviceHealth:
    """A card at one moment.

    Attributes
    ----------
    sm_clock_mhz, memory_clock_mhz
        Now.
    sm_clock_max_mhz
        The most it can do.
    temperature_c
        Of the chip.
    held_back_by
        Why the clocks are not higher, in NVML's words.
    """

    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    sm_clock_max_mhz: int | None
    temperature_c: int | None
    held_back_by: tuple[str, ...]

    @property
    def is_throttled(self) -> bool:
        """Whether heat or power slows the card down."""
        return any(reason in _SLOWED for reason in self.held_back_by)


@dataclass(frozen=True, slots=True)
class Wiring:
    """How two cards are connected.

    Attributes
    ----------
    kind
        ``NVLink`` or ``PCIe``.
    bandwidth_gb_s
        In one direction, as the standard gives it; measured figures are lower.
    detail
        Number and version of the links, or generation and lanes.
    """

    kind: str
    bandwidth_gb_s: float
    detail: str
