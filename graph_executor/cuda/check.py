"""The one place where answers of CUDA are looked at.

cuda-core raises, cuda-bindings returns a code first; both become `CudaFailed` here, with the
call, the device and CUDA's own name for what went wrong.
"""

from collections.abc import Callable
from typing import Any

from cuda.bindings import driver, runtime
from cuda.core._utils.cuda_utils import CUDAError

from graph_executor.cuda.driver import CudaFailed

__all__ = ["check"]

_EXPLAIN = {
    runtime.cudaError_t: runtime.cudaGetErrorString,
    driver.CUresult: driver.cuGetErrorString,
}


def check(device: int | None, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call CUDA and return what it answers.

    Parameters
    ----------
    device
        Ordinal of the device it is for, for the message.
    call
        A function of ``cuda.bindings.runtime`` or ``.driver``, or anything of cuda-core.
    arguments, named
        Handed on.

    Returns
    -------
    Any
        The answer without its error code: None, the only value, or a tuple of values.

    Raises
    ------
    CudaFailed
        When CUDA says that it failed.
    """
    name = getattr(call, "__name__", type(call).__name__)
    try:
        answer = call(*arguments, **named)
    except CUDAError as problem:
        code, _, text = str(problem).partition(":")
        raise CudaFailed(name, device, code.strip(), _first_line(text)) from problem
    except RuntimeError as problem:  # the driver library is missing or of another age
        raise CudaFailed(name, device, type(problem).__name__, _first_line(problem)) from problem
    if not (isinstance(answer, tuple) and answer and type(answer[0]) in _EXPLAIN):
        return answer
    error, *values = answer
    if int(error) != 0:
        _, text = _EXPLAIN[type(error)](error)
        said = text.decode() if isinstance(text, bytes) else "no reason given"
        raise CudaFailed(name, device, error.name, said)
    if not values:
        return None
    return values[0] if len(values) == 1 else tuple(values)


def _first_line(problem: object) -> str:
    lines = str(problem).strip().splitlines()
    return lines[0] if lines else "no reason given"
