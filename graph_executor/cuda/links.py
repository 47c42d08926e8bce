"""Measured links between CUDA devices: copies one after another on a stream, between two events.

What is measured is what the backend does: a copy on a stream of the source, in memory that the
destination may access. Each time stands for many copies in a row, so the events cost nothing.
"""

from collections.abc import Sequence
from dataclasses import replace

from graph_executor.cuda.devices import check_devices, peers_of
from graph_executor.cuda.driver import Driver, Region
from graph_executor.cuda.stopwatch import Stopwatch
from graph_executor.links import fit_link
from graph_executor.measure_cache import CachedLink
from hios.ir.machine import Machine
from hios.statistics import Samples

__all__ = ["LINK_SIZES", "measure_cuda_links"]

LINK_SIZES = (4 << 10, 64 << 10, 512 << 10, 4 << 20, 32 << 20)
_REPEATS = 15


def measure_cuda_links(
    driver: Driver, machine: Machine, sizes_bytes: Sequence[int] = LINK_SIZES
) -> Machine:
    """Return the machine with its links measured.

    Parameters
    ----------
    driver
        CUDA.
    machine
        Devices of kind ``cuda``; its links are replaced by what was measured between the same
        two devices.
    sizes_bytes
        Of the copies that a link's latency and bandwidth are fitted to.

    Raises
    ------
    DeviceUnavailable
        When a device is not there.
    """
    ordinals = check_devices(driver, machine)
    known: dict[tuple[int, int], CachedLink] = {}
    links = []
    for link in machine.links:
        pair = (ordinals[link.src], ordinals[link.dst])
        if pair not in known:
            known[pair] = fit_link(sizes_bytes, _measure(driver, ordinals, pair, sizes_bytes))
        found = known[pair]
        links.append(
            replace(
                link,
                bandwidth_gb_s=found.bandwidth_gb_s,
                latency_us=found.latency_us,
                source=f"measured between cuda:{pair[0]} and cuda:{pair[1]}",
            )
        )
    return replace(machine, links=tuple(links))


def _measure(
    driver: Driver, ordinals: Sequence[int], pair: tuple[int, int], sizes_bytes: Sequence[int]
) -> list[float]:
    source, target = pair
    size = max(sizes_bytes)
    everyone = tuple(ordinals)
    one = driver.allocate(source, size, peers_of(driver, everyone, source))
    try:
        two = driver.allocate(target, size, peers_of(driver, everyone, target))
        try:
            watch = Stopwatch(driver, source)
            try:
                return [
                    _time(driver, watch, one.part(0, part), two.part(0, part))
                    for part in sizes_bytes
                ]
            finally:
                watch.close()
        finally:
            driver.destroy(two)
    finally:
        driver.destroy(one)


def _time(driver: Driver, watch: Stopwatch, source: Region, target: Region) -> float:
    # Once outside of a capture: the first copy between two devices sets things up.
    driver.copy(target, source, watch.origin)
    driver.sync(watch.origin)
    piece = watch.capture(lambda: driver.copy(target, source, watch.origin))
    times = [watch.time_us(piece) for _ in range(_REPEATS)]
    watch.forget(piece)
    return Samples.of(times).median_us
