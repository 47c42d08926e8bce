"""Networks are built once for the whole session, by the stock `relay.build` with our pass.

These tests need a TVM with Relay (`make relay-test`); elsewhere none of them is collected.
"""

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytest

from hios_tvm.models.light import load_light
from relay_passes.relay.availability import has_relay

collect_ignore_glob = [] if has_relay() else ["test_*.py"]

TARGET = "llvm"


@dataclass(frozen=True)
class RelayNetwork:
    """A light network, built, with an input and what others make of it."""

    model: Any
    factory: Any
    input_name: str
    data: np.ndarray

    @cached_property
    def by_graph_executor(self) -> np.ndarray:
        """The output of TVM's own graph executor on the same factory."""
        import tvm
        from tvm.contrib.graph_executor import GraphModule

        module = GraphModule(self.factory["default"](tvm.cpu()))
        module.run(**{self.input_name: self.data})
        return module.get_output(0).numpy()

    @cached_property
    def by_onnx_runtime(self) -> np.ndarray:
        """The output of ONNX Runtime on the model."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(self.model.SerializeToString(), options)
        return session.run(None, {self.input_name: self.data})[0]


@pytest.fixture(scope="session")
def light():
    """Return a function from a name to a `RelayNetwork`, which builds each network once."""
    import hios_tvm

    built: dict[str, RelayNetwork] = {}

    def build(name):
        if name not in built:
            from tvm import relay

            model = load_light(name)
            with warnings.catch_warnings():
                # TVM's importer uses names that onnx is about to drop.
                warnings.simplefilter("ignore", DeprecationWarning)
                mod, params = relay.frontend.from_onnx(model)
            with hios_tvm.pass_context(opt_level=3, devices=2, scheduler="hios-lp"):
                factory = relay.build(mod, target=TARGET, params=params)
            given = model.graph.input[0]
            shape = [d.dim_value for d in given.type.tensor_type.shape.dim]
            data = np.random.default_rng(7).standard_normal(shape, dtype=np.float32)
            built[name] = RelayNetwork(model, factory, given.name, data)
        return built[name]

    return build
