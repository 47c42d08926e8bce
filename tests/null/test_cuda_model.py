"""The model of CUDA refuses what CUDA's documents forbid: one illegal sequence for each rule."""

import numpy as np
import pytest
from cuda_model import IllegalCall, ModelDriver

from graph_executor.cuda.driver import CudaFailed


@pytest.fixture
def driver():
    return ModelDriver(devices=2)


def kernel(name="k"):
    return ModelDriver().find_kernel({name: lambda *arrays: None}, name)


def refuses(rule):
    return pytest.raises(IllegalCall, match=f"^{rule}:")


def test_unjoined_stream(driver):
    origin, side = driver.create_stream(0), driver.create_stream(0)
    fork = driver.create_event(0)
    driver.begin_capture(origin)
    driver.record(fork, origin)
    driver.wait(side, fork)
    with refuses("unjoined stream"):
        driver.end_capture(origin)


def test_work_behind_the_join_is_unjoined(driver):
    origin, side = driver.create_stream(0), driver.create_stream(1)
    fork, done = driver.create_event(0), driver.create_event(1)
    driver.begin_capture(origin)
    driver.record(fork, origin)
    driver.wait(side, fork)
    driver.record(done, side)
    driver.wait(origin, done)
    driver.use(side)
    driver.launch(1, kernel(), [])
    with refuses("unjoined stream"):
        driver.end_capture(origin)


def test_wait_across_captures(driver):
    origin, side = driver.create_stream(0), driver.create_stream(0)
    event, inside = driver.create_event(0), driver.create_event(0)
    driver.record(event, side)
    driver.begin_capture(origin)
    with refuses("wait across captures"):
        driver.wait(origin, event)
    driver.record(inside, origin)
    driver.end_capture(origin)
    with refuses("wait across captures"):
        driver.wait(side, inside)
    driver.begin_capture(side)
    with refuses("wait across captures"):
        driver.wait(side, inside)


def test_wait_before_its_record(driver):
    stream, event = driver.create_stream(0), driver.create_event(0)
    with refuses("wait before its record"):
        driver.wait(stream, event)


@pytest.mark.parametrize(
    ("rule", "call"),
    [
        ("host synchronisation in a capture", lambda d, s, e: d.sync(s)),
        ("allocation in a capture", lambda d, s, e: d.allocate(0, 8)),
        ("allocation in a capture", lambda d, s, e: d.allocate_pinned(8)),
        ("allocation in a capture", lambda d, s, e: d.create_event(0)),
        ("allocation in a capture", lambda d, s, e: d.create_stream(0)),
        ("allocation in a capture", lambda d, s, e: d.destroy(e)),
        ("capture in a capture", lambda d, s, e: d.begin_capture(s)),
        ("legacy stream", lambda d, s, e: d.launch(0, kernel(), [])),
    ],
)
def test_what_a_capture_forbids(driver, rule, call):
    stream, event = driver.create_stream(0), driver.create_event(0)
    driver.begin_capture(stream)
    with refuses(rule):
        call(driver, stream, event)


def test_the_other_stream_is_not_synchronised_either(driver):
    origin, other = driver.create_stream(0), driver.create_stream(1)
    driver.begin_capture(origin)
    with refuses("host synchronisation in a capture"):
        driver.sync(other)


def test_pageable_memory_in_a_capture(driver):
    stream, memory = driver.create_stream(0), driver.allocate(0, 64)
    pinned = driver.allocate_pinned(64)
    driver.begin_capture(stream)
    driver.upload(memory.part(0, 64), pinned.data, stream)
    with refuses("pageable memory in a capture"):
        driver.upload(memory.part(0, 64), np.zeros(64, np.uint8), stream)


def test_graph_launch_in_a_capture(driver):
    stream, other = driver.create_stream(0), driver.create_stream(0)
    driver.begin_capture(stream)
    graph = driver.end_capture(stream)
    driver.begin_capture(other)
    with refuses("graph launch in a capture"):
        driver.replay(graph, stream)


def test_end_of_a_capture_that_is_not_its_own(driver):
    origin, other = driver.create_stream(0), driver.create_stream(0)
    with refuses("end of a capture that is not its own"):
        driver.end_capture(origin)
    driver.begin_capture(origin)
    with refuses("end of a capture that is not its own"):
        driver.end_capture(other)


def test_event_of_another_device(driver):
    stream, event = driver.create_stream(0), driver.create_event(1)
    with refuses("event of another device"):
        driver.record(event, stream)
    one, two = driver.create_event(0, True), driver.create_event(1, True)
    with refuses("event of another device"):
        driver.elapsed_us(one, two)


