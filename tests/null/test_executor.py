"""The executor without TVM: the null backend, the checks of inputs, its life and death."""

import os
import threading

import numpy as np
import pytest
from cuda_model import ModelDriver
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_cases import machine_of, random_case

from graph_executor.backend import KernelFailed, Program
from graph_executor.executor import (
    ExecutorOptions,
    GraphExecutor,
    output_names,
    random_inputs,
)
from graph_executor.null import NullBackend
from graph_executor.plan import Copy, Launch, Plan, StreamQueue, Wait
from graph_executor.planner import make_plan
from hios.errors import (
    DeviceUnavailable,
    ExecutionError,
    InfeasibleSchedule,
    InputMismatch,
    InvalidOption,
)
from hios.ir import (
    CompiledGraph,
    DeviceId,
    Operator,
    OpGraph,
    OpId,
    Placement,
    Schedule,
    StreamId,
    Tensor,
    TensorId,
)
from hios.statistics import Samples

NULL = ExecutorOptions(backend="null")


class NoKernels:
    target = "none"
    tvm_version = "none"
    module = None

    def export(self, path):
        raise NotImplementedError


def compiled_of(graph: OpGraph, **attrs: str) -> CompiledGraph:
    return CompiledGraph(graph, NoKernels(), {}, attrs)


def adder() -> OpGraph:
    graph = OpGraph(
        "adder",
        (Operator(OpId(0), "add", "add", "k", (TensorId(0), TensorId(1)), (TensorId(2),)),),
        (
            Tensor(TensorId(0), "a", (2, 3), "float32", 24, None, (OpId(0),)),
            Tensor(TensorId(1), "b", (), "int64", 8, None, (OpId(0),)),
            Tensor(TensorId(2), "sum", (2, 3), "float32", 24, OpId(0)),
        ),
        (TensorId(0), TensorId(1)),
        (TensorId(2), TensorId(2)),
    )
    graph.validate()
    return graph


@pytest.fixture
def executor():
    schedule = Schedule("test", (Placement(OpId(0), DeviceId(0)),))
    with GraphExecutor(compiled_of(adder()), machine_of("cpu", 1, 1), schedule, NULL) as made:
        yield made


GOOD = {"a": np.zeros((2, 3), np.float32), "b": np.int64(1).reshape(())}


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_null_backend_walks_every_instruction_in_an_order_that_the_events_allow(seed):
    case = random_case(seed)
    plan = make_plan(case.graph, case.machine, case.schedule)
    backend = NullBackend(Program(plan, case.graph, case.machine, None, {}))
    backend.run()
    assert len(backend.walked) == sum(len(q.instructions) for q in plan.queues)
    seen = set()
    for queue, position in backend.walked:
        instruction = plan.queues[queue].instructions[position]
        if isinstance(instruction, Wait):
            assert instruction.event in seen
        elif not isinstance(instruction, Launch | Copy):
            seen.add(instruction.event)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_null_profile_has_every_operator_and_transfer(seed):
    case = random_case(seed)
    with GraphExecutor(compiled_of(case.graph), case.machine, case.schedule, NULL) as executor:
        timeline = executor.profile(runs=1, warmup=0)
        outputs = executor.run(random_inputs(case.graph))
    assert len(outputs) == len(case.graph.outputs)
    operators = [e for e in timeline.events if e.kind == "operator"]
    assert sorted(e.subject for e in operators) == list(range(len(case.graph.operators)))
    where = case.schedule.placement_of()
    for e in operators:
        placement = where[e.subject]
        assert (e.device, e.stream, e.stage) == (
            placement.device,
            placement.stream,
            placement.stage,
        )
    transfers = [e for e in timeline.events if e.kind == "transfer"]
    assert len(transfers) == executor.plan.count(Copy)


def test_null_backend_refuses_a_deadlock():
    case = random_case(1)
    plan = Plan("x", 1, (StreamQueue(DeviceId(0), StreamId(0), (Wait(0),)),), (), 1)
    with pytest.raises(ExecutionError, match="deadlocks"):
        NullBackend(Program(plan, case.graph, case.machine, None, {})).run()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"a": GOOD["a"]}, "input 'b' is missing; this model takes a: 2x3 float32, b: scalar"),
        ({**GOOD, "c": GOOD["a"]}, "no input 'c'; this model takes a"),
        ({**GOOD, "a": np.zeros((3, 2), np.float32)}, "'a' has shape 3x2, needs 2x3"),
        ({**GOOD, "a": np.zeros((2, 3))}, "'a' has dtype float64, needs float32"),
        ({**GOOD, "a": [[1.0] * 3] * 2}, "'a' is a list; pass a numpy array"),
        ([GOOD["a"]], "inputs are a list, need a mapping"),
    ],
)
def test_wrong_inputs_say_what_is_expected(executor, inputs, message):
    with pytest.raises(InputMismatch, match=message.replace("(", r"\(")):
        executor.run(inputs)


