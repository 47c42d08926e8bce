"""Matrix products on a GPU: tiles in shared memory, accumulators in registers.

Convolutions and products with a matrix are one computation, ``C[g, m, n] = Σ A[g, m, k] B[g, k,
n]``, in extents rounded up to the tile. A is never stored: it is computed (padding, im2col) on
its way into shared memory, so a convolution is an *implicit* product. What operator fusion put
behind it is applied to the accumulators before they are stored.

A thread keeps ``thread_rows × thread_columns`` accumulators. A lies transposed in shared memory,
so that both factors of a thread are read as vectors. Threads of a warp fetch neighbouring
elements of global memory, as vectors where the extents allow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tvm_ffi
from tvm import s_tir, te, tirx
from tvm.sym.analyzer import Analyzer

from relay_passes.kernels.blocks import ROLE, annotation, inline_epilogue, role_block
from relay_passes.kernels.cuda.tiles import ProductTile, TensorTile

__all__ = ["Parts", "Product", "parts_of", "schedule_product", "te_product", "vector_of"]

Load = Callable[[Any, Any, Any], Any]

_TILE = "hios.tile"
_VECTORS = "hios.vectors"
_EXTENTS = "hios.extents"
THROUGH_REGISTERS = "tirx.manifest_shared_memory_local_stage"


@dataclass(frozen=True, slots=True)
class Product:
    """Extents of a batched product, and how its factors may be read.

    Attributes
    ----------
    batch, rows, columns, depth
        Extents without padding.
    dtype
        Of the factors and the result; sums of float16 products are float32.
    left_vector, right_vector
        Elements that lie side by side in memory: along the depth of the left factor, along the
        columns of the right one. One where nothing is known.
    row_order
        Neighbouring rows of the left factor lie side by side, not neighbouring depths.
    store_vector
        Elements of a row of the result that may be stored at once.
    leading
        Leading axes of the result that the batch stands for; zero where the batch are groups
        of its channels.
    """

    batch: int
    rows: int
    columns: int
    depth: int
    dtype: str
    left_vector: int = 1
    right_vector: int = 1
    row_order: bool = False
    store_vector: int = 1
    leading: int = 0

    @property
    def flops(self) -> int:
        """Arithmetic operations, a multiply-add counting two."""
        return 2 * self.batch * self.rows * self.columns * self.depth


@dataclass(slots=True)
class Parts:
    """A fused kernel that holds a `te_product`, its elementwise blocks inlined.

    Attributes
    ----------
    sch
        Has these blocks only.
    main, left, right, out
        The product, its factors in rounded extents, and what stores the result.
    tile
        Annotated by `te_product`.
    left_vector, right_vector, row_order, store_vector
        As in `Product`.
    """

    sch: s_tir.Schedule
    main: Any
    left: Any
    right: Any
    out: Any
    tile: ProductTile | TensorTile
    left_vector: int
    right_vector: int
    row_order: bool
    store_vector: int


def te_product(
    product: Product, tile: ProductTile | TensorTile, left: Load, right: Load, role: str
) -> Any:
    """Return the product in extents rounded up to the tile.

    Parameters
    ----------
    product, tile
        What is computed and in which pieces.
    left, right : callable
        ``left(g, m, k)`` and ``right(g, k, n)`` are elements of the factors, right inside of the
        extents of `product`; outside they must be guarded here, so both are called under a
        condition.
    role : str
        ``conv2d`` or ``dense``.

    Returns
    -------
    te.Tensor
        Shape ``(batch, rows, columns)``, rounded up.
    """
    rows = _round_up(product.rows, tile.rows)
    columns = _round_up(product.columns, tile.columns)
    depth = _round_up(product.depth, tile.depth)
    total = "float32" if product.dtype == "float16" else product.dtype

    def guarded(value: Any, *bounds: tuple[Any, int, int]) -> Any:
        checks = [index < extent for index, extent, rounded in bounds if rounded != extent]
        if not checks:
            return value
        return tirx.if_then_else(tirx.all(*checks), value, tirx.const(0, product.dtype))

    a = te.compute(
        (product.batch, rows, depth),
        lambda g, m, k: guarded(left(g, m, k), (m, product.rows, rows), (k, product.depth, depth)),
        name="left",
        attrs={ROLE: "pad"},
    )
    b = te.compute(
        (product.batch, depth, columns),
        lambda g, k, n: guarded(
            right(g, k, n), (k, product.depth, depth), (n, product.columns, columns)
        ),
        name="right",
        attrs={ROLE: "pad"},
    )
    rk = te.reduce_axis((0, depth), name="rk")
    return te.compute(
        (product.batch, rows, columns),
        lambda g, m, n: te.sum(a[g, m, rk].astype(total) * b[g, rk, n].astype(total), axis=rk),
        name="product",
        attrs={
            ROLE: role,
            _TILE: tile.written(),
            _VECTORS: f"{product.left_vector},{product.right_vector},{int(product.row_order)},"
            f"{product.store_vector}",
            _EXTENTS: f"{product.batch},{product.rows},{product.columns},{product.leading}",
            "hios.flops": str(product.flops),
        },
    )


def schedule_product(func: tirx.PrimFunc) -> s_tir.Schedule | None:
    """Schedule a fused kernel that holds a `te_product`; None for any other."""
    parts = parts_of(func)
    if parts is None or not isinstance(parts.tile, ProductTile):
        return None
    sch, tile = parts.sch, parts.tile
    main, left, right, out = parts.main, parts.left, parts.right, parts.out
    g, m, n, k = sch.get_loops(main)
    mo, ty, mi = sch.split(m, [None, tile.rows // tile.thread_rows, tile.thread_rows])
    no, tx, ni = sch.split(n, [None, tile.columns // tile.thread_columns, tile.thread_columns])
    ko, ki = sch.split(k, [None, tile.depth])
    sch.reorder(g, mo, no, ty, tx, ko, ki, mi, ni)
    sch.bind(g, "blockIdx.z")
    sch.bind(mo, "blockIdx.x")
    sch.bind(no, "blockIdx.y")
    sch.bind(ty, "threadIdx.y")
    sch.bind(tx, "threadIdx.x")
    sch.set_scope(main, 0, "local")

    _store(sch, out, tx, min(parts.store_vector, 4))
    ties = tile.rows // tile.thread_rows, tile.columns // tile.thread_columns
    # The left factor is read along its depth and stored across it: its vectors pass through
    # registers. A pad of four elements spreads those stores over the banks.
    staged = sch.cache_read(main, 0, "shared")
    sch.transform_layout(staged, ("write", 0), lambda g, m, k: (g, k, m))
    sch.storage_align(staged, 0, axis=1, factor=8, offset=4)
    sch.compute_at(staged, ko, preserve_unit_loops=True)
    left_vector = fitting(min(parts.left_vector, 4), tile.rows * tile.depth, tile.threads)
    m_in, k_in = sch.get_loops(staged)[-2:]
    k_in, lane = sch.split(k_in, [None, left_vector])
    pieces = (k_in, m_in) if parts.row_order else (m_in, k_in)
    sch.reorder(*pieces, lane)
    _, by, bx = sch.split(sch.fuse(*pieces), [None, *ties])
    sch.bind(by, "threadIdx.y")
    sch.bind(bx, "threadIdx.x")
    sch.vectorize(lane)
    sch.compute_inline(left)
    sch.annotate(staged, THROUGH_REGISTERS, 1)

    sch.set_scope(right, 0, "shared")
    sch.compute_at(right, ko, preserve_unit_loops=True)
    fused = sch.fuse(*sch.get_loops(right)[-2:])
    right_vector = fitting(min(parts.right_vector, 4), tile.depth * tile.columns, tile.threads)
    _, by, bx, lane = sch.split(fused, [None, *ties, right_vector])
    sch.bind(by, "threadIdx.y")
    sch.bind(bx, "threadIdx.x")
    sch.vectorize(lane)
    sch.annotate(right, THROUGH_REGISTERS, 1)

    left_local = sch.cache_read(main, 0, "local")
    right_local = sch.cache_read(main, 1, "local")
    for local, extent in ((left_local, tile.thread_rows), (right_local, tile.thread_columns)):
        sch.compute_at(local, ki, preserve_unit_loops=True)
        last = sch.get_loops(local)[-1]
        if extent > 4:
            _, last = sch.split(last, [None, 4])
        sch.vectorize(last)
    sch.unroll(ki)
    sch.unroll(mi)
    sch.unroll(ni)
    sch.decompose_reduction(main, ko)
    # The next slice is on its way from global memory into registers while this one is worked
    # on, and goes into the other half of each shared buffer afterwards. In order: left into
    # registers, left into shared memory, the same of the right factor, the work.
    sch.annotate(ko, "software_pipeline_stage", [0, 0, 0, 0, 1])
    sch.annotate(ko, "software_pipeline_order", [0, 3, 1, 4, 2])
    return sch


def parts_of(func: tirx.PrimFunc) -> Parts | None:
    """Return the parts of a fused kernel that holds a `te_product`; None for any other."""
    sch = s_tir.Schedule(func)
    main = role_block(sch, "conv2d") or role_block(sch, "dense")
    if main is None or annotation(sch, main, _TILE) is None:
        return None
    kind, *written = str(annotation(sch, main, _TILE)).split(",")
    extents = [int(extent) for extent in written]
    tile: ProductTile | TensorTile
    tile = TensorTile(*extents) if kind == "tensor" else ProductTile(*extents)
    left_vector, right_vector, row_order, store_vector = map(
        int, str(annotation(sch, main, _VECTORS)).split(",")
    )
    left, right = sch.get_producers(main)
    _inline_producers(sch, left)
    _inline_producers(sch, right)
    out = inline_epilogue(sch, main)
    if out is None:
        return None
    *product, leading = map(int, str(annotation(sch, main, _EXTENTS)).split(","))
    if not _as_product(sch, out, product, leading):
        return None
    if product[0] > 1 and not leading:
        # Groups: that channel g·n + i belongs to group g must be plain to see for what follows.
        blocks = (main, left, right, out)
        names = [sch.get(block).name_hint for block in blocks]
        sch = _with_known_domains(sch, blocks)
        main, left, right, out = (sch.get_sblock(name) for name in names)
    return Parts(
        sch, main, left, right, out, tile, left_vector, right_vector, bool(row_order), store_vector
    )


def vector_of(extent: int, dtype: str = "float32") -> int:
    """Return how many neighbouring elements one load may take along an axis of `extent`."""
    return next(v for v in ((8, 4, 2, 1) if dtype == "float16" else (4, 2, 1)) if extent % v == 0)


def _store(sch: s_tir.Schedule, out: Any, loop: Any, vector: int) -> None:
    sch.reverse_compute_at(out, loop, preserve_unit_loops=True)
    last = sch.get_loops(out)[-1]
    if vector > 1:
        _, last = sch.split(last, [None, vector])
        sch.vectorize(last)


def _inline_producers(sch: s_tir.Schedule, block: Any) -> None:
    for producer in sch.get_producers(block):
        _inline_producers(sch, producer)
        sch.compute_inline(producer)


def _with_known_domains(sch: s_tir.Schedule, blocks: tuple[Any, ...]) -> s_tir.Schedule:
    """Simplify divisions by what the domains of the iterators say, which TVM's passes do not."""
    analyzer = Analyzer()
    for block in blocks:
        for iterator in sch.get(block).iter_vars:
            analyzer.bind(iterator.var, iterator.dom)
    func = sch.mod["main"]
    body = tvm_ffi.structural_map(
        func.body, (tirx.FloorDiv, analyzer.simplify), (tirx.FloorMod, analyzer.simplify)
    )
    return s_tir.Schedule(tirx.PrimFunc(func.params, body, func.ret_type, func.attrs))


