"""The Relay door: HIOS inside the stock ``relay.build`` of TVM ≤ 0.19."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relay_passes.relay.context import pass_context
    from relay_passes.relay.instrument import HIOSInstrument
    from relay_passes.relay.partition import HIOSPartition

__all__ = ["HIOSInstrument", "HIOSPartition", "pass_context"]

_HOME = {
    "HIOSInstrument": "relay_passes.relay.instrument",
    "HIOSPartition": "relay_passes.relay.partition",
    "pass_context": "relay_passes.relay.context",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from importlib import import_module

        from relay_passes.relay.availability import require_relay

        require_relay()
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
