"""Choosing the tile of a matrix product on a GPU by its shape.

One block computes ``rows × columns`` of the product and walks over the whole depth. Large tiles
read less (each input element is read once per tile in the other direction), small ones make more
blocks: the 8×8 images at the end of a network fill a GPU only with small tiles. The estimate is
that of a roofline over whole waves of blocks: a wave takes the time of one block, in which every
multiprocessor shares its arithmetic and its bandwidth of shared memory among its resident
blocks; a block that runs alone is bound by the latency of its own chain of steps.

Where two tiles promise about the same time, the one with fewer blocks wins: what a small operator
leaves free is what another operator can use at the same time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from relay_passes.cuda.occupancy import LIMITS

__all__ = ["ProductTile", "choose_product_tile"]

_FMA_PER_CYCLE = 64.0
"""float32 multiply-adds of a multiprocessor in a cycle; 64 of compute capability 8.0, 128 of 8.6
and up (CUDA C++ Programming Guide, "Arithmetic Instructions"): the lower one, so that a tile that
is bound by arithmetic on one is so on all."""

_GLOBAL_BYTES_PER_CYCLE = 32.0
"""Bytes that a multiprocessor gets from the second-level cache in a cycle, when all ask."""

_STEP_LATENCY = 600.0
"""Cycles from asking for the next slice of depth to having it in shared memory."""

_TOLERANCE = 1.1


@dataclass(frozen=True, slots=True)
class ProductTile:
    """What one block computes.

    Attributes
    ----------
    rows, columns
        Of the product.
    depth
        Of the slices that pass through shared memory.
    thread_rows, thread_columns
        Of the product, computed by one thread.
    """

    rows: int
    columns: int
    depth: int
    thread_rows: int
    thread_columns: int

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return (self.rows // self.thread_rows) * (self.columns // self.thread_columns)


_SHAPES = (
    (128, 64, 8, 4),
    (64, 128, 8, 4),
    (64, 64, 8, 4),
    (128, 32, 8, 4),
    (64, 64, 4, 4),
    (64, 32, 4, 4),
    (32, 64, 4, 4),
    (32, 32, 4, 4),
    (16, 64, 4, 4),
    (64, 16, 4, 4),
    (32, 32, 2, 4),
    (16, 32, 2, 4),
    (32, 16, 2, 4),
)


def choose_product_tile(
    batch: int, rows: int, columns: int, depth: int, arch: str, channels: int
) -> ProductTile:
    """Choose the tile of ``batch`` products of ``rows × depth`` with ``depth × columns``.

    Parameters
    ----------
    batch, rows, columns, depth : int
        Extents of the product.
    arch : str
        Decides over how many multiprocessors the blocks spread.
    channels : int
        Extent of the depth that lies in memory without a break; slices that divide it need no
        division to find their place.

    Returns
    -------
    ProductTile
        Deterministic; ties go to fewer blocks.
    """
    slice_depth = 8 if channels % 16 and channels % 8 == 0 else 16
    processors = LIMITS[arch].count if arch in LIMITS else LIMITS["sm_90"].count
    rated = []
    # An axis of extent one is no axis to the scheduler: all threads along it would be the same.
    shapes: tuple[tuple[int, int, int, int], ...] = _SHAPES
    if rows == 1 or columns == 1:
        shapes = ((1 if rows == 1 else 128, 1 if columns == 1 else 128, 1, 1),)
    for tile_rows, tile_columns, thread_rows, thread_columns in shapes:
        tile = ProductTile(tile_rows, tile_columns, slice_depth, thread_rows, thread_columns)
        blocks = batch * math.ceil(rows / tile_rows) * math.ceil(columns / tile_columns)
        rated.append((_cycles(tile, blocks, depth, processors), blocks, tile))
    best = min(cycles for cycles, _, _ in rated)
    good = [entry for entry in rated if entry[0] <= best * _TOLERANCE]
    return min(good, key=lambda entry: (entry[1], entry[0]))[2]


def _cycles(tile: ProductTile, blocks: int, depth: int, processors: int) -> float:
    steps = math.ceil(depth / tile.depth)
    fill = tile.rows * tile.columns * tile.depth
    # Loads from shared memory per multiply-add fall with the size of a thread's tile.
    reuse = tile.thread_rows * tile.thread_columns / (tile.thread_rows + tile.thread_columns)
    arithmetic = fill / _FMA_PER_CYCLE * (1 + 0.6 / reuse)
    traffic = 4 * tile.depth * (tile.rows + tile.columns) / _GLOBAL_BYTES_PER_CYCLE
    resident = max(1, min(2048 // tile.threads // 2, 8))  # registers allow about half the threads
    shared = math.ceil(blocks / processors)  # blocks that one multiprocessor works through
    together = min(shared, resident)
    step = max(together * max(arithmetic, traffic), arithmetic + _STEP_LATENCY / 2)
    return math.ceil(shared / together) * steps * step
