"""Every call of CUDA, held against the signatures of the bindings that are installed.

No driver is needed: functions of ``cuda.bindings.runtime`` are replaced by recorders that bind
their arguments to the real signature, things of cuda-core by recorders whose methods are held to
the stubs that cuda-core ships.
"""

import ast
import enum
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cuda.core", reason="cuda-core is not installed")
pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")

import cuda.core
from cuda.bindings import driver, runtime

from graph_executor.cuda import check as check_module
from graph_executor.cuda import cuda_driver, nvml
from graph_executor.cuda.check import check
from graph_executor.cuda.driver import CudaFailed, Event, Graph, Memory, Region, Stream

SUCCESS = runtime.cudaError_t.cudaSuccess


def stubs() -> dict[str, dict[str, ast.arguments | None]]:
    """Methods (None: a property) of every class in the stubs of cuda-core."""
    found: dict[str, dict[str, ast.arguments | None]] = {}
    bases: dict[str, list[str]] = {}
    folder = Path(cuda.core.__file__).parent
    for path in [*folder.rglob("*.pyi"), *folder.rglob("_memory/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ClassDef):
                continue
            name = f"system.{node.name}" if "system" in path.parts else node.name
            own = found.setdefault(name, {})
            bases[name] = [b.id for b in node.bases if isinstance(b, ast.Name)]
            for item in node.body:
                if isinstance(item, ast.FunctionDef):
                    if any(isinstance(d, ast.Attribute) for d in item.decorator_list):
                        continue  # a setter
                    names = [d.id for d in item.decorator_list if isinstance(d, ast.Name)]
                    own[item.name] = None if "property" in names else item.args
                elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                    own[item.target.id] = None
    for name, parents in bases.items():
        for parent in parents:
            for key, value in found.get(parent, {}).items():
                found.get(name, {}).setdefault(key, value)
    return found


STUBS = stubs()


def accepts(arguments: ast.arguments, given: int, named: set[str]) -> bool:
    """Whether a method (with self) takes so many positional arguments and these named ones."""
    positional = [a.arg for a in (*arguments.posonlyargs, *arguments.args)][1:]
    keyword = [a.arg for a in arguments.kwonlyargs]
    required = positional[: len(positional) - len(arguments.defaults)]
    needed = {
        a.arg for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d is None
    }
    covered = set(positional[:given]) | named
    fits = given <= len(positional) or arguments.vararg is not None
    return fits and named <= {*positional, *keyword} and {*required, *needed} <= covered


class Recorder:
    """Stands for a thing of cuda-core; refuses what the stubs of its class do not have."""

    def __init__(self, kind: str, log: list[tuple[str, Any]], **answers: Any) -> None:
        self._kind, self._log, self._answers = kind, log, answers

    def __getattr__(self, name: str) -> Any:
        known = STUBS[self._kind]
        if name not in known:
            raise AttributeError(f"{self._kind} of cuda-core has no {name}")
        if known[name] is None:
            return self._answers[name]
        arguments = known[name]
        assert arguments is not None

        def method(*given: Any, **named: Any) -> Any:
            assert accepts(arguments, len(given), set(named)), (self._kind, name, given, named)
            self._log.append((f"{self._kind}.{name}", (given, named)))
            answer = self._answers.get(name)
            return answer(*given, **named) if callable(answer) else answer

        method.__name__ = name
        return method


class Peers(set):
    """What `peer_accessible_by` is."""


@pytest.fixture
def log(monkeypatch):
    """The driver on recorders; the list of what was called."""
    calls: list[tuple[str, Any]] = []

    def replaced(name: str, *values: Any) -> Any:
        real = getattr(runtime, name)
        signature = inspect.signature(real)

        def function(*given: Any) -> Any:
            signature.bind(*given)
            calls.append((name, given))
            return (SUCCESS, *values)

        function.__name__ = name
        return function

    answers = {
        "cudaGetDeviceCount": (2,),
        "cudaMemGetInfo": (7, 9),
        "cudaStreamEndCapture": (4711,),
        "cudaGraphGetNodes": ([], 5),
        "cudaGraphInstantiate": (4712,),
    }
    source = ast.parse(inspect.getsource(cuda_driver))
    used = {
        node.attr
        for node in ast.walk(source)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "runtime"
    }
    for name in used:
        if not isinstance(getattr(runtime, name), enum.EnumMeta):
            monkeypatch.setattr(runtime, name, replaced(name, *answers.get(name, ())))

    pools: dict[int, Recorder] = {}

    class Handle(int):
        pass

    def stream(**_: Any) -> Recorder:
        return Recorder("Stream", calls, handle=Handle(77))

    def event(**_: Any) -> Recorder:
        return Recorder("Event", calls)

    class FakeDevice(Recorder):
        def __init__(self, ordinal: int) -> None:
            properties = Recorder(
                "DeviceProperties",
                calls,
                multiprocessor_count=132,
                l2_cache_size=50,
                clock_rate=1,
                memory_clock_rate=2,
                global_memory_bus_width=3,
                max_threads_per_multiprocessor=2048,
                max_blocks_per_multiprocessor=32,
                max_registers_per_multiprocessor=65536,
                max_shared_memory_per_multiprocessor=233472,
            )
            super().__init__(
                "Device",
                calls,
                name="H",
                uuid="u",
                compute_capability=(9, 0),
                properties=properties,
                create_stream=stream,
                create_event=event,
                can_access_peer=lambda peer: True,
            )
            self.ordinal = ordinal

    def pool(device: Any, options: Any = None) -> Recorder:
        arguments = STUBS["DeviceMemoryResource"]["__init__"]
        assert arguments is not None
        assert accepts(arguments, 1, {"options"})
        peers = Peers()
        made = Recorder(
            "DeviceMemoryResource",
            calls,
            peer_accessible_by=peers,
            allocate=lambda size, stream: Recorder("Buffer", calls, handle=4096),
        )
        pools[device.ordinal] = made
        return made

    monkeypatch.setattr(cuda_driver, "Device", FakeDevice)
    monkeypatch.setattr(cuda_driver, "DeviceMemoryResource", pool)
    calls.append(("pools", pools))
    return calls


def named(log: list[tuple[str, Any]], name: str) -> list[Any]:
    return [arguments for called, arguments in log if called == name]


def test_devices_streams_and_events(log):
    driver = cuda_driver.CudaDriver()
    assert driver.device_count() == 2
    facts = driver.facts(1)
    assert (facts.architecture, facts.free_bytes, facts.memory_bytes) == ("sm_90", 7, 9)
    assert facts.limits["threads"] == 2048
    assert driver.can_access_peer(0, 1)
    driver.enter(1)
    assert named(log, "cudaSetDevice") == [(1,)]
    stream, event = driver.create_stream(1), driver.create_event(1, True)
    assert named(log, "Device.create_stream")[0][1]["options"].nonblocking is True
    assert named(log, "Device.create_event")[0][1]["options"].timing_enabled is True
    driver.create_event(0)
    assert named(log, "Device.create_event")[1][1]["options"].timing_enabled is False
    driver.record(event, stream)
    driver.wait(stream, event)
    driver.sync(stream)
    assert named(log, "Stream.record") == [((event.handle,), {})]
    assert named(log, "Stream.wait") == [((event.handle,), {})]
    driver.destroy(stream)
    driver.destroy(event)
    assert len(named(log, "Stream.close")) == len(named(log, "Event.close")) == 1


def test_memory_comes_from_one_pool_per_device_open_to_its_peers(log):
    driver = cuda_driver.CudaDriver()
    memory = driver.allocate(0, 512, (0, 1))
    driver.allocate(0, 512)
    pools = named(log, "pools")[0]
    assert list(pools) == [0]
    assert pools[0].peer_accessible_by == {1}
    assert memory.pointer == 4096
    assert len(named(log, "Stream.sync")) == 2
    driver.destroy(memory)
    assert named(log, "Buffer.close") == [((memory.handle,), {})]


def test_copies_between_devices_are_peer_copies(log):
    driver = cuda_driver.CudaDriver()
    stream = driver.create_stream(0)
    here, there = Region(0, 1000, 64, None), Region(1, 2000, 64, None)
    driver.copy(there, here, stream)
    driver.copy(here, Region(0, 3000, 64, None), stream)
    assert named(log, "cudaMemcpyPeerAsync") == [(2000, 1, 1000, 0, 64, 77)]
    assert named(log, "cudaMemcpyAsync")[0][:3] == (1000, 3000, 64)
    data = np.zeros(16, np.float32)
    driver.upload(here, data, stream)
    driver.download(data, here, stream)
    driver.fill(here, 255, stream)
    kinds = [arguments[3].name for arguments in named(log, "cudaMemcpyAsync")]
    assert kinds == ["cudaMemcpyDeviceToDevice", "cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost"]
    assert named(log, "cudaMemsetAsync") == [(1000, 255, 64, 77)]


def test_capture_is_thread_local_and_graphs_are_uploaded(log):
    driver = cuda_driver.CudaDriver()
    stream = driver.create_stream(0)
    driver.begin_capture(stream)
    graph = driver.end_capture(stream)
    driver.replay(graph, stream)
    driver.destroy(graph)
    assert graph.nodes == 5
    ((handle, mode),) = named(log, "cudaStreamBeginCapture")
    assert (handle, mode.name) == (77, "cudaStreamCaptureModeThreadLocal")
    assert named(log, "cudaGraphInstantiate") == [(4711, 0)]
    assert named(log, "cudaGraphUpload") == [(4712, 77)]
    assert named(log, "cudaGraphLaunch") == [(4712, 77)]
    assert named(log, "cudaGraphExecDestroy") == [(4712,)]
    driver.begin_capture(stream)
    driver.abort_capture(stream)
    assert named(log, "cudaGraphDestroy") == [(4711,), (4711,)]


def test_kernels_that_run_at_once_ask_for_shared_memory(log, monkeypatch):
    """The copy among the nodes is left alone; a driver that does not know the hint is no error."""
    kinds = dict(zip((11, 12, 13), ("KERNEL", "MEMCPY", "KERNEL"), strict=True))
    asked = []

    def replace(name, answer):
        signature = inspect.signature(getattr(driver, name))

        def function(*given):
            signature.bind(*given)
            return answer(*given)

        function.__name__ = name
        monkeypatch.setattr(driver, name, function)

    def nodes(graph, count=0):
        assert int(graph) == 4711
        return done, [driver.CUgraphNode(n) for n in kinds][:count], len(kinds)

    def kind(node):
        return done, getattr(driver.CUgraphNodeType, f"CU_GRAPH_NODE_TYPE_{kinds[int(node)]}")

    def ask(node, attribute, value):
        asked.append((int(node), attribute.name, value.sharedMemCarveout))
        return (driver.CUresult.CUDA_ERROR_INVALID_VALUE,)

    done = driver.CUresult.CUDA_SUCCESS
    replace("cuGraphGetNodes", nodes)
    replace("cuGraphNodeGetType", kind)
    replace("cuGraphKernelNodeSetAttribute", ask)
    replace("cuGetErrorString", lambda error: (done, b"invalid argument"))
    monkeypatch.setitem(check_module._EXPLAIN, driver.CUresult, driver.cuGetErrorString)
    cuda = cuda_driver.CudaDriver()
    stream = cuda.create_stream(0)
    cuda.end_capture(stream)
    assert asked == []
    cuda.end_capture(stream, True)
    name = "CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT"
    assert asked == [(11, name, 100), (13, name, 100)]


def test_failures_carry_cudas_own_name():
    def failing():
        return (runtime.cudaError_t.cudaErrorMemoryAllocation,)

    with pytest.raises(CudaFailed) as caught:
        check(1, failing)
    assert str(caught.value) == (
        "failing failed on cuda:1: cudaErrorMemoryAllocation: out of memory"
    )
    assert caught.value.is_out_of_memory

    def raising():
        raise cuda.core._utils.cuda_utils.CUDAError("CUDA_ERROR_ILLEGAL_ADDRESS: bad\nmore")

    with pytest.raises(CudaFailed, match=r"CUDA_ERROR_ILLEGAL_ADDRESS: bad$") as caught:
        check(0, raising)
    assert caught.value.is_lost
    assert check(0, lambda: 5) == 5
    assert check(0, lambda: (SUCCESS,)) is None
    assert check(0, lambda: (SUCCESS, 3)) == 3
    assert check(0, lambda: (SUCCESS, 3, 4)) == (3, 4)


@pytest.mark.parametrize("error", [e for e in runtime.cudaError_t if "Illegal" in e.name])
def test_sticky_errors_of_the_runtime_are_known(error):
    assert CudaFailed("x", 0, error.name, "").is_lost == (
        error.name in ("cudaErrorIllegalAddress", "cudaErrorIllegalInstruction")
    )


def test_without_a_driver_there_are_no_devices():
    driver = cuda_driver.CudaDriver()
    if driver.device_count():
        pytest.skip("this machine has a CUDA device")
    assert nvml.device_health(0) is None


def test_memory_of_cuda_core_becomes_a_tensor_of_tvm():
    """The way from a buffer of cuda-core through DLPack to a typed view, on host memory."""
    from graph_executor import tvm_runtime

    class HostMemory(cuda.core.MemoryResource):
        is_device_accessible = property(lambda self: False)
        is_host_accessible = property(lambda self: True)
        is_managed = property(lambda self: False)
        device_id = property(lambda self: -1)

        def allocate(self, size, *, stream=None):
            raise NotImplementedError

        def deallocate(self, ptr, size, *, stream=None):
            pass

    raw = np.zeros(128, np.float32)
    start = -raw.ctypes.data % 64 // 4
    data = raw[start : start + 64]
    data[...] = np.arange(64)
    whole = cuda.core.Buffer.from_handle(data.ctypes.data, data.nbytes, mr=HostMemory())
    tensor = tvm_runtime.device_tensor(whole, data.ctypes.data, 0, (4, 16), "float32")
    assert np.array_equal(tensor.numpy(), data.reshape(4, 16))
    pinned = np.from_dlpack(whole).view(np.uint8)
    pinned[:4] = 255
    assert np.isnan(data[0])


def test_kernels_of_this_thread_follow_the_stream():
    import tvm_ffi

    from graph_executor import tvm_runtime

    device = tvm_ffi.device("cuda", 0)
    try:
        tvm_runtime.set_stream(0, 0x1230)
        assert tvm_ffi.get_raw_stream(device) == 0x1230
    finally:
        tvm_runtime.set_stream(0, 0)
    assert tvm_ffi.get_raw_stream(device) == 0


def test_every_attribute_of_nvml_is_there():
    device = STUBS["system.Device"]
    for name in nvml.USED:
        assert name in device, name
    assert isinstance(Stream(0, None), Stream)
    assert Event(0, None, False).is_timed is False
    assert Graph(None, 3).nodes == 3
    assert Memory(0, 8, 8, None).part(4, 4) == Region(0, 12, 4, None)
