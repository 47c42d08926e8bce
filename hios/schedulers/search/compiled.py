"""The compiler of the inner loops.

Importing this module imports numba; nothing else in `hios` does. With ``NUMBA_DISABLE_JIT=1`` the
same code runs uncompiled and decides the same.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["compiled"]

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile a function at its first call, and keep the result on disk where there is a place.

    Parameters
    ----------
    function
        Over numbers, arrays and named tuples of these.
    """
    try:
        return cast(F, numba.njit(cache=True, error_model="numpy")(function))
    except RuntimeError as problem:
        # Neither the package's folder nor the user's cache can be written.
        if "no locator available" not in str(problem):
            raise
        return cast(F, numba.njit(error_model="numpy")(function))
