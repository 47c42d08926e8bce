"""Walking a Relay dataflow graph."""

from __future__ import annotations

from typing import Any

from tvm import relay

__all__ = ["dataflow_order"]


def dataflow_order(body: Any) -> list[Any]:
    """Return the expressions of a dataflow graph, arguments first, without entering functions.

    Iterative: a network of a few hundred operators is deeper than Python's stack. O(n).
    """
    order: list[Any] = []
    seen: set[Any] = set()
    stack: list[tuple[Any, bool]] = [(body, False)]
    while stack:
        expr, is_expanded = stack.pop()
        if is_expanded:
            order.append(expr)
        elif expr not in seen:
            seen.add(expr)
            stack.append((expr, True))
            stack += [(child, False) for child in reversed(_children(expr))]
    return order


def _children(expr: Any) -> list[Any]:
    if isinstance(expr, relay.Call):
        return list(expr.args)
    if isinstance(expr, relay.Tuple):
        return list(expr.fields)
    if isinstance(expr, relay.TupleGetItem):
        return [expr.tuple_value]
    return []
