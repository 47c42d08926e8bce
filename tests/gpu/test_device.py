"""What only a device shows: overlap, launches, memory given back, DLPack, faults, sanitizers."""

import itertools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from gpu_networks import names

from graph_executor.cuda.cuda_driver import CudaDriver
from graph_executor.cuda.links import measure_cuda_links
from graph_executor.cuda.measure import CudaGroupTimer
from graph_executor.cuda.open import open_driver
from graph_executor.executor import ExecutorOptions, GraphExecutor, random_inputs
from graph_executor.group_timer import GroupOptions, time_group
from hios.costs.analytic import AnalyticCosts
from hios.errors import DeviceUnavailable
from hios.ir import DeviceId
from hios.schedulers import schedule
from hios.structure import longest_path

TOOLS = ("memcheck", "racecheck", "synccheck")


PREFERRED = ("zoo_squeezenet_224", "zoo_inception_v3_299", "zoo_nasnet_mobile_224")


@pytest.fixture(scope="module")
def name():
    return branchy()[0]


def branchy():
    """Return networks with operators that may run at once, a small one first."""
    return [name for name in PREFERRED if name in names()] or names()


def opened(compiled, place, scheduler="ios", **options):
    graph = compiled.graph
    decided = schedule(scheduler, graph, place, AnalyticCosts(graph, place))
    return GraphExecutor(compiled, place, decided, ExecutorOptions(**options))


def test_kernels_of_one_stage_run_at_once(compiled, machine):
    found = 0
    for name in branchy():
        with opened(compiled(name), machine(1, 4), "nimble") as executor:
            for timeline in executor.timelines(runs=5, warmup=3):
                events = sorted(timeline.events, key=lambda event: event.start_us)
                for one, two in itertools.pairwise(events):
                    if one.stream != two.stream and two.start_us < one.end_us:
                        found += 1
        if found:
            break
    assert found, "no two kernels of different streams ever overlapped"


def test_a_replay_costs_one_launch(compiled, machine, name):
    costs = {}
    for mode in ("graph", "eager"):
        with opened(compiled(name), machine(1, 2), mode=mode) as executor:
            backend = executor._backend
            executor.run(random_inputs(executor.graph))
            begin = time.perf_counter()
            for _ in range(50):
                if mode == "graph":
                    backend._driver.replay(backend._graph, backend._streams.origin)
                else:
                    for step in (*backend._fork, *backend._body, *backend._join):
                        step.call()
            costs[mode] = (time.perf_counter() - begin) / 50 * 1e6
            backend._leave()
            backend._streams.drain()
            operators = len(executor.graph.operators)
    print(
        f"\n{operators} operators: replay {costs['graph']:.1f} µs of the host, eager "
        f"{costs['eager']:.1f} µs ({costs['eager'] / operators:.2f} µs each)"
    )
    assert costs["graph"] < costs["eager"]


def test_all_memory_comes_back(compiled, machine, name):
    driver = CudaDriver()
    place = machine(1, 2)
    opened(compiled(name), place, driver=driver).close()
    before = driver.facts(0).free_bytes
    for _ in range(5):
        with opened(compiled(name), place, driver=driver) as executor:
            executor.run(random_inputs(executor.graph))
    assert driver.facts(0).free_bytes >= before - (8 << 20)


def test_tensors_go_in_and_out_without_the_host(compiled, machine, name):
    torch = pytest.importorskip("torch", reason="needs torch for tensors on the device")
    with opened(compiled(name), machine(1, 2)) as executor:
        inputs = random_inputs(executor.graph)
        wanted = executor.run(inputs)
        given = {key: torch.from_numpy(np.array(value)).cuda() for key, value in inputs.items()}
        found = executor.run(given, on_device=True)
        for key, value in wanted.items():
            assert np.array_equal(torch.from_dlpack(found[key]).cpu().numpy(), value)


def test_too_little_memory_is_one_clear_error_and_the_next_executor_works(compiled, machine, name):
    driver = open_driver()
    place = machine(1, 2)
    left = driver.facts(0).free_bytes - (64 << 20)
    hog = driver.allocate(0, left)
    kept = []

    def fill():
        while True:  # until the last megabytes are gone as well
            kept.append(opened(compiled(name), place))

    try:
        with pytest.raises(DeviceUnavailable, match="bytes left"):
            fill()
    finally:
        for executor in kept:
            executor.close()
        driver.destroy(hog)
    with opened(compiled(name), place) as executor:
        executor.run(random_inputs(executor.graph))


def test_links_and_groups_can_be_measured(compiled, machine, name):
    place = measure_cuda_links(open_driver(), machine(2, 2))
    for link in place.links:
        assert 1.0 < link.bandwidth_gb_s < 10_000
        assert link.latency_us < 1_000
    graph = compiled(name).graph
    _, path = longest_path(graph.to_networkx())
    for is_cold in (False, True):
        timer = CudaGroupTimer(compiled(name), place.devices[0], open_driver(), is_cold=is_cold)
        timing = time_group(timer, ((path[0],),), GroupOptions(rounds=30))
        timer.close()
        assert timing.reject == "", timing.reject
        solo, group = np.median(timing.solo_us[0]), np.median(timing.group_us)
        assert 0 < solo <= 1.5 * group
    assert place.device("cuda:0") == DeviceId(0)


@pytest.mark.parametrize("tool", TOOLS)
def test_compute_sanitizer_finds_nothing(tool, tmp_path):
    program = shutil.which("compute-sanitizer")
    if program is None:
        pytest.skip("no compute-sanitizer; it comes with the CUDA toolkit")
    script = Path(__file__).with_name("sanitized_run.py")
    # Bindings newer than the driver ask it for functions that it does not have.
    quiet = ["--report-api-errors", "no"] if tool == "memcheck" else []
    done = subprocess.run(
        [program, "--tool", tool, *quiet, "--error-exitcode", "9", sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
