"""How many blocks of a kernel fit on a multiprocessor, from the published limits.

Limits per compute capability: CUDA C++ Programming Guide 13.0, "Technical Specifications per
Compute Capability" (threads, warps, blocks, registers and shared memory of a multiprocessor).
Registers are given to warps in units of 256, and shared memory to blocks in units of 128 bytes,
with 1 KiB more for each block that the system keeps (``cuda_occupancy.h`` of the toolkit).
"""

from __future__ import annotations

from dataclasses import dataclass

from hios.errors import InvalidOption

__all__ = ["LIMITS", "Multiprocessor", "resident_blocks"]

_REGISTER_UNIT = 256
_SHARED_UNIT = 128
_SYSTEM_SHARED_BYTES = 1024
_WARP = 32


@dataclass(frozen=True, slots=True)
class Multiprocessor:
    """Limits of one multiprocessor of a GPU.

    Attributes
    ----------
    count
        Multiprocessors of the largest product of that architecture: 108 of the A100, 84 of the
        A40, 142 of the L40S, 132 of the H100 SXM (NVIDIA's architecture white papers).
    warps, blocks
        Resident at once.
    registers
        32-bit.
    shared_bytes
        Of all resident blocks together.
    """

    count: int
    warps: int
    blocks: int
    registers: int
    shared_bytes: int


LIMITS = {
    "sm_80": Multiprocessor(108, 64, 32, 65536, 164 << 10),
    "sm_86": Multiprocessor(84, 48, 16, 65536, 100 << 10),
    "sm_89": Multiprocessor(142, 48, 24, 65536, 100 << 10),
    "sm_90": Multiprocessor(132, 64, 32, 65536, 228 << 10),
}
"""By architecture."""


def resident_blocks(arch: str, threads: int, registers: int, shared_bytes: int) -> int:
    """Return how many blocks of a kernel are resident on one multiprocessor at most.

    Parameters
    ----------
    arch : str
        One of `LIMITS`.
    threads : int
        Of a block.
    registers : int
        Of a thread.
    shared_bytes : int
        Of a block, static and dynamic.

    Returns
    -------
    int
        Zero when not even one block fits.

    Raises
    ------
    InvalidOption
        For an architecture without limits.

    Examples
    --------
    >>> resident_blocks("sm_80", threads=256, registers=64, shared_bytes=0)
    4
    >>> resident_blocks("sm_90", threads=64, registers=32, shared_bytes=16384)
    13
    """
    if arch not in LIMITS:
        raise InvalidOption(f"no limits are known of {arch!r}; use one of {', '.join(LIMITS)}")
    limits = LIMITS[arch]
    warps = max(1, -(-threads // _WARP))
    fits = [limits.blocks, limits.warps // warps]
    if registers:
        unit = -(-registers * _WARP // _REGISTER_UNIT) * _REGISTER_UNIT
        # A warp takes its registers from one of four partitions.
        fits.append(limits.registers // 4 // unit * 4 // warps)
    shared = -(-(shared_bytes + _SYSTEM_SHARED_BYTES) // _SHARED_UNIT) * _SHARED_UNIT
    fits.append(limits.shared_bytes // shared)
    return min(fits)
