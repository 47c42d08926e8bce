"""Where hios-tvm keeps what outlives a command."""

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """Return the folder of measurements: ``$XDG_CACHE_HOME/hios-tvm`` or ``~/.cache/hios-tvm``.

    It is not created here. By the XDG base directory specification a relative
    ``XDG_CACHE_HOME`` is ignored.
    """
    root = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(root) if os.path.isabs(root) else Path.home() / ".cache"
    return base / "hios-tvm"
