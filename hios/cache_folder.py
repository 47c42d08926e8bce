"""Where this program keeps what it can make again: measured times and compiled kernels.

==============  ==================================================================
``*.json``      measured times of operators and links
``kernels/``    compiled kernels, at most `KERNEL_LIMIT_BYTES`
``builds/``     whole lowered networks with their weights, at most `BUILD_LIMIT_BYTES`
``schedules/``  decisions, at most `SCHEDULE_LIMIT_BYTES`
==============  ==================================================================
"""

import os
from pathlib import Path

from hios.entry_store import EntryStore

__all__ = [
    "BUILD_LIMIT_BYTES",
    "KERNEL_LIMIT_BYTES",
    "SCHEDULE_LIMIT_BYTES",
    "compile_stores",
    "default_cache_dir",
    "schedule_store",
]

KERNEL_LIMIT_BYTES = 256 << 20
"""Object files of some 10,000 kernels."""

BUILD_LIMIT_BYTES = 2 << 30
"""Some twenty networks of the size of Inception v3."""

SCHEDULE_LIMIT_BYTES = 64 << 20
"""Some thousand schedules."""


def default_cache_dir() -> Path:
    """Return the user's cache folder for this program, as the XDG convention has it."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "hios-tvm"


def compile_stores(folder: Path) -> tuple[EntryStore, EntryStore]:
    """Return the stores of compiled kernels and of whole builds under a cache folder."""
    return (
        EntryStore(folder / "kernels", KERNEL_LIMIT_BYTES),
        EntryStore(folder / "builds", BUILD_LIMIT_BYTES),
    )


def schedule_store(folder: Path) -> EntryStore:
    """Return the store of decided schedules under a cache folder."""
    return EntryStore(folder / "schedules", SCHEDULE_LIMIT_BYTES)
