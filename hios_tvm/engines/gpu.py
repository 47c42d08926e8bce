"""Whether an NVIDIA GPU is here, found without any package."""

import shutil
import subprocess
from functools import cache

__all__ = ["first_lack", "lacks_nvidia_gpu"]

_TIMEOUT_S = 20


@cache
def lacks_nvidia_gpu() -> str | None:
    """Return why no NVIDIA GPU can be used, or None where one is here."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "no NVIDIA driver here (no nvidia-smi); needs an NVIDIA GPU"
    try:
        answer = subprocess.run(
            [tool, "-L"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return f"{tool} does not answer; see `hios doctor`"
    if answer.returncode != 0 or "GPU 0" not in answer.stdout:
        return "an NVIDIA driver but no GPU that answers; see `hios doctor`"
    return None


def first_lack(package: str | None) -> str | None:
    """Return what an engine on a GPU lacks: the GPU and, in the same breath, its package.

    Parameters
    ----------
    package
        What `hios_tvm.engines.protocol.needs` says of the package.
    """
    gpu = lacks_nvidia_gpu()
    if gpu is not None and package is not None:
        return f"{gpu}; besides, {package}"
    return gpu or package
