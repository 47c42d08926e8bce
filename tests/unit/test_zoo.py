"""Every network of the zoo, compiled and run in order, against ONNX Runtime."""

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from graph_executor.executor import GraphExecutor
from hios.ir import DeviceId, Placement, Schedule
from hios_tvm.machines import resolve_machine
from hios_tvm.models import zoo
from hios_tvm.models.listing import list_models
from relay_passes import compile_graph

# Same cells as nasnet_mobile and randwire_small, at twice the compilation time.
_TWINS = ("nasnet_large", "randwire_regular", "randwire_large")


def outputs_of_onnx_runtime(
    model: onnx.ModelProto,
    data: np.ndarray,  # type: ignore[type-arg]
) -> list[np.ndarray]:  # type: ignore[type-arg]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options)
    return [np.asarray(y) for y in session.run(None, {"data": data})]


def check(model: onnx.ModelProto) -> None:
    compiled = compile_graph(model)
    machine = resolve_machine("cpu:0")
    order = compiled.graph.topological_order()
    schedule = Schedule("sequential", tuple(Placement(op, DeviceId(0)) for op in order))
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    data = np.random.default_rng(5).standard_normal(shape, dtype=np.float32)
    with GraphExecutor(compiled, machine, schedule) as executor:
        found = executor.run({"data": data})
    expected = outputs_of_onnx_runtime(model, data)
    names = [output.name for output in model.graph.output]
    for name, reference in zip(names, expected, strict=True):
        assert reference.std() > 1e-2, "a flat output proves nothing"
        np.testing.assert_allclose(
            found[name], reference, rtol=1e-3, atol=1e-3 * float(np.abs(reference).max())
        )


@pytest.mark.parametrize("name", [name for name in zoo.NETWORKS if name not in _TWINS])
def test_small_network_agrees_with_onnx_runtime(name: str) -> None:
    check(zoo.build(name, max(zoo.NETWORKS[name].least_size, 16), width=0.1))


def test_a_batch_agrees_with_onnx_runtime() -> None:
    check(zoo.build("squeezenet_bypass", 31, batch=3, width=0.1))


@pytest.mark.full
@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_full_size_agrees_with_onnx_runtime(name: str) -> None:
    check(zoo.build(name))


@pytest.mark.full
@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_the_table_in_the_docs_is_true(name: str) -> None:
    page = Path(__file__).parents[2] / "docs" / "networks.md"
    (line,) = re.findall(rf"^\| `{name}` (?:\| \d+ ){{4}}\|.*$", page.read_text(), re.MULTILINE)
    (row,) = list_models([name], compiled=True)
    assert line == (
        f"| `{name}` | {row.size} | {row.operators} | {row.width} | {row.critical_path} "
        f"| {row.parameters / 1e6:.2f} M | {row.flops / 1e9:.2f} "
        f"| {row.critical_flops / 1e9:.2f} | {row.parallelism:.2f} |"
    )
