"""The executor on CPU cores: right bits, kept apart, overlapping, and clean at the end."""

import gc
import os
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from small_kernels import (
    LENGTH,
    Kernels,
    build_kernels,
    cpu_machine,
    random_compiled,
    random_cpu_schedule,
)
from tvm import te

import graph_executor.executor as executor_module
from graph_executor.executor import ExecutorOptions, GraphExecutor, random_inputs
from graph_executor.plan import Copy, Plan
from graph_executor.tvm_runtime import Memory, bind_copy, bind_launch, find_kernel
from hios.errors import ArtifactMismatch, DeviceUnavailable, ExecutionError, InvalidPlan
from hios.ir import (
    CompiledGraph,
    DeviceId,
    Operator,
    OpGraph,
    OpId,
    Placement,
    Schedule,
    StageId,
    StreamId,
    Tensor,
    TensorId,
)
from relay_passes.offset_factor import AllowOffsets

POISONED = ExecutorOptions(is_poisoned=True)
CORES = sorted(os.sched_getaffinity(0))
FIRST, LAST = CORES[0], CORES[-1]
two_cores = pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")


@pytest.fixture(scope="module")
def kernels():
    return build_kernels()


def sequential(graph: OpGraph) -> Schedule:
    return Schedule(
        "sequential", tuple(Placement(op, DeviceId(0)) for op in graph.topological_order())
    )


def chain(kernels, length: int) -> CompiledGraph:
    tensors = [
        Tensor(
            TensorId(i),
            f"t{i}",
            (LENGTH,),
            "float32",
            4 * LENGTH,
            OpId(i - 1) if i else None,
            (OpId(i),) if i < length else (),
        )
        for i in range(length + 1)
    ]
    operators = [
        Operator(OpId(i), f"op{i}", "mix", "mix_1_1", (TensorId(i),), (TensorId(i + 1),))
        for i in range(length)
    ]
    graph = OpGraph("chain", tuple(operators), tuple(tensors), (TensorId(0),), (TensorId(length),))
    graph.validate()
    return CompiledGraph(graph, kernels, {})


MACHINES = [
    cpu_machine([(FIRST,), (LAST,)], 1),
    cpu_machine([(FIRST,), (LAST,)], 2),
    cpu_machine([tuple(dict.fromkeys((FIRST, LAST)))], 2),
    cpu_machine([tuple(dict.fromkeys((FIRST, LAST))), (FIRST,), (LAST,)], 3),
]


