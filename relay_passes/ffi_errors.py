"""Our errors keep their type when they cross TVM's foreign function interface.

A pass written in Python is called from C++: without registration, whatever it raises arrives at
the caller as a RuntimeError.
"""

from __future__ import annotations

import tvm_ffi

from hios import errors

__all__ = ["register_errors"]


def register_errors() -> None:
    """Register every `HiosError` with TVM; doing it again changes nothing."""
    for name in errors.__all__:
        kind = getattr(errors, name)
        tvm_ffi.register_error(name, kind)
