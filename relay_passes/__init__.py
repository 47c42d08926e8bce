"""TVM side of hios-tvm: import, lower, schedule kernels, extract the operator graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relay_passes.compile import compile_graph, compile_offers, resolve_target
    from relay_passes.relay.partition import HIOSPartition

__all__ = ["HIOSPartition", "compile_graph", "compile_offers", "resolve_target"]

_HOME = {
    "HIOSPartition": "relay_passes.relay",
    "compile_graph": "relay_passes.compile",
    "compile_offers": "relay_passes.compile",
    "resolve_target": "relay_passes.compile",
}


def __getattr__(name: str) -> Any:
    # TVM takes most of a second to import: only whoever compiles pays for it.
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
