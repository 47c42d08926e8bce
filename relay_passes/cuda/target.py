"""The CUDA targets that a user may name: ``cuda``, ``cuda:sm_80``, ``cuda:sm_90``.

An architecture is the machine code that ptxas makes: code for ``sm_80`` also runs on the other
GPUs of compute capability 8.x, that for ``sm_90`` on 9.x alone (CUDA C++ Programming Guide,
"Binary Compatibility").
"""

from __future__ import annotations

import tvm

from hios.errors import InvalidOption

__all__ = ["ARCHITECTURES", "DEFAULT_ARCHITECTURE", "cuda_target"]

ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90")
"""Architectures with kernel rules; those that this machine's compiler can make."""

DEFAULT_ARCHITECTURE = "sm_90"
"""Taken where nothing says which GPU it will be."""


def cuda_target(text: str) -> tvm.target.Target:
    """Return the target of ``cuda`` or ``cuda:ARCH``.

    Parameters
    ----------
    text : str
        ``ARCH`` is one of `ARCHITECTURES`; without it `DEFAULT_ARCHITECTURE`.

    Raises
    ------
    InvalidOption
        For an unknown architecture, naming those that are allowed.
    """
    _, colon, arch = text.partition(":")
    arch = arch if colon else DEFAULT_ARCHITECTURE
    if arch not in ARCHITECTURES:
        raise InvalidOption(
            f"target {text!r}: {arch!r} is no CUDA architecture with kernel rules; use cuda:ARCH "
            f"with ARCH one of {', '.join(ARCHITECTURES)}"
        )
    return tvm.target.Target(
        {
            "kind": "cuda",
            "arch": arch,
            "max_threads_per_block": 1024,
            "max_shared_memory_per_block": 49152,
            "thread_warp_size": 32,
        }
    )
