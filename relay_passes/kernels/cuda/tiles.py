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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from relay_passes.cuda.occupancy import LIMITS

__all__ = ["ProductTile", "TensorTile", "choose_product_tile", "choose_tile"]

_FMA_PER_CYCLE = 64.0
"""float32 multiply-adds of a multiprocessor in a cycle; 64 of compute capability 8.0, 128 of 8.6
and up (CUDA C++ Programming Guide, "Arithmetic Instructions"): the lower one, so that a tile that
is bound by arithmetic on one is so on all."""

_TENSOR_BYTES_PER_CYCLE = 2048.0
"""Multiply-adds of a multiprocessor's tensor cores in a cycle, times the bytes of a factor: 1024 of
float16 and 512 of TF32, of compute capability 8.0 (NVIDIA A100 Tensor Core GPU Architecture,
"Third-Generation Tensor Cores"); the instructions that `relay_passes.kernels.cuda.tensor_cores`
uses do not reach the double of 9.0."""

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

    def written(self) -> str:
        """Return the tile as an annotation."""
        extents = self.rows, self.columns, self.depth, self.thread_rows, self.thread_columns
        return f"product,{','.join(map(str, extents))}"


@dataclass(frozen=True, slots=True)
class TensorTile:
    """What one block computes on tensor cores.

    Attributes
    ----------
    rows, columns
        Of the product.
    depth
        Of the slices that pass through shared memory.
    warp_rows, warp_columns
        Of the product, computed by one warp.
    element_bytes
        Of an element of the factors: 2 of float16, 4 of float32, which is rounded to TF32.
    """

    rows: int
    columns: int
    depth: int
    warp_rows: int
    warp_columns: int
    element_bytes: int = 2

    @property
    def warps(self) -> int:
        """Warps of a block."""
        return (self.rows // self.warp_rows) * (self.columns // self.warp_columns)

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 32 * self.warps

    def written(self) -> str:
        """Return the tile as an annotation."""
        extents = self.rows, self.columns, self.depth, self.warp_rows, self.warp_columns
        return f"tensor,{','.join(map(str, extents))},{self.element_bytes}"


Tile = TypeVar("Tile", ProductTile, TensorTile)

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


_TENSOR_SHAPES = (
    (128, 128, 64, 32),
    (128, 64, 64, 32),
    (64, 128, 32, 64),
    (64, 64, 32, 32),
    (128, 32, 32, 32),
    (32, 128, 32, 32),
    (64, 32, 32, 16),
    (32, 64, 16, 32),
    (32, 32, 16, 16),
    (64, 16, 16, 16),
    (16, 64, 16, 16),
)
_TENSOR_DEPTH_BYTES = 64
_FEWEST = 8
"""Rows, columns and depth from which on a product is worth rounding up to fragments of 16."""


def choose_tile(
    batch: int,
    rows: int,
    columns: int,
    depth: int,
    arch: str,
    channels: int,
    dtype: str,
    allow_tf32: bool = False,
) -> ProductTile | TensorTile:
    """Choose the tile of a product and with it the units that compute it.

    Tensor cores take products of float16, and of float32 where TF32 is allowed, that are no
    smaller than half a fragment in any direction; the ordinary units take all others.

    Parameters
    ----------
    batch, rows, columns, depth, arch, channels
        As in `choose_product_tile`.
    dtype : str
        Of the factors.
    allow_tf32 : bool
        Factors of float32 may be rounded to TF32.
    """
    size = {"float16": 2, "float32": 4 if allow_tf32 else 0}.get(dtype, 0)
    if not size or min(rows, columns, depth) < _FEWEST:
        return choose_product_tile(batch, rows, columns, depth, arch, channels)
    slice_depth = _TENSOR_DEPTH_BYTES // size
    tiles = [TensorTile(r, c, slice_depth, wr, wc, size) for r, c, wr, wc in _TENSOR_SHAPES]
    return _best(tiles, batch, rows, columns, depth, arch)


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
    # An axis of extent one is no axis to the scheduler: all threads along it would be the same.
    shapes: tuple[tuple[int, int, int, int], ...] = _SHAPES
    if rows == 1 or columns == 1:
        shapes = ((1 if rows == 1 else 128, 1 if columns == 1 else 128, 1, 1),)
    tiles = [ProductTile(r, c, slice_depth, tr, tc) for r, c, tr, tc in shapes]
    return _best(tiles, batch, rows, columns, depth, arch)


def _best(
    tiles: Sequence[Tile], batch: int, rows: int, columns: int, depth: int, arch: str
) -> Tile:
    processors = LIMITS[arch].count if arch in LIMITS else LIMITS["sm_90"].count
    rated = []
    for tile in tiles:
        blocks = batch * math.ceil(rows / tile.rows) * math.ceil(columns / tile.columns)
        rated.append((_cycles(tile, blocks, depth, processors), blocks, tile))
    best = min(cycles for cycles, _, _ in rated)
    good = [entry for entry in rated if entry[0] <= best * _TOLERANCE]
    return min(good, key=lambda entry: (entry[1], entry[0]))[2]


def _cycles(tile: ProductTile | TensorTile, blocks: int, depth: int, processors: int) -> float:
    steps = math.ceil(depth / tile.depth)
    fill = tile.rows * tile.columns * tile.depth
    if isinstance(tile, TensorTile):
        reuse = tile.warp_rows * tile.warp_columns / (tile.warp_rows + tile.warp_columns) / 16
        size = tile.element_bytes
        arithmetic = fill * size / _TENSOR_BYTES_PER_CYCLE * (1 + 0.6 / reuse)
    else:
        # Loads from shared memory per multiply-add fall with the size of a thread's tile.
        reuse = tile.thread_rows * tile.thread_columns / (tile.thread_rows + tile.thread_columns)
        arithmetic, size = fill / _FMA_PER_CYCLE * (1 + 0.6 / reuse), 4
    traffic = size * tile.depth * (tile.rows + tile.columns) / _GLOBAL_BYTES_PER_CYCLE
    resident = max(1, min(2048 // tile.threads // 2, 8))  # registers allow about half the threads
    shared = math.ceil(blocks / processors)  # blocks that one multiprocessor works through
    together = min(shared, resident)
    step = max(together * max(arithmetic, traffic), arithmetic + _STEP_LATENCY / 2)
    return math.ceil(shared / together) * steps * step
