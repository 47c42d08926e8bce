"""Opening the CUDA of this machine, without importing it where it is not installed."""

import functools
from importlib.util import find_spec

from graph_executor.cuda.driver import Driver
from hios.errors import MissingDependency

__all__ = ["is_installed", "open_driver"]


def is_installed() -> bool:
    """Return whether cuda-core and cuda-bindings are there; says nothing about a driver."""
    if find_spec("cuda") is None:
        return False
    return find_spec("cuda.core") is not None and find_spec("cuda.bindings") is not None


@functools.cache
def open_driver() -> Driver:
    """Return the CUDA of this machine; without a driver it has no devices.

    Raises
    ------
    MissingDependency
        When cuda-core or cuda-bindings is not installed.
    """
    if not is_installed():
        raise MissingDependency(
            "CUDA devices need cuda-core and cuda-bindings; python -m pip install 'hios-tvm[cuda]'"
        )
    from graph_executor.cuda.cuda_driver import CudaDriver

    return CudaDriver()
