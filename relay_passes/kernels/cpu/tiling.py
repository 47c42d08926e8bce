"""Choosing register tiles for convolutions and matrix products on a CPU.

A kernel keeps ``rows × vectors`` accumulators in registers. Every step of the reduction loads
`vectors` weight vectors and broadcasts `rows` inputs for ``rows × vectors`` multiply-adds, so
tall and wide tiles win until the registers spill. What a tile computes beyond the edge of the
output is wasted; both costs are weighed here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["RegisterTile", "VectorUnit", "choose_tile", "store_width", "strip_length"]


_TALL = 8
"""Rows of a tile up to which their addresses fit in the general registers."""

_STRIP = 12
"""Tiles of a strip from which loading its weights costs little (measured on Zen 3)."""


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
    def of_bits(bits: int, registers: int | None = None) -> VectorUnit:
        """Return the unit of a machine with vectors of `bits`.

        Without a number of registers it is that of x86: 32 with AVX-512, else 16.
        """
        number = registers or (32 if bits >= 512 else 16)
        return VectorUnit(lanes=max(bits // 32, 4), registers=number)


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
    whole_channels: bool = False,
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
    whole_channels : bool
        Tiles either divide `channels` or hold all of them.

    Returns
    -------
    tuple of RegisterTile and float
        The tile of least estimated cost and that cost (cycles per useful output vector and
        reduction step). Deterministic.
    """
    widest = unit.lanes
    while widest > 4 and channels < widest:
        widest //= 2
    best = (math.inf, RegisterTile(1, 1, widest))
    for lanes, vectors in _vector_shapes(rows, channels, widest, whole_channels):
        for tile in range(1, min(rows, unit.registers) + 1):
            # Accumulators, one step's weights and one input have to fit in the registers.
            spills = tile > 1 and (tile + 1) * vectors + 1 > unit.registers
            if spills or (exact_rows and rows % tile):
                continue
            width = vectors * lanes
            waste = (math.ceil(rows / tile) * tile / rows) * (
                math.ceil(channels / width) * width / channels
            )
            cost = waste * _cycles_per_output(tile, vectors, unit) * widest / lanes
            if rows % tile and not free_tail:
                cost *= 1.1  # tails need a padded copy of the input
            if cost < best[0] - 1e-9:
                best = (cost, RegisterTile(tile, vectors, lanes))
    return best[1], best[0]


def _vector_shapes(
    rows: int, channels: int, lanes: int, whole_channels: bool
) -> list[tuple[int, int]]:
    """Return the pairs of lanes and vectors to consider for one tile."""
    counts = (1, 2, 3, 4) if rows > 2 else (1, 2, 3, 4, 6, 8)
    if not whole_channels:
        # A tile of three vectors that ends beyond the last channel was measured at less than half
        # the speed: LLVM keeps it in memory.
        return [
            (lanes, v)
            for v in counts
            if v <= math.ceil(channels / lanes)
            and (v & (v - 1) == 0 or channels % (v * lanes) == 0)
        ]
    narrow = [w for w in (lanes, lanes // 2, lanes // 4) if w >= 1]
    exact = [(w, v) for w in narrow for v in counts if channels % (v * w) == 0]
    return [*exact, (lanes, math.ceil(channels / lanes))]


def store_width(channels: int, lanes: int) -> int:
    """Return the widest vector of at most `lanes` that divides `channels`.

    Where tiles reach beyond the last channel, stores of this width are either whole or absent;
    a partly valid vector would fall apart into scalars.
    """
    width = lanes
    while channels % width:
        width //= 2
    return width


def strip_length(steps: int, tiles: int) -> int:
    """Return how many of `steps` rows of an image make a strip: a divisor of `steps`.

    A strip reuses a block of weights over `_STRIP` tiles or more; more strips keep what one core
    wrote on that core. Where no part of the image has so many tiles the image is one strip.

    Parameters
    ----------
    steps
        Rows of the image, at least 1.
    tiles
        Tiles in a row.
    """
    return next(
        n for n in range(1, steps + 1) if steps % n == 0 and (n == steps or n * tiles >= _STRIP)
    )


def _cycles_per_output(rows: int, vectors: int, unit: VectorUnit) -> float:
    """Estimate cycles per accumulator and reduction step.

    Two multiply-adds and two loads start per cycle, and each accumulator is busy for four
    cycles; weights come from the second-level cache at about 24 bytes per cycle; loop overhead is
    about one cycle per step. With 16 registers, tiles taller than `_TALL` rows were measured
    (Zen 3) to lose about four cycles a step, and tiles of a single vector, which load an input
    for every multiply-add, to take half as long again.
    """
    work = rows * vectors
    busy = max(work / 2, (rows + vectors) / 2, vectors * unit.lanes / 6, 4.0)
    if unit.registers <= 16 and rows > _TALL:
        busy += 4.0
    if unit.registers <= 16 and vectors == 1:
        busy *= 1.5
    return busy / work + 0.6 / work + 0.02 * (vectors > 3)
