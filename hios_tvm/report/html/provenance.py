"""How a report came to be: the commands, the versions, the host and the date."""

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import hios
from hios_tvm.report.html.data import Provenance

__all__ = ["provenance"]

_PACKAGES = ("apache-tvm", "numpy", "xgboost", "onnxruntime", "ortools")


def provenance(commands: Mapping[str, str]) -> Provenance:
    """Describe this process.

    Parameters
    ----------
    commands
        Command lines by what they made; empty ones are left out.
    """
    versions = [("hios-tvm", hios.__version__)]
    for package in _PACKAGES:
        try:
            versions.append((package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            continue
    versions.append(("Python", platform.python_version()))
    return Provenance(
        commands=tuple((label, line) for label, line in commands.items() if line),
        versions=tuple(versions),
        host=f"{_cpu()}, {platform.system()} {platform.machine()}",
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or "unknown processor"
