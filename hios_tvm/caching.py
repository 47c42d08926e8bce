"""Which cache a user means."""

from os import PathLike
from pathlib import Path
from typing import Literal

from hios.cache_folder import default_cache_dir

__all__ = ["CacheChoice", "cache_folder"]

CacheChoice = str | PathLike[str] | Literal[False] | None
"""A folder; None for the user's cache folder, False for no cache at all."""


def cache_folder(choice: CacheChoice) -> Path | None:
    """Return the folder of measured times, kernels and builds, or None to use none."""
    if choice is False:
        return None
    return default_cache_dir() if choice is None else Path(choice)
