"""Facts about the machine this runs on, without TVM."""

import platform
from pathlib import Path

__all__ = ["cpu_name", "host_features"]

_VECTOR_PREFIXES = ("avx", "amx", "fma", "f16c")
_CPUINFO = Path("/proc/cpuinfo")


def host_features() -> frozenset[str] | None:
    """Return the vector extensions of this CPU in LLVM's spelling; None where unknown."""
    for line in _lines():
        if line.startswith("flags"):
            return vector_features(line.partition(":")[2].split())
    return None


def vector_features(names: list[str]) -> frozenset[str]:
    """Return the vector extensions among CPU features, in LLVM's spelling (no underscores)."""
    plain = (name.replace("_", "") for name in names)
    return frozenset(name for name in plain if name.startswith(_VECTOR_PREFIXES))


def cpu_name() -> str:
    """Return the model of this CPU, to tell measurements of different machines apart."""
    for line in _lines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _lines() -> list[str]:
    try:
        return _CPUINFO.read_text().splitlines()
    except OSError:
        return []
