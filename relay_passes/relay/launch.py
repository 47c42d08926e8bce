"""Launch facts of a lowered kernel, read from its TIR: loops on a CPU, grids on a GPU."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import tvm
from tvm import tir

__all__ = ["launch_of", "workspace_of"]


def launch_of(body: Any) -> dict[str, int]:
    """Return the launch facts of a scheduled PrimFunc's body.

    Returns
    -------
    dict
        On a GPU ``grid`` and ``block`` (numbers of blocks, and of threads in a block, of the
        largest launch); on a CPU ``parallel_extent``, the largest parallel loop (1 if serial).
    """
    launches = [_extents(root) for root in _launch_roots(body)]
    if not launches:
        return {"parallel_extent": _parallel_extent(body)}

    def product(launch: dict[str, int], prefix: str) -> int:
        return math.prod(value for tag, value in launch.items() if tag.startswith(prefix))

    largest = max(launches, key=lambda x: product(x, "blockIdx") * product(x, "threadIdx"))
    return {"grid": product(largest, "blockIdx"), "block": product(largest, "threadIdx")}


def workspace_of(body: Any) -> int:
    """Return the bytes of device memory that a GPU kernel allocates around its launches.

    TVM takes them from a pool per thread, not per stream; 0 on a CPU, where a kernel's scratch
    belongs to the thread that runs it.
    """
    if not any(True for _ in _launch_roots(body)):
        return 0
    total = 0
    for stmt in _outside_launches(body):
        if isinstance(stmt, tir.Allocate):
            extents = [int(extent) for extent in stmt.extents]
            total += math.prod(extents) * -(-int(tvm.DataType(stmt.dtype).bits) // 8)
    return total


def _is_launch(stmt: Any) -> bool:
    return isinstance(stmt, tir.AttrStmt) and str(stmt.attr_key) == "thread_extent"


def _outside_launches(body: Any) -> Iterator[Any]:
    """Walk down to (and including) the outermost statement of every launch."""
    pending = [body]
    while pending:
        stmt = pending.pop()
        yield stmt
        if _is_launch(stmt):
            continue
        if isinstance(stmt, tir.SeqStmt):
            pending += reversed(list(stmt.seq))
        elif isinstance(stmt, tir.BlockRealize):
            pending.append(stmt.block.body)
        elif isinstance(stmt, tir.IfThenElse):
            pending += [case for case in (stmt.else_case, stmt.then_case) if case is not None]
        elif hasattr(stmt, "body"):
            pending.append(stmt.body)


def _launch_roots(body: Any) -> Iterator[Any]:
    return (stmt for stmt in _outside_launches(body) if _is_launch(stmt))


def _extents(root: Any) -> dict[str, int]:
    found: dict[str, int] = {}

    def visit(stmt: Any) -> None:
        if _is_launch(stmt) and isinstance(stmt.value, tir.IntImm):
            tag = str(stmt.node.thread_tag)
            found[tag] = max(found.get(tag, 1), int(stmt.value))

    tir.stmt_functor.post_order_visit(root, visit)
    return found


def _parallel_extent(body: Any) -> int:
    found = [1]

    def visit(stmt: Any) -> None:
        if (
            isinstance(stmt, tir.For)
            and stmt.kind == tir.ForKind.PARALLEL
            and isinstance(stmt.extent, tir.IntImm)
        ):
            found.append(int(stmt.extent))

    tir.stmt_functor.post_order_visit(body, visit)
    return max(found)
