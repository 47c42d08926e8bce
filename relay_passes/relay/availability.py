"""Whether the TVM that is installed has Relay, without importing it."""

from __future__ import annotations

from importlib.util import find_spec

from hios.errors import MissingDependency

__all__ = ["has_relay", "require_relay"]


def has_relay() -> bool:
    """Return whether ``tvm.relay`` can be imported."""
    package = find_spec("tvm")
    if package is None or not package.submodule_search_locations:
        return False
    from importlib.machinery import PathFinder

    return PathFinder.find_spec("relay", list(package.submodule_search_locations)) is not None


def require_relay() -> None:
    """Check that there is a TVM with Relay.

    Raises
    ------
    MissingDependency
        When there is none; the message names the door that TVM without Relay has.
    """
    if find_spec("tvm") is None:
        raise MissingDependency(
            "TVM is not installed; install TVM ≤ 0.19 for Relay (make relay-env), or hios-tvm's "
            "own dependencies for Relax"
        )
    if not has_relay():
        raise MissingDependency(
            "the installed TVM has no Relay (it was removed after TVM 0.19); compile a Relax "
            "module with tvm.compile(mod, target, relax_pipeline=hios_tvm.pipeline(devices=[...])) "
            "or hios_tvm.build(model, devices=[...]), or use a TVM ≤ 0.19 (docs/relay.md)"
        )
