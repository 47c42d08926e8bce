"""The CUDA backend on a model of CUDA: legal calls, the plan's order, the right numbers."""

import gc
from dataclasses import replace

import numpy as np
import pytest
from cuda_cases import case_inputs, compiled_case, expected_outputs
from cuda_model import ModelDriver
from cuda_order import promised_order
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_cases import random_case

from graph_executor.cuda.issue import issue_order
from graph_executor.executor import ExecutorOptions, GraphExecutor
from graph_executor.plan import Copy, Launch, Plan, StreamQueue, Wait
from graph_executor.planner import make_plan
from graph_executor.race_detector import moments
from hios.errors import (
    DeviceUnavailable,
    ExecutionError,
    HiosError,
    InputMismatch,
    InvalidOption,
    InvalidPlan,
)
from hios.ir import DeviceId, Machine, StreamId

MODES = ("graph", "eager")


def cuda_case(seed, operators=14, most_devices=3):
    return random_case(seed, operators, kinds=("cuda",), most_devices=most_devices)


def on_one_gpu(machine: Machine) -> Machine:
    """The same logical devices, all of them one GPU."""
    return replace(
        machine,
        devices=tuple(replace(device, hardware="cuda:0") for device in machine.devices),
    )


def open_case(case, driver, mode="graph", machine=None, poisoned=True):
    options = ExecutorOptions(mode=mode, is_poisoned=poisoned, driver=driver)
    return GraphExecutor(compiled_case(case.graph), machine or case.machine, case.schedule, options)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), mode=st.sampled_from(MODES), one_gpu=st.booleans())
def test_any_plan_runs_legally_with_the_right_numbers(seed, mode, one_gpu):
    case = cuda_case(seed)
    machine = on_one_gpu(case.machine) if one_gpu else case.machine
    driver = ModelDriver(1 if one_gpu else len(machine.devices), seed=seed)
    with open_case(case, driver, mode, machine) as executor:
        for _ in range(2):
            outputs = executor.run(case_inputs(case.graph))
            found = [array.tobytes() for array in outputs.values()]
            assert found == expected_outputs(case.graph)
        timeline = executor.profile(runs=1, warmup=0)
        assert len(timeline.events) == executor.plan.count(Launch) + executor.plan.count(Copy)
    assert driver.leaks == []


def actions_by_stream(executor):
    """For every stream number of the driver, the plan's launches and copies there, in order."""
    streams = executor._backend._streams.queues
    return {
        stream.handle.number: [
            instruction
            for instruction in queue.instructions
            if isinstance(instruction, Launch | Copy)
        ]
        for stream, queue in zip(streams, executor.plan.queues, strict=True)
    }


def promised_pairs(calls, by_stream):
    """Return (before, after) of instructions, and what was issued, for the calls of one run."""
    ordered = promised_order([c for c in calls if c.name != "upload"])
    place = dict.fromkeys(by_stream, 0)
    names = []
    for call, _ in ordered:
        names.append(by_stream[call.stream][place[call.stream]])
        place[call.stream] += 1
    return {(names[i], names[j]) for j, (_, past) in enumerate(ordered) for i in past}, names


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), mode=st.sampled_from(MODES))
def test_the_calls_promise_all_of_the_plans_order(seed, mode):
    case = cuda_case(seed)
    driver = ModelDriver(len(case.machine.devices), seed=seed)
    with open_case(case, driver, mode, poisoned=False) as executor:
        by_stream = actions_by_stream(executor)
        begin = next(
            (n for n, call in enumerate(driver.calls) if call.name == "begin_capture"),
            len(driver.calls),
        )
        executor.run(case_inputs(case.graph))
        calls = driver.calls[begin:]
        if mode == "graph":
            assert calls[0].name == "begin_capture"
            end = next(n for n, call in enumerate(calls) if call.name == "end_capture")
            # One launch per run, whatever the plan has.
            assert [c.name for c in calls[end + 1 :] if c.name in ("launch", "copy")] == []
            assert sum(c.name == "replay" for c in calls) == 1
            calls = calls[:end]
        found, issued = promised_pairs(calls, by_stream)
        assert sorted(map(str, issued)) == sorted(
            str(i)
            for q in executor.plan.queues
            for i in q.instructions
            if isinstance(i, Launch | Copy)
        )
        clocks = moments(executor.plan)
        wanted = {(a.what, b.what) for a in clocks for b in clocks if a.happens_before(b)}
        assert wanted <= found


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_events_are_recorded_before_anybody_waits(seed):
    case = cuda_case(seed)
    plan = make_plan(case.graph, case.machine, case.schedule)
    order = issue_order(plan)
    assert len(set(order)) == len(order) == sum(len(q.instructions) for q in plan.queues)
    recorded = set()
    for number, position in order:
        instruction = plan.queues[number].instructions[position]
        if isinstance(instruction, Wait):
            assert instruction.event in recorded
        elif not isinstance(instruction, Launch | Copy):
            recorded.add(instruction.event)