def test_inputs_come_through_dlpack(executor):
    class Carrier:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **kwargs):
            return self.array.__dlpack__(**kwargs)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    assert executor.run({**GOOD, "a": Carrier(GOOD["a"])})["sum"].shape == (2, 3)

    class Elsewhere(Carrier):
        def __dlpack__(self, **kwargs):
            raise BufferError("on a GPU")

    with pytest.raises(InputMismatch, match="on a GPU"):
        executor.run({**GOOD, "a": Elsewhere(GOOD["a"])})


def test_output_names_are_distinct_and_follow_the_signature(executor):
    assert list(executor.run(GOOD)) == ["sum", "sum_2"]
    assert output_names(compiled_of(adder(), outputs="x\ny")) == ("x", "y")
    assert output_names(compiled_of(adder(), outputs="x")) == ("sum", "sum_2")
    assert executor.output_signature == {"sum": ((2, 3), "float32"), "sum_2": ((2, 3), "float32")}
    assert executor.input_signature == {"a": ((2, 3), "float32"), "b": ((), "int64")}


def test_closed_executor_says_so(executor):
    executor.close()
    executor.close()
    with pytest.raises(ExecutionError, match="is closed"):
        executor.run(GOOD)
    with pytest.raises(ExecutionError, match="is closed"):
        executor.benchmark(1)


def test_close_during_a_run_is_refused_and_runs_are_served_one_by_one(executor):
    entered, leave = threading.Event(), threading.Event()
    inside = []

    def slow():
        inside.append(1)
        entered.set()
        assert leave.wait(10)
        assert len(inside) == 1
        inside.pop()

    executor._backend.run = slow
    threads = [threading.Thread(target=executor.run, args=(GOOD,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert entered.wait(10)
    with pytest.raises(ExecutionError, match="during a run"):
        executor.close()
    leave.set()
    for thread in threads:
        thread.join(10)
    assert not inside
    executor.close()


def test_fork_cannot_use_the_executor_of_its_parent(executor, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: executor._process + 1)
    executor._lock.acquire()  # as if the fork had happened during a run
    with pytest.raises(ExecutionError, match="one executor per process"):
        executor.run(GOOD)
    executor.close()
    executor._lock.release()


def test_failed_kernel_is_named(executor):
    def fail():
        raise KernelFailed(0, 0, ValueError("bad shape\nand a long trace"))

    works = executor._backend.run
    executor._backend.run = fail
    with pytest.raises(ExecutionError) as caught:
        executor.run(GOOD)
    assert str(caught.value) == "operator 'add' (kernel 'k') failed on cpu:0 stream 0: bad shape"
    executor._backend.run = works
    assert executor.run(GOOD)


def test_options_and_devices_are_checked(executor):
    with pytest.raises(InvalidOption, match="unknown backend 'tpu'"):
        GraphExecutor(
            compiled_of(adder()),
            executor.machine,
            executor.schedule,
            ExecutorOptions(backend="tpu"),
        )
    with pytest.raises(DeviceUnavailable, match="'cuda:0' is not there: no CUDA device"):
        GraphExecutor(
            compiled_of(adder()),
            machine_of("cuda", 1, 1),
            executor.schedule,
            ExecutorOptions(driver=ModelDriver(0)),
        )
    with pytest.raises(DeviceUnavailable, match="'cpu:0' is of kind 'cpu'"):
        GraphExecutor(
            compiled_of(adder()),
            executor.machine,
            executor.schedule,
            ExecutorOptions(backend="cuda"),
        )
    with pytest.raises(InfeasibleSchedule):
        GraphExecutor(compiled_of(adder()), executor.machine, Schedule("empty", ()), NULL)
    for call in (lambda: executor.benchmark(0), lambda: executor.profile(0)):
        with pytest.raises(InvalidOption, match="need"):
            call()


def test_benchmark_counts_its_samples(executor):
    samples = executor.benchmark(repeat=7, warmup=2)
    assert len(samples.times_us) == 7
    assert 0 < samples.min_us <= samples.p10_us <= samples.median_us <= samples.p90_us


def test_percentiles_interpolate():
    samples = Samples.of([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (samples.median_us, samples.percentile_us(0), samples.percentile_us(100)) == (3, 1, 5)
    assert samples.p10_us == pytest.approx(1.4)
    assert samples.p99_us == pytest.approx(4.96)
    assert samples.mean_us == 3
    assert samples.spread == pytest.approx((4.6 - 1.4) / 2 / 3)
