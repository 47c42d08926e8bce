"""TensorRT never runs here: its calls are held against the real bindings, its model runs elsewhere.

The bindings (``pip install --no-deps tensorrt-cu12-bindings``, about one megabyte) need TensorRT's
libraries of gigabytes only to run. Libraries of the same names with empty functions let them be
imported, and then every class, method and parameter that our engine uses is looked up in them.
"""

import ast
import ctypes
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from command_line import small_network

from hios_tvm.contest import relative_error
from hios_tvm.engines import tensorrt
from hios_tvm.engines.protocol import TOLERANCES

SOURCE = Path(tensorrt.__file__)
PACKAGE = "tensorrt_bindings"

# What is called on objects that the bindings return, with what it is given beside the object.
CALLS = {
    ("Logger", "__init__"): 1,
    ("Builder", "__init__"): 1,
    ("Builder", "create_network"): 1,
    ("Builder", "create_builder_config"): 0,
    ("Builder", "build_serialized_network"): 2,
    ("OnnxParser", "__init__"): 2,
    ("OnnxParser", "parse"): 1,
    ("OnnxParser", "get_error"): 1,
    ("OnnxParser", "num_errors"): None,
    ("ParserError", "desc"): 0,
    ("IBuilderConfig", "set_flag"): 1,
    ("IBuilderConfig", "clear_flag"): 1,
    ("IBuilderConfig", "create_timing_cache"): 1,
    ("IBuilderConfig", "set_timing_cache"): 2,
    ("ITimingCache", "serialize"): 0,
    ("Runtime", "__init__"): 1,
    ("Runtime", "deserialize_cuda_engine"): 1,
    ("ICudaEngine", "create_execution_context"): 0,
    ("ICudaEngine", "num_io_tensors"): None,
    ("ICudaEngine", "get_tensor_name"): 1,
    ("ICudaEngine", "get_tensor_shape"): 1,
    ("ICudaEngine", "get_tensor_dtype"): 1,
    ("ICudaEngine", "get_tensor_mode"): 1,
    ("IExecutionContext", "set_tensor_address"): 2,
    ("IExecutionContext", "execute_async_v3"): 1,
}


@pytest.fixture(scope="module")
def bindings(tmp_path_factory):
    """The real bindings over empty libraries."""
    if importlib.util.find_spec(PACKAGE) is None:
        pytest.skip("no tensorrt bindings; pip install --no-deps tensorrt-cu12-bindings")
    compiler = shutil.which("cc") or shutil.which("gcc")
    folder = Path(importlib.util.find_spec(PACKAGE).origin).parent
    library = next(folder.glob("tensorrt*.so"))
    symbols = _undefined(library)
    stubs = tmp_path_factory.mktemp("stubs")
    source = stubs / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in symbols))
    for needed in _needed(library):
        made = stubs / needed
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{needed}", "-o", made, source]
        subprocess.run(command, check=True)
        ctypes.CDLL(str(made), mode=ctypes.RTLD_GLOBAL)
    return importlib.import_module(PACKAGE)


def _undefined(library):
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True
    ).stdout
    return re.findall(
        r" U ((?:create|get|init)\w*(?:INTERNAL|Registry|Version|Plugins))$", listed, re.M
    )


def _needed(library):
    listed = subprocess.run(
        ["objdump", "-p", library], capture_output=True, text=True, check=True
    ).stdout
    return re.findall(r"NEEDED\s+(libnv\w+\.so\.\d+)", listed)


def test_every_name_that_is_used_exists(bindings):
    chains = {
        ast.unparse(node)
        for node in ast.walk(ast.parse(SOURCE.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("trt.")
    }
    assert {"trt.Builder", "trt.OnnxParser", "trt.BuilderFlag.TF32", "trt.nptype"} <= chains
    for chain in chains:
        found = bindings
        for name in chain.split(".")[1:]:
            found = getattr(found, name)


@pytest.mark.parametrize(("owner", "method"), CALLS, ids=".".join)
def test_every_call_fits_a_signature(bindings, owner, method):
    member = getattr(getattr(bindings, owner), method)
    given = CALLS[owner, method]
    if given is None:
        assert isinstance(member, property)
        return
    counts = []
    for line in re.findall(rf"{method}\((.*)\) -> ", member.__doc__):
        parameters = re.findall(r"(\w+): [^=,]*(=)?", line)
        own = [default for name, default in parameters if name != "self"]
        counts.append((sum(not default for default in own), len(own)))
    assert any(least <= given <= most for least, most in counts), member.__doc__


def test_every_call_is_in_the_list():
    """A new call in the engine must be added to `CALLS`."""
    used = {
        node.func.attr
        for node in ast.walk(ast.parse(SOURCE.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    ours = {"_check", "_copy", "_enqueue"}
    ours |= {"values", "items", "append", "copy", "mkdir", "read_bytes"}
    ours |= {
        "is_file",
        "join",
        "require_onnx",
        "lacks_onnx",
        "SerializeToString",
        "empty",
        "nptype",
    }
    classes = {owner for owner, _ in CALLS}
    assert {name for name in used - ours - classes if not name.startswith("cuda")} <= {
        method for _, method in CALLS
    }


def test_the_cuda_calls_exist():
    runtime = pytest.importorskip("cuda.bindings.runtime")
    names = set(re.findall(r"(?:cuda|runtime)\.(cuda\w+)", SOURCE.read_text()))
    assert len(names) > 10
    assert [name for name in names if not hasattr(runtime, name)] == []


def test_the_half_precision_model_gives_the_answer_of_the_single_one():
    model = small_network()
    half = tensorrt.half_precision(model)
    x = np.random.default_rng(0).standard_normal((1, 3, 16, 16), dtype=np.float32)
    found, wanted = (
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"data": x}
        )
        for m in (half, model)
    )
    assert found[0].dtype == np.float32
    assert 1e-7 < relative_error(found, wanted) < TOLERANCES["fp16"]
