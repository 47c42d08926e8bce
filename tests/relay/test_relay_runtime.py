"""The adapter to TVM with Relay: offsets, device ids, threads."""

import os
import threading

import numpy as np
import pytest
import tvm
from relay_modules import module
from tvm import relay

from graph_executor import tvm_runtime
from graph_executor.tvm_runtime import relay_tvm
from hios.errors import ArtifactMismatch


@pytest.fixture(scope="module")
def kernel():
    x = relay.var("x", shape=(4, 16), dtype="float32")
    with tvm.transform.PassContext(opt_level=3):
        factory = relay.build(module([x], relay.exp(x)), target="llvm")
    return tvm_runtime.find_kernel(factory.lib, "tvmgen_default_fused_exp")


def test_this_generation_is_taken():
    assert tvm_runtime.Memory is relay_tvm.Memory
    assert tvm_runtime.runtime_version() == tvm.__version__


def test_kernels_read_and_write_parts_of_an_arena(kernel):
    memory = tvm_runtime.Memory("cpu", 1, 4096)
    memory.fill(0xFF)
    source = memory.array(256, (4, 16), "float32")
    source[...] = np.linspace(-1, 1, 64, dtype="float32").reshape(4, 16)
    tensors = [memory.tensor(offset, (4, 16), "float32") for offset in (256, 1024)]
    tvm_runtime.bind_launch(kernel, tensors)()
    np.testing.assert_allclose(memory.array(1024, (4, 16), "float32"), np.exp(source), rtol=1e-6)
    untouched = memory.array(1024 + 256, (1024,), "uint8")
    assert (untouched == 0xFF).all()


def test_tensors_keep_their_memory(kernel):
    made = [tvm_runtime.Memory("cpu", 0, 256).tensor(0, (4, 16), "float32") for _ in range(2)]
    call = tvm_runtime.bind_launch(kernel, made)
    del made
    for _ in range(100):
        np.ones(64, "float32")
        call()


def test_a_missing_copy_cannot_pass(kernel):
    tensors = [tvm_runtime.Memory("cpu", i, 256).tensor(0, (4, 16), "float32") for i in (0, 1)]
    with pytest.raises(RuntimeError, match="device_id"):
        tvm_runtime.bind_launch(kernel, tensors)()


def test_copies_go_between_devices():
    source, target = (tvm_runtime.Memory("cpu", i, 1024) for i in (0, 1))
    source.array(0, (64,), "float32")[...] = np.arange(64)
    target.fill(0)
    tvm_runtime.bind_copy(
        source.tensor(0, (64,), "float32"), target.tensor(512, (64,), "float32")
    )()
    np.testing.assert_array_equal(target.array(512, (64,), "float32"), np.arange(64))


def test_threads_live_on_the_cores_they_are_given():
    allowed = sorted(os.sched_getaffinity(0))
    found = {}

    def work(core):
        tvm_runtime.set_threads((core,))()
        found[core] = os.sched_getaffinity(0)

    threads = [threading.Thread(target=work, args=(core,)) for core in allowed[:2]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {core: {core} for core in allowed[:2]}


def test_kernels_that_are_not_there_are_named(kernel):
    x = relay.var("x", shape=(4,), dtype="float32")
    with tvm.transform.PassContext(opt_level=3):
        factory = relay.build(module([x], relay.exp(x)), target="llvm")
    with pytest.raises(ArtifactMismatch, match="no function 'other'"):
        tvm_runtime.find_kernel(factory.lib, "other")


def test_a_file_that_is_no_library_is_named(tmp_path):
    path = tmp_path / "wrong.so"
    path.write_bytes(b"no library")
    with pytest.raises(ArtifactMismatch, match=r"wrong\.so"):
        tvm_runtime.load_library(path)


def test_vector_extensions_of_a_target_are_told():
    assert "avx512f" in tvm_runtime.target_features('{"kind": "llvm", "mcpu": "skylake-avx512"}')
    assert tvm_runtime.target_features('{"kind": "cuda"}') == ()
