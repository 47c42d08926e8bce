"""Where this program keeps what it can make again: measured times and compiled kernels."""

import os
from pathlib import Path

__all__ = ["default_cache_dir"]


def default_cache_dir() -> Path:
    """Return the user's cache folder for this program, as the XDG convention has it."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "hios-tvm"
