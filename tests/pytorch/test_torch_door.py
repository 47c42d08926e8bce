"""PyTorch networks through `torch.export`; run by `make torch-test`, which brings PyTorch."""

import json

import numpy as np
import pytest

import hios_tvm
from hios.errors import UnsupportedModel
from hios_tvm.cli.main import main

torch = pytest.importorskip("torch")

# PyTorch deprecates parts of its own export while it runs it.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


class Branches(torch.nn.Module):
    """Two branches of convolutions behind a normalised stem, joined, pooled and classified."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.left = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.right = torch.nn.Conv2d(8, 8, 1)
        self.dense = torch.nn.Linear(16, 10)

    def forward(self, x):
        """Return the logits and the pooled features."""
        y = torch.relu(self.norm(self.stem(x)))
        pooled = torch.cat([self.left(y), self.right(y)], 1).mean((2, 3))
        return self.dense(pooled), pooled


class Attention(torch.nn.Module):
    """One block of self-attention with a residual and a normalisation."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.LayerNorm(32)
        self.project = torch.nn.ModuleList(torch.nn.Linear(32, 32) for _ in range(3))

    def forward(self, tokens):
        """Attend and add."""
        q, k, v = (project(self.norm(tokens)) for project in self.project)
        weights = torch.softmax(q @ k.transpose(-1, -2) / 32**0.5, -1)
        return tokens + weights @ v


def exported(network, *shape, **options):
    torch.manual_seed(0)
    network = network().eval()
    example = torch.randn(*shape)
    return network, example, torch.export.export(network, (example,), **options)


@pytest.mark.parametrize("as_file", [False, True])
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize(
    ("network", "shape", "name"),
    [(Branches, (1, 3, 16, 16), "x"), (Attention, (2, 12, 32), "tokens")],
)
def test_outputs_are_pytorchs(network, shape, name, devices, as_file, tmp_path):
    module, example, program = exported(network, *shape)
    if as_file:
        torch.export.save(program, tmp_path / "net.pt2")
        program = str(tmp_path / "net.pt2")
    with torch.no_grad():
        reference = module(example)
    reference = reference if isinstance(reference, tuple) else (reference,)
    with hios_tvm.build(program, devices=devices, costs="analytic", select=False) as model:
        outputs = list(model.run({name: example.numpy()}).values())
    assert len(outputs) == len(reference)
    for found, expected in zip(outputs, reference, strict=True):
        assert np.ptp(expected.numpy()) > 1e-3
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_dynamic_dimension():
    batch = torch.export.Dim("batch", min=1, max=8)
    module, _, program = exported(Branches, 2, 3, 16, 16, dynamic_shapes={"x": {0: batch}})
    with pytest.raises(UnsupportedModel, match="--shapes"):
        hios_tvm.build(program, costs="analytic", select=False)
    x = np.random.default_rng(0).standard_normal((3, 3, 16, 16), dtype=np.float32)
    shapes = {"x": (3, 3, 16, 16)}
    with hios_tvm.build(program, shapes=shapes, costs="analytic", select=False) as model:
        logits, _ = model.run({"x": x}).values()
    with torch.no_grad():
        np.testing.assert_allclose(logits, module(torch.from_numpy(x))[0], rtol=1e-4, atol=1e-5)


def test_command_line_reads_a_file(tmp_path, capsys):
    _, _, program = exported(Branches, 1, 3, 16, 16)
    torch.export.save(program, tmp_path / "net.pt2")
    arguments = ["--costs", "analytic", "--no-select", "-o", str(tmp_path / "net.hios"), "--json"]
    assert main(["compile", str(tmp_path / "net.pt2"), *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["operators"] > 3
    assert main(["run", str(tmp_path / "net.hios"), "--json"]) == 0
    shapes = [row["shape"] for row in json.loads(capsys.readouterr().out)["outputs"]]
    assert shapes == [[1, 10], [1, 16]]


def test_damaged_file_is_one_line(tmp_path, capfd):
    _, _, program = exported(Branches, 1, 3, 16, 16)
    path = tmp_path / "net.pt2"
    torch.export.save(program, path)
    path.write_bytes(path.read_bytes()[:1000])
    assert main(["compile", str(path)]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("hios: error: ")
    assert err.count("\n") == 1


def test_torch_tensors_go_in(tmp_path):
    module, example, program = exported(Branches, 1, 3, 16, 16)
    with hios_tvm.build(program, costs="analytic", select=False) as model:
        logits, _ = model.run({"x": example}).values()
    with torch.no_grad():
        np.testing.assert_allclose(logits, module(example)[0], rtol=1e-4, atol=1e-5)
