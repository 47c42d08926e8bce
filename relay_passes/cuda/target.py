"""The CUDA targets that a user may name: ``cuda``, ``cuda:sm_80``, ``cuda:sm_90``.

An architecture is the machine code that ptxas makes: code for ``sm_80`` also runs on the other
GPUs of compute capability 8.x, that for ``sm_90`` on 9.x alone (CUDA C++ Programming Guide,
"Binary Compatibility").

That float32 products may be rounded to TF32 is part of the target, one of its keys: so it is part
of every cache's key and of an artifact's manifest, like the architecture.
"""

from __future__ import annotations

import json
import re

import tvm

from hios.errors import InvalidOption

__all__ = ["ARCHITECTURES", "DEFAULT_ARCHITECTURE", "allows_tf32", "cuda_target", "with_tf32"]

ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90")
"""Architectures with kernel rules; those that this machine's compiler can make."""

DEFAULT_ARCHITECTURE = "sm_90"
"""Taken where nothing says which GPU it will be."""

_TF32 = "tf32"
_TF32_CAPABILITY = 80


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


def with_tf32(target: tvm.target.Target) -> tvm.target.Target:
    """Return `target` with TF32 allowed in float32 convolutions and matrix products.

    Raises
    ------
    InvalidOption
        For anything but a GPU of compute capability 8.0 or more.
    """
    if allows_tf32(target):
        return target
    kind = str(target.kind.name)
    if kind != "cuda":
        raise InvalidOption(
            f"TF32 is a format of NVIDIA GPUs, which kernels for target {kind!r} cannot use; "
            "use a CUDA target, or do not allow TF32"
        )
    arch = str(target.attrs.get("arch", ""))
    capability = re.fullmatch(r"sm_(\d+)[a-z]?", arch)
    if capability is None or int(capability[1]) < _TF32_CAPABILITY:
        raise InvalidOption(
            f"TF32 needs compute capability 8.0, and the target is for {arch!r}; use cuda:sm_80 "
            "or later, or do not allow TF32"
        )
    described = json.loads(str(target))
    return tvm.target.Target({**described, "keys": [*described.get("keys", []), _TF32]})


def allows_tf32(target: tvm.target.Target) -> bool:
    """Return whether `target` is one of `with_tf32`."""
    return _TF32 in map(str, target.keys)