@pytest.mark.parametrize("machine", MACHINES, ids=["2x1", "2x1x2", "1x2x2", "3x2x3"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_schedule_gives_the_bits_of_the_sequential_run(kernels, machine, seed):
    compiled = random_compiled(seed, kernels)
    inputs = random_inputs(compiled.graph, seed)
    with GraphExecutor(
        compiled, cpu_machine([(FIRST,)], 1), sequential(compiled.graph), POISONED
    ) as reference:
        expected = reference.run(inputs)
    schedule = random_cpu_schedule(seed, compiled.graph, machine)
    with GraphExecutor(compiled, machine, schedule, POISONED) as executor:
        for _ in range(3):
            found = executor.run(inputs)
            assert list(found) == list(expected)
            for name, value in expected.items():
                assert np.isfinite(value).all()
                np.testing.assert_array_equal(found[name], value)


def test_kernels_compute_what_they_say(kernels):
    compiled = chain(kernels, 2)
    x = np.linspace(-1, 1, LENGTH, dtype=np.float32)
    with GraphExecutor(
        compiled, cpu_machine([(FIRST,)], 1), sequential(compiled.graph)
    ) as executor:
        (found,) = executor.run({"t0": x}).values()
    expected = (x * 0.7 + 0.01) * 0.7 + 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_outputs_own_their_memory_and_views_do_not(kernels):
    compiled = chain(kernels, 3)
    first = np.full(LENGTH, 1.0, np.float32)
    second = np.full(LENGTH, 2.0, np.float32)
    with GraphExecutor(
        compiled, cpu_machine([(FIRST,), (LAST,)], 1), sequential(compiled.graph)
    ) as executor:
        kept = executor.run({"t0": first})["t3"]
        value = kept.copy()
        view = executor.run({"t0": first}, copy=False)["t3"]
        later = executor.run({"t0": second})["t3"]
        np.testing.assert_array_equal(kept, value)
        assert not np.array_equal(later, value)
        np.testing.assert_array_equal(view, later)
    np.testing.assert_array_equal(kept, value)


def test_a_missing_copy_cannot_pass(kernels, monkeypatch):
    compiled = chain(kernels, 2)
    placements = (Placement(OpId(0), DeviceId(0)), Placement(OpId(1), DeviceId(1)))

    def without_copies(plan: Plan) -> Plan:
        def cut(queue):
            kept = tuple(i for i in queue.instructions if i not in dropped)
            return replace(queue, instructions=kept)

        dropped = [Copy(TensorId(1), DeviceId(0), DeviceId(1))]
        return replace(plan, streams=tuple(cut(queue) for queue in plan.streams))

    real = executor_module.make_plan
    monkeypatch.setattr(executor_module, "make_plan", lambda *args: without_copies(real(*args)))
    schedule = Schedule("test", placements)
    options = ExecutorOptions(is_validated=False, is_poisoned=True)
    with GraphExecutor(compiled, MACHINES[0], schedule, options) as executor:
        (found,) = executor.run(random_inputs(compiled.graph)).values()
    assert np.isnan(found).all()
    with pytest.raises(InvalidPlan, match="never gets to device 1"):
        GraphExecutor(compiled, MACHINES[0], schedule)


def test_kernels_refuse_tensors_of_another_device(kernels):
    here, there = Memory("cpu", 0, 4096), Memory("cpu", 1, 4096)
    kernel = find_kernel(kernels.module, "mix_1_1")
    source, target = here.tensor(0, (LENGTH,), "float32"), there.tensor(0, (LENGTH,), "float32")
    with pytest.raises(ValueError, match="device_id"):
        bind_launch(kernel, [source, target])()
    bind_copy(source, target)()
    np.testing.assert_array_equal(
        here.array(0, (LENGTH,), "int32"), there.array(0, (LENGTH,), "int32")
    )


def test_runs_from_several_threads_are_served_one_by_one(kernels):
    compiled = random_compiled(5, kernels)
    machine = MACHINES[0]
    schedule = random_cpu_schedule(5, compiled.graph, machine)
    problems = []
    with GraphExecutor(compiled, machine, schedule) as executor:
        expected = [executor.run(random_inputs(compiled.graph, s)) for s in range(4)]

        def ask(seed: int) -> None:
            for _ in range(20):
                found = executor.run(random_inputs(compiled.graph, seed))
                for name, value in expected[seed].items():
                    if not np.array_equal(found[name], value):
                        problems.append((seed, name))

        threads = [threading.Thread(target=ask, args=(s,)) for s in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not problems


def hios_threads() -> set[str]:
    return {t.name for t in threading.enumerate() if t.name.startswith("hios-")}


def native_threads() -> int:
    return len(os.listdir("/proc/self/task"))


def test_close_ends_all_threads(kernels):
    compiled = random_compiled(7, kernels)
    machine = MACHINES[3]
    schedule = random_cpu_schedule(7, compiled.graph, machine)
    GraphExecutor(compiled, machine, schedule).close()
    before = native_threads()
    for _ in range(3):
        executor = GraphExecutor(compiled, machine, schedule)
        executor.run(random_inputs(compiled.graph))
        assert hios_threads()
        assert native_threads() > before
        executor.close()
        assert not hios_threads()
    deadline = time.monotonic() + 5
    while native_threads() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert native_threads() <= before


def test_threads_of_a_forgotten_executor_end_as_well(kernels):
    compiled = chain(kernels, 2)
    executor = GraphExecutor(compiled, MACHINES[0], sequential(compiled.graph))
    executor.run(random_inputs(compiled.graph))
    assert hios_threads()
    del executor
    gc.collect()
    deadline = time.monotonic() + 5
    while hios_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not hios_threads()


def test_idle_executor_burns_no_core(kernels):
    compiled = random_compiled(9, kernels)
    machine = MACHINES[0]
    schedule = random_cpu_schedule(9, compiled.graph, machine)
    before = set(os.listdir("/proc/self/task"))  # what earlier tests left is not ours
    with GraphExecutor(compiled, machine, schedule) as executor:
        executor.run(random_inputs(compiled.graph))
        own = set(os.listdir("/proc/self/task")) - before
        assert own
        time.sleep(0.2)  # TVM's own pool, where it has threads, spins for a while
        begin = cpu_seconds(own)
        time.sleep(0.5)
        assert cpu_seconds(own) - begin < 0.05


def cpu_seconds(tids: set[str]) -> float:
    """Processor time that the native threads `tids` of this process took, user and system."""
    ticks = 0
    for tid in tids:
        with suppress(FileNotFoundError):  # it has ended
            fields = Path(f"/proc/self/task/{tid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def test_a_child_process_gets_a_clear_error(kernels):
    compiled = chain(kernels, 2)
    with GraphExecutor(compiled, MACHINES[0], sequential(compiled.graph)) as executor:
        inputs = random_inputs(compiled.graph)
        executor.run(inputs)
        child = os.fork()
        if child == 0:
            try:
                executor.run(inputs)
            except ExecutionError as problem:
                os._exit(0 if "one executor per process" in str(problem) else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        executor.run(inputs)


def failing_library(kernels) -> Kernels:
    """Kernels of which one checks a shape that the graph does not have."""
    a = te.placeholder((LENGTH // 2,), name="a")
    b = te.compute((LENGTH // 2,), lambda i: a[i], name="b")
    function = te.create_prim_func([a, b]).with_attr("global_symbol", "broken")
    broken = tvm.compile(AllowOffsets()(tvm.IRModule({"broken": function})), target="llvm")

    class Both:
        def get_function(self, name, query_imports=False):
            module = broken.jit() if name == "broken" else kernels.module
            return module.get_function(name, query_imports=query_imports)

    return Kernels(Both(), None)


@pytest.mark.parametrize("device", [0, 1])
def test_failing_kernel_is_named_and_the_executor_survives(kernels, device):
    compiled = chain(failing_library(kernels), 6)
    operators = [*compiled.graph.operators]
    operators[3] = replace(operators[3], kernel="broken")
    compiled = replace(compiled, graph=replace(compiled.graph, operators=tuple(operators)))
    placements = tuple(
        Placement(OpId(i), DeviceId((i + 1 + device) % 2), StreamId(0)) for i in range(6)
    )
    with GraphExecutor(compiled, MACHINES[0], Schedule("test", placements)) as executor:
        for _ in range(3):
            with pytest.raises(ExecutionError) as caught:
                executor.run(random_inputs(compiled.graph))
            name = f"cpu:{device}"
            assert str(caught.value).startswith(
                f"operator 'op3' (kernel 'broken') failed on {name} stream 0: "
            )
            assert "\n" not in str(caught.value)
    assert not hios_threads()
    fine = chain(kernels, 6)
    with GraphExecutor(fine, MACHINES[0], Schedule("test", placements)) as executor:
        assert np.isfinite(executor.run(random_inputs(fine.graph))["t6"]).all()


def test_missing_kernels_weights_and_cores_are_named(kernels):
    compiled = chain(kernels, 1)
    operator = replace(compiled.graph.operators[0], kernel="nowhere")
    wrong = replace(compiled, graph=replace(compiled.graph, operators=(operator,)))
    with pytest.raises(ArtifactMismatch, match="no function 'nowhere'"):
        GraphExecutor(wrong, MACHINES[0], sequential(compiled.graph))
    assert not hios_threads()
    seed = next(s for s in range(100) if any(random_compiled(s, kernels).params) and s != 0)
    weighty = random_compiled(seed, kernels)
    with pytest.raises(ArtifactMismatch, match="has no data"):
        GraphExecutor(replace(weighty, params={}), MACHINES[0], sequential(weighty.graph))
    with pytest.raises(DeviceUnavailable, match="needs core 4096; this process may use cores"):
        GraphExecutor(compiled, cpu_machine([(4096,)], 1), sequential(compiled.graph))
    with pytest.raises(DeviceUnavailable, match="names no cores"):
        GraphExecutor(compiled, cpu_machine([()], 1), sequential(compiled.graph))


# Real overlap.

ROUNDS = 3_000_000


@pytest.fixture(scope="module")
def slow_kernels():
    """One kernel that takes about ten milliseconds, with the interface of ``mix_1_1``."""
    a = te.placeholder((LENGTH,), name="a")
    k = te.reduce_axis((0, ROUNDS), name="k")
    b = te.compute((1,), lambda i: te.sum(a[k % LENGTH] * te.exp(a[i + k % 7]), axis=k), name="acc")
    c = te.compute((LENGTH,), lambda i: b[0] + a[i], name="b")
    function = te.create_prim_func([a, c]).with_attr("global_symbol", "slow")
    function = function.with_attr("tirx.noalias", True)
    executable = tvm.compile(AllowOffsets()(tvm.IRModule({"slow": function})), target="llvm")
    return Kernels(executable.jit(), executable)


def two_branches(slow_kernels) -> CompiledGraph:
    """x -> a, x -> b, both -> c and d as a second stage."""
    read = {0: (0, 1), 1: (2,), 2: (3,)}
    tensors = [Tensor(TensorId(0), "x", (LENGTH,), "float32", 4 * LENGTH, None, (0, 1))]
    operators = []
    for i, source in enumerate((0, 0, 1, 2)):
        operators.append(
            Operator(OpId(i), f"op{i}", "slow", "slow", (TensorId(source),), (TensorId(i + 1),))
        )
        tensors.append(
            Tensor(
                TensorId(i + 1),
                f"t{i + 1}",
                (LENGTH,),
                "float32",
                4 * LENGTH,
                OpId(i),
                read.get(i + 1, ()),
            )
        )
    graph = OpGraph(
        "branches",
        tuple(operators),
        tuple(tensors),
        (TensorId(0),),
        (TensorId(3), TensorId(4)),
    )
    graph.validate()
    return CompiledGraph(graph, slow_kernels, {})


def overlapping_profile(executor):
    """Profile until the first two kernels overlap: another process may hold one of the cores."""
    for _ in range(30):
        timeline = executor.profile(runs=1, warmup=0)
        first, second = [e for e in timeline.events if e.kind == "operator"][:2]
        if second.start_us < first.end_us:
            break
    return timeline


@two_cores
def test_kernels_of_one_stage_overlap_and_none_crosses_its_stage(slow_kernels):
    compiled = two_branches(slow_kernels)
    placements = tuple(
        Placement(OpId(op), DeviceId(0), StreamId(op % 2), StageId(op // 2)) for op in range(4)
    )
    machine = cpu_machine([(FIRST, LAST)], 2)
    with GraphExecutor(compiled, machine, Schedule("staged", placements)) as executor:
        timeline = overlapping_profile(executor)
        found = executor.run(random_inputs(compiled.graph))
    with GraphExecutor(compiled, machine, sequential(compiled.graph)) as executor:
        expected = executor.run(random_inputs(compiled.graph))
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    event = {e.subject: e for e in timeline.events}
    assert {e.stage for e in timeline.events} == {0, 1}
    shared = min(event[0].end_us, event[1].end_us) - max(event[0].start_us, event[1].start_us)
    assert shared > 0, "the kernels of one stage did not run at once"
    for early in (0, 1):
        for late in (2, 3):
            assert event[early].end_us <= event[late].start_us


@two_cores
def test_two_devices_work_at_once(slow_kernels):
    compiled = two_branches(slow_kernels)
    placements = tuple(Placement(OpId(op), DeviceId(op % 2)) for op in range(4))
    machine = cpu_machine([(FIRST,), (LAST,)], 1)
    with GraphExecutor(compiled, machine, Schedule("two", placements)) as executor:
        timeline = overlapping_profile(executor)
    operators = {e.subject: e for e in timeline.events if e.kind == "operator"}
    assert operators[1].start_us < operators[0].end_us
    assert operators[0].start_us < operators[1].end_us
    transfers = {(e.device, e.dst): e for e in timeline.events if e.kind == "transfer"}
    assert set(transfers) == {(0, 1), (1, 0)}
    assert transfers[0, 1].end_us <= operators[1].start_us
    assert transfers[1, 0].start_us >= operators[3].end_us
