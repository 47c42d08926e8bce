"""Networks are compiled once for the whole session."""

from dataclasses import dataclass

import numpy as np
import pytest
from relax_fixtures import references

from hios.ir import CompiledGraph
from hios_tvm.models.light import load_light
from relay_passes import compile_graph


@dataclass(frozen=True)
class LightNetwork:
    """A compiled light network with inputs and what ONNX Runtime makes of them."""

    name: str
    compiled: CompiledGraph
    input_name: str
    inputs: tuple[np.ndarray, ...]
    references: tuple[np.ndarray, ...]


@pytest.fixture(scope="session")
def light_network():
    """Return a function from a name to a `LightNetwork`, which builds each network once."""
    built = {}

    def build(name):
        if name not in built:
            model = load_light(name)
            rng = np.random.default_rng(7)
            shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
            inputs = tuple(rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
            found = tuple(out[0] for out in references(model, [[x] for x in inputs]))
            built[name] = LightNetwork(
                name, compile_graph(model), model.graph.input[0].name, inputs, found
            )
        return built[name]

    return build