def _as_product(sch: s_tir.Schedule, out: Any, product: list[int], leading: int) -> bool:
    """Give the block that stores the three iterators of the product: batch, rows, columns.

    A tile may end within an image row or a group of channels: only these iterators tell exactly
    what belongs to it. Returns whether the block has the extents of the product at all.
    """
    extents = [int(v.dom.extent) for v in sch.get(out).iter_vars]
    batch, _, columns = product
    if math.prod(extents) != math.prod(product) or len(extents) < leading + 2:
        return False

    def row_major(index: Any, sizes: Any) -> Any:
        total: Any = 0
        for extent, i in zip(sizes, index, strict=True):
            total = total * extent + i
        return total

    def mapped(*index: Any) -> tuple[Any, ...]:
        row = row_major(index[leading:-1], extents[leading:-1])
        if batch == 1:
            return row, index[-1]
        if leading:
            return row_major(index[:leading], extents[:leading]), row, index[-1]
        return tirx.floordiv(index[-1], columns), row, tirx.floormod(index[-1], columns)

    index_type = str(sch.get(out).iter_vars[0].var.ty.dtype)
    index_map = tirx.IndexMap.from_func(mapped, ndim=len(extents), index_dtype=index_type)
    sch.transform_block_layout(out, index_map)
    return True


def fitting(vector: int, elements: int, threads: int) -> int:
    while vector > 1 and elements // vector < threads:
        vector //= 2
    return vector


def _round_up(extent: int, unit: int) -> int:
    return -(-extent // unit) * unit