def test_a_plan_that_cannot_be_issued_is_refused():
    plan = Plan("x", 1, (StreamQueue(DeviceId(0), StreamId(0), (Wait(0),)),), (), 1)
    with pytest.raises(InvalidPlan, match="deadlocks"):
        issue_order(plan)


def test_a_missing_wait_shows_as_wrong_numbers_or_order():
    """The proofs above can fail: without the waits of the plan they do."""
    wrong = 0
    for seed in range(40):
        case = cuda_case(seed)
        driver = ModelDriver(len(case.machine.devices), seed=seed)
        with open_case(case, driver, "eager") as executor:
            body = executor._backend._body
            executor._backend._body = [
                step for step in body if getattr(step.call, "func", None) != driver.wait
            ]
            outputs = executor.run(case_inputs(case.graph))
            found = [array.tobytes() for array in outputs.values()]
            wrong += found != expected_outputs(case.graph)
    assert wrong > 5


def two_device_case():
    """A case with two devices and a copy between them."""
    for seed in range(1000):
        case = cuda_case(seed, operators=8, most_devices=2)
        if len(case.machine.devices) == 2 and len(case.graph.operators) >= 6:
            with open_case(case, ModelDriver(2)) as executor:
                if executor.plan.count(Copy) >= 2:
                    return case
    raise AssertionError("no such case")


@pytest.fixture(scope="module")
def case():
    return two_device_case()


def check_works(case, driver, mode="graph"):
    with open_case(case, driver, mode) as executor:
        outputs = executor.run(case_inputs(case.graph))
    assert [array.tobytes() for array in outputs.values()] == expected_outputs(case.graph)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "call", ["create_stream", "create_event", "allocate", "allocate_pinned", "upload", "fill"]
)
def test_a_failure_while_opening_gives_everything_back(case, call, mode):
    for after in range(2):
        driver = ModelDriver(2)
        driver.fail(call, "cudaErrorUnknown", after=after)
        with pytest.raises(ExecutionError, match="cudaErrorUnknown") as caught:
            open_case(case, driver, mode)
        assert "'cuda:" in str(caught.value) or call == "allocate_pinned"
        assert driver.leaks == []
        check_works(case, driver, mode)
        assert driver.leaks == []


@pytest.mark.parametrize("call", ["launch", "copy"])
def test_a_failure_in_the_capture_names_operator_device_and_stream(case, call):
    driver = ModelDriver(2)
    with open_case(case, driver) as executor:
        count = executor.plan.count(Launch if call == "launch" else Copy)
    assert count >= 2
    # The careful first run makes as many calls as the capture.
    for after in (0, count - 1, count, 2 * count - 1):
        driver.fail(call, "cudaErrorInvalidConfiguration", after=after)
        with pytest.raises(ExecutionError) as caught:
            open_case(case, driver)
        text = str(caught.value)
        assert "cudaErrorInvalidConfiguration" in text
        assert "\n" not in text
        if call == "launch":
            assert text.startswith("operator 'op")
            assert " on cuda:" in text
            assert " stream " in text
        else:
            assert text.startswith("copy of tensor")
            assert " from cuda:" in text
        assert driver.leaks == []
        check_works(case, driver)


@pytest.mark.parametrize("call", ["record", "wait", "begin_capture", "end_capture"])
def test_other_failures_in_the_capture_give_everything_back(case, call):
    driver = ModelDriver(2)
    with open_case(case, driver):
        made = driver._counts[call]
    for after in range(made):
        driver = ModelDriver(2)
        driver.fail(call, "cudaErrorUnknown", after=after)
        with pytest.raises(ExecutionError, match="cudaErrorUnknown"):
            open_case(case, driver)
        assert driver.leaks == []
    check_works(case, driver)


def test_a_failure_in_an_eager_run_leaves_the_executor_usable(case):
    driver = ModelDriver(2)
    with open_case(case, driver, "eager") as executor:
        driver.fail("launch", "cudaErrorInvalidValue", after=2)
        with pytest.raises(ExecutionError, match=r"operator 'op\d+' .* on cuda:\d stream \d"):
            executor.run(case_inputs(case.graph))
        outputs = executor.run(case_inputs(case.graph))
        assert [a.tobytes() for a in outputs.values()] == expected_outputs(case.graph)
    assert driver.leaks == []


def test_a_kernel_that_fails_on_the_device_is_named_by_the_careful_run(case):
    driver = ModelDriver(2)
    operator = case.graph.operators[2]
    driver.fail_kernel(operator.kernel, "CUDA_ERROR_ILLEGAL_ADDRESS")
    with pytest.raises(ExecutionError) as caught:
        open_case(case, driver)
    assert f"operator {operator.name!r}" in str(caught.value)
    assert "CUDA_ERROR_ILLEGAL_ADDRESS" in str(caught.value)
    assert driver.leaks == []