def test_times_need_timed_events_that_are_done(driver):
    stream = driver.create_stream(0)
    plain, timed, later = (driver.create_event(0, timed) for timed in (False, True, True))
    with refuses("untimed event"):
        driver.elapsed_us(plain, timed)
    driver.record(timed, stream)
    driver.record(later, stream)
    with refuses("not done"):
        driver.elapsed_us(timed, later)
    driver.sync(stream)
    assert driver.elapsed_us(timed, later) > 0


def test_kernels_take_memory_of_their_device(driver):
    stream, memory = driver.create_stream(0), driver.allocate(1, 64)
    tensor = driver.tensor(memory.part(0, 64), (16,), "float32")
    driver.use(stream)
    with refuses("memory of another device"):
        driver.launch(0, kernel(), [tensor])
    with refuses("fill of another device"):
        driver.fill(memory.part(0, 64), 0, stream)


def test_kernels_without_a_stream_go_to_the_legacy_one(driver):
    stream = driver.create_stream(0)
    driver.use(stream)
    driver.leave(0)
    with refuses("legacy stream"):
        driver.launch(0, kernel(), [])


def test_memory_ends_where_it_ends(driver):
    stream, memory = driver.create_stream(0), driver.allocate(0, 64)
    with refuses("out of bounds"):
        driver.fill(memory.part(32, 64), 0, stream)
    with refuses("out of bounds"):
        driver.tensor(memory.part(0, 32), (16,), "float32")


def test_what_is_gone_is_gone(driver):
    stream, event, memory = driver.create_stream(0), driver.create_event(0), driver.allocate(0, 8)
    part = memory.part(0, 8)
    driver.destroy(event)
    driver.destroy(memory)
    with refuses("destroyed"):
        driver.record(event, stream)
    with refuses("destroyed"):
        driver.fill(part, 0, stream)
    with refuses("destroy twice"):
        driver.destroy(event)
    driver.destroy(stream)
    with refuses("destroyed"):
        driver.sync(stream)
    assert driver.leaks == []


def test_work_in_flight_keeps_its_memory(driver):
    stream, memory = driver.create_stream(0), driver.allocate(0, 8)
    driver.fill(memory.part(0, 8), 0, stream)
    with refuses("destroy with work in flight"):
        driver.destroy(memory)


def test_streams_that_nothing_orders_run_in_any_order():
    """Without a wait both orders happen, with one only one does: eager and captured alike."""
    for is_captured in (False, True):
        for is_ordered in (False, True):
            found = set()
            for seed in range(24):
                driver = ModelDriver(seed=seed)
                one, two = driver.create_stream(0), driver.create_stream(0)
                fork, event, done = (driver.create_event(0) for _ in range(3))
                memory = driver.allocate(0, 1).part(0, 1)
                if is_captured:
                    driver.begin_capture(one)
                    driver.record(fork, one)
                    driver.wait(two, fork)
                driver.fill(memory, 1, one)
                if is_ordered:
                    driver.record(event, one)
                    driver.wait(two, event)
                driver.fill(memory, 2, two)
                driver.record(done, two)
                driver.wait(one, done)
                if is_captured:
                    driver.replay(driver.end_capture(one), one)
                target = np.zeros(1, np.uint8)
                driver.download(target, memory, one)
                driver.sync(one)
                found.add(int(target[0]))
            assert found == ({2} if is_ordered else {1, 2})


def test_injected_faults(driver):
    stream, event = driver.create_stream(0), driver.create_event(0)
    driver.fail("record", "CUDA_ERROR_INVALID_HANDLE", after=1)
    driver.record(event, stream)
    with pytest.raises(CudaFailed, match="CUDA_ERROR_INVALID_HANDLE"):
        driver.record(event, stream)
    driver.record(event, stream)
    driver.sync(stream)


def test_a_fault_in_a_capture_makes_it_invalid_until_it_is_aborted(driver):
    stream, event = driver.create_stream(0), driver.create_event(0)
    driver.fail("launch", "cudaErrorInvalidConfiguration")
    driver.use(stream)
    driver.begin_capture(stream)
    with pytest.raises(CudaFailed, match="InvalidConfiguration"):
        driver.launch(0, kernel(), [])
    with pytest.raises(CudaFailed, match="Invalidated"):
        driver.record(event, stream)
    driver.abort_capture(stream)
    driver.record(event, stream)
    driver.sync(stream)


def test_memory_is_limited():
    driver = ModelDriver(memory_bytes=100)
    memory = driver.allocate(0, 80)
    with pytest.raises(CudaFailed, match="OUT_OF_MEMORY") as caught:
        driver.allocate(0, 80)
    assert caught.value.is_out_of_memory
    assert not caught.value.is_lost
    driver.destroy(memory)
    driver.allocate(0, 80)
