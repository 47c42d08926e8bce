"""The CUDA targets that a user may name: ``cuda``, ``cuda:sm_80``, ``cuda:sm_90``.

An architecture is the machine code that ptxas makes: code for ``sm_80`` also runs on the other
GPUs of compute capability 8.x, that for ``sm_90`` on 9.x alone (CUDA C++ Programming Guide,
"Binary Compatibility").
"""

from __future__ import annotations

from typing import Any

import tvm

from hios.errors import InvalidOption

__all__ = ["ALLOWS_TF32", "ARCHITECTURES", "DEFAULT_ARCHITECTURE", "allows_tf32", "cuda_target"]

ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90")
"""Architectures with kernel rules; those that this machine's compiler can make."""

DEFAULT_ARCHITECTURE = "sm_90"
"""Taken where nothing says which GPU it will be."""

ALLOWS_TF32 = "tf32"
"""Key of a target whose float32 products may round their factors to ten bits of mantissa."""


def cuda_target(text: str) -> tvm.target.Target:
    """Return the target of ``cuda``, ``cuda:ARCH`` or ``cuda:ARCH,tf32``.

    Parameters
    ----------
    text : str
        ``ARCH`` is one of `ARCHITECTURES`; without it `DEFAULT_ARCHITECTURE`. ``tf32`` lets
        float32 products use tensor cores, with factors rounded to TF32.

    Raises
    ------
    InvalidOption
        For an unknown architecture or option, naming those that are allowed.
    """
    _, _, rest = text.partition(":")
    words = [word.strip() for word in rest.split(",") if word.strip()]
    keys = ["cuda", "gpu"]
    if ALLOWS_TF32 in words:
        words.remove(ALLOWS_TF32)
        keys.insert(0, ALLOWS_TF32)
    arch = words.pop(0) if words else DEFAULT_ARCHITECTURE
    if arch not in ARCHITECTURES or words:
        wrong = arch if arch not in ARCHITECTURES else words[0]
        raise InvalidOption(
            f"target {text!r}: {wrong!r} is no CUDA architecture with kernel rules; use cuda:ARCH "
            f"with one of {', '.join(ARCHITECTURES)}, and {ALLOWS_TF32} after a comma to allow TF32"
        )
    described: dict[str, Any] = {
        "kind": "cuda",
        "keys": keys,
        "arch": arch,
        "max_threads_per_block": 1024,
        "max_shared_memory_per_block": 49152,
        "thread_warp_size": 32,
    }
    return tvm.target.Target(described)


def allows_tf32(target: tvm.target.Target) -> bool:
    """Return whether float32 products may round their factors."""
    return ALLOWS_TF32 in [str(key) for key in target.keys]
