"""Choosing register tiles for convolutions and matrix products on a CPU.

A kernel keeps ``rows × vectors`` accumulators in registers. Every step of the reduction loads
`vectors` weight vectors and broadcasts `rows` inputs for ``rows × vectors`` multiply-adds, so
tall and wide tiles win until the registers spill. What a tile computes beyond the edge of the
output is wasted; both costs are weighed here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["RegisterTile", "VectorUnit", "choose_tile"]


@dataclass(frozen=True, slots=True)
class VectorUnit:
    """What the register tiling needs to know of a CPU.

    Attributes
    ----------
    lanes
        float32 lanes of one vector register.
    registers
        Number of vector registers.
    """

    lanes: int
    registers: int

    @staticmethod
    def of_bits(bits: int) -> VectorUnit:
        """Return the unit of a machine with vectors of `bits` (512 bits bring 32 registers)."""
        return VectorUnit(lanes=max(bits // 32, 4), registers=32 if bits >= 512 else 16)


@dataclass(frozen=True, slots=True)
class RegisterTile:
    """Outputs computed at once: `rows` positions times `vectors` × `lanes` channels."""

    rows: int
    vectors: int
    lanes: int

    @property
    def channels(self) -> int:
        """Channels of one tile."""
        return self.vectors * self.lanes


def choose_tile(
    rows: int,
    channels: int,
    unit: VectorUnit,
    exact_rows: bool = False,
    free_tail: bool = False,
) -> tuple[RegisterTile, float]:
    """Choose the register tile for ``rows × channels`` outputs.

    Parameters
    ----------
    rows : int
        Positions along the tiled spatial axis.
    channels : int
        Output channels (of one group).
    unit : VectorUnit
        The registers.
    exact_rows : bool
        Only consider tiles that divide `rows`.
    free_tail : bool
        The input is copied anyway, so evening out the rows costs no copy of its own.

    Returns
    -------
    tuple of RegisterTile and float
        The tile of least estimated cost and that cost (cycles per useful output vector and
        reduction step). Deterministic.
    """
    lanes = unit.lanes
    while lanes > 4 and channels < lanes:
        lanes //= 2
    best: tuple[float, int, int] | None = None
    budget = unit.registers - 4
    for vectors in (1, 2, 3, 4, 6, 8):
        if vectors > 1 and (vectors - 1) * lanes >= channels:
            break
        if vectors > 4 and rows > 2:
            break
        for tile in range(1, min(rows, budget) + 1):
            if tile * vectors > budget or (exact_rows and rows % tile):
                continue
            waste = (math.ceil(rows / tile) * tile / rows) * (
                math.ceil(channels / (vectors * lanes)) * vectors * lanes / channels
            )
            cost = waste * _cycles_per_output(tile, vectors)
            if rows % tile and not free_tail:
                cost *= 1.1  # tails need a padded copy of the input
            if best is None or cost < best[0] - 1e-9:
                best = (cost, tile, vectors)
    if best is None:
        return RegisterTile(1, 1, lanes), math.inf
    return RegisterTile(best[1], best[2], lanes), best[0]


def _cycles_per_output(rows: int, vectors: int) -> float:
    """Estimate cycles per accumulator and reduction step.

    Two multiply-adds and two loads start per cycle, and each accumulator is busy for four
    cycles; loop overhead is about one cycle per step.
    """
    work = rows * vectors
    return max(work / 2, (rows + vectors) / 2, 4.0) / work + 0.6 / work + 0.02 * (vectors > 3)
