"""An ONNX model through the stock ``relay.build`` in a pass context, for this machine's CPU."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import tvm

__all__ = ["build_onnx"]


def build_onnx(
    model: Any, context: Any, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> Any:
    """Import and build a model.

    Parameters
    ----------
    model : onnx.ModelProto
        The network.
    context : tvm.transform.PassContext
        In which it is built; one of `hios_tvm.pass_context` makes the factory readable to our
        executor.
    shapes : mapping, optional
        Shapes of inputs with dynamic dimensions.

    Returns
    -------
    tvm.relay.backend.executor_factory.GraphExecutorFactoryModule
        For the graph executor, and for ours.
    """
    from tvm import relay

    with warnings.catch_warnings():
        # TVM's importer uses names that onnx is about to drop.
        warnings.simplefilter("ignore", DeprecationWarning)
        mod, params = relay.frontend.from_onnx(model, shape=dict(shapes or {}) or None)
    cpu = str(tvm.target.codegen.llvm_get_system_cpu())
    with context:
        return relay.build(mod, target=f"llvm -mcpu={cpu}", params=params)
