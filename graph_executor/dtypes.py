"""Tensor dtypes as numpy sees them."""

from typing import Any

import numpy as np

from hios.errors import UnsupportedModel

__all__ = ["numpy_dtype"]


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the numpy dtype of a TVM dtype name, ``bfloat16`` and the float8 kinds included.

    Raises
    ------
    UnsupportedModel
        When numpy has none.
    """
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        found = getattr(ml_dtypes, name, None)
        if found is None:
            raise UnsupportedModel(
                f"dtype {name!r} has no numpy equivalent; use float, int or bool tensors"
            ) from None
        kind: np.dtype[Any] = np.dtype(found)
        return kind
