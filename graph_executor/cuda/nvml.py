"""What NVML tells about a GPU: its clocks, why they are held back, and how it is wired.

Measurements record it, so that a time taken on a throttled card can be told from a good one.
Everything here is optional: without NVML, or where a card does not tell, the answer is None.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from cuda.core import Device, system
from cuda.core._utils.cuda_utils import CUDAError
from cuda.core.system.exceptions import NvmlError

from graph_executor.cuda.cards import DeviceHealth, Wiring

__all__ = ["USED", "device_health", "wiring"]

T = TypeVar("T")

USED = (
    "get_clock",
    "current_clock_event_reasons",
    "temperature",
    "get_nvlinks",
    "pci_info",
    "uuid",
)
"""What is asked of ``cuda.core.system.Device``; a test holds it against the installed one."""

# GB/s of one link in one direction, by NVLink version (NVIDIA: P100, V100, A100, H100, B200).
_NVLINK_GB_S = {1: 20.0, 2: 25.0, 3: 25.0, 4: 25.0, 5: 50.0}
# GB/s of one PCI Express lane in one direction, by generation, after line coding.
_PCIE_GB_S = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}


def device_health(ordinal: int) -> DeviceHealth | None:
    """Return clocks, temperature and throttle reasons; None without NVML."""
    card = _ask(lambda: Device(ordinal).to_system_device())
    if card is None:
        return None
    reasons = _ask(lambda: [str(reason) for reason in card.current_clock_event_reasons])
    return DeviceHealth(
        _ask(lambda: int(card.get_clock("sm").get_current_mhz())),
        _ask(lambda: int(card.get_clock("memory").get_current_mhz())),
        _ask(lambda: int(card.get_clock("sm").get_max_mhz())),
        _ask(lambda: int(card.temperature.get_sensor())),
        tuple(sorted(set(reasons or ()) - {"none"})),
    )


def wiring(first: int, second: int) -> Wiring | None:
    """Return how two cards are connected; None without NVML."""
    one = _ask(lambda: Device(first).to_system_device())
    two = _ask(lambda: Device(second).to_system_device())
    if one is None or two is None:
        return None
    status = _ask(lambda: str(system.get_p2p_status(one, two, "nvlink")))
    if status == "ok":
        versions = [version for card in (one, two) if (version := _nvlinks(card))]
        if versions:
            count, generation = min(versions)
            rate = count * _NVLINK_GB_S.get(generation, _NVLINK_GB_S[5])
            return Wiring("NVLink", rate, f"{count} links, version {generation}")
    found = [lanes for card in (one, two) if (lanes := _pcie(card)) is not None]
    if not found:
        return None
    generation, width = min(found)
    rate = width * _PCIE_GB_S.get(generation, _PCIE_GB_S[6])
    return Wiring("PCIe", rate, f"generation {generation}, {width} lanes")


def _nvlinks(card: Any) -> tuple[int, int] | None:
    """Return how many links are up, and their version."""
    versions = _ask(lambda: [int(link.version[0]) for link in card.get_nvlinks() if link.state])
    return (len(versions), min(versions)) if versions else None


def _pcie(card: Any) -> tuple[int, int] | None:
    return _ask(lambda: (int(card.pci_info.max_link_generation), int(card.pci_info.max_link_width)))


def _ask(question: Callable[[], T]) -> T | None:
    """Return what NVML answers; None where it, or the card, cannot."""
    try:
        return question()
    except (NvmlError, CUDAError, RuntimeError, ValueError):
        return None
