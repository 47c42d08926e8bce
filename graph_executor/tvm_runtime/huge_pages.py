"""Large pages for large memory."""

import ctypes
from typing import Any

import numpy.typing as npt

__all__ = ["prefer_huge_pages"]

_PAGE_BYTES = 2 << 20
_MADV_HUGEPAGE = 14


def prefer_huge_pages(data: npt.NDArray[Any]) -> None:
    """Ask for huge pages: weights of tens of megabytes otherwise miss the TLB all the time."""
    advise = getattr(ctypes.CDLL(None), "madvise", None)
    start = -(-data.ctypes.data // _PAGE_BYTES) * _PAGE_BYTES
    end = (data.ctypes.data + data.nbytes) // _PAGE_BYTES * _PAGE_BYTES
    if advise is not None and end > start:
        # A hint: where the kernel refuses, small pages are as right.
        advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_HUGEPAGE)