@pytest.mark.parametrize("mode", MODES)
def test_a_lost_device_closes_the_executor_and_says_so(case, mode):
    driver = ModelDriver(2)
    executor = open_case(case, driver, mode)
    driver.fail_kernel(case.graph.operators[0].kernel, "CUDA_ERROR_LAUNCH_FAILED")
    inputs = case_inputs(case.graph)
    with pytest.raises(HiosError, match="CUDA_ERROR_LAUNCH_FAILED") as caught:
        executor.run(inputs)
    assert "\n" not in str(caught.value)
    assert driver.leaks == []
    with pytest.raises(DeviceUnavailable, match="lost a device in an earlier run"):
        executor.run(inputs)
    executor.close()
    executor.close()


def test_a_second_executor_runs_on_the_device_that_is_left():
    case = cuda_case(3, most_devices=1)
    driver = ModelDriver(2)
    executor = open_case(case, driver)
    driver.fail_kernel(case.graph.operators[0].kernel, "CUDA_ERROR_ECC_UNCORRECTABLE")
    with pytest.raises(DeviceUnavailable, match="ECC"):
        executor.run(case_inputs(case.graph))
    driver._kernel_faults.clear()
    other = replace(case.machine, devices=(replace(case.machine.devices[0], hardware="cuda:1"),))
    with open_case(case, driver, machine=other) as second:
        outputs = second.run(case_inputs(case.graph))
    assert [a.tobytes() for a in outputs.values()] == expected_outputs(case.graph)


def test_out_of_memory_names_the_device(case):
    driver = ModelDriver(2, memory_bytes=256)
    with pytest.raises(DeviceUnavailable, match=r"device 'cuda:\d' has no \d+ bytes left"):
        open_case(case, driver)
    assert driver.leaks == []


def test_missing_devices_are_named(case):
    with pytest.raises(DeviceUnavailable, match="'cuda:1' is not there: one CUDA device"):
        open_case(case, ModelDriver(1))
    with pytest.raises(DeviceUnavailable, match="'cuda:0' is not there: no CUDA device"):
        open_case(case, ModelDriver(0))


def test_without_peer_access_copies_are_staged_and_right(case):
    driver = ModelDriver(2)
    driver.not_peers = {(0, 1), (1, 0)}
    check_works(case, driver)
    assert driver.copies_without_peer > 0
    driver = ModelDriver(2)
    check_works(case, driver)
    assert driver.copies_without_peer == 0


class DeviceTensor:
    """A DLPack tensor in the memory of a model device."""

    def __init__(self, driver, array, device):
        memory = driver.allocate(device, array.nbytes)
        self.model_tensor = driver.tensor(
            memory.part(0, array.nbytes), array.shape, str(array.dtype)
        )
        self.model_tensor.array[...] = array

    def __dlpack_device__(self):
        return (2, self.model_tensor.device)

    def __dlpack__(self, **_):
        raise BufferError("not in host memory")


def test_inputs_and_outputs_on_the_device(case):
    driver = ModelDriver(2)
    with open_case(case, driver) as executor:
        inputs = {
            name: DeviceTensor(driver, array, 1) for name, array in case_inputs(case.graph).items()
        }
        for copy in (True, False):
            outputs = executor.run(inputs, copy=copy, on_device=True)
            found = [tensor.array.tobytes() for tensor in outputs.values()]
            assert found == expected_outputs(case.graph)
            assert all(tensor.device == 0 for tensor in outputs.values())
        name, array = next(iter(case_inputs(case.graph).items()))
        wrong = DeviceTensor(driver, np.zeros((2, *array.shape), array.dtype), 0)
        with pytest.raises(InputMismatch, match="has shape"):
            executor.run(inputs | {name: wrong})
        strided = DeviceTensor(driver, array, 0)
        strided.model_tensor.array = np.zeros((2, *array.shape), array.dtype).T
        with pytest.raises(InputMismatch, match="not contiguous"):
            executor.run(inputs | {name: strided})


def test_outputs_stay_where_they_were_put(case):
    with open_case(case, ModelDriver(2)) as executor:
        inputs = case_inputs(case.graph)
        first = executor.run(inputs)
        kept = {name: array.copy() for name, array in first.items()}
        executor.run({name: np.roll(array, 1) for name, array in inputs.items()})
    for name, array in first.items():
        assert array.tobytes() == kept[name].tobytes()


def test_options_are_checked():
    with pytest.raises(InvalidOption, match="unknown mode"):
        ExecutorOptions(mode="lazy").validate()  # type: ignore[arg-type]
    ExecutorOptions("cuda", "eager").validate()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_kernels_that_may_run_at_once_divide_the_cache_alike(seed):
    case = cuda_case(seed)
    driver = ModelDriver(len(case.machine.devices), seed=seed)
    with open_case(case, driver, "graph") as executor:
        (end,) = (call for call in driver.calls if call.name == "end_capture")
        assert end.what == (len(executor.plan.queues) > 1)


def test_the_collector_rests_during_a_capture_and_works_afterwards(case):
    seen = []
    driver = ModelDriver(2)
    begin, end = driver.begin_capture, driver.end_capture
    driver.begin_capture = lambda origin: (seen.append(gc.isenabled()), begin(origin))[1]
    driver.end_capture = lambda *given: (seen.append(gc.isenabled()), end(*given))[1]
    with open_case(case, driver):
        assert seen == [False, False]
        assert gc.isenabled()
