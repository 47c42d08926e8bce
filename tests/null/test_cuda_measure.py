"""Measuring on the model of CUDA: links, operators, groups, the machine as it is wired."""

import networkx as nx
import pytest
from cuda_cases import compiled_case
from cuda_model import ModelDriver
from plan_cases import machine_of, random_case

from graph_executor.cuda.cards import DeviceHealth, Wiring
from graph_executor.cuda.costs import measure_cuda_costs
from graph_executor.cuda.detect import are_here, detect_machine
from graph_executor.cuda.devices import check_architecture, ordinal_of
from graph_executor.cuda.driver import DeviceFacts
from graph_executor.cuda.links import measure_cuda_links
from graph_executor.cuda.measure import CudaGroupTimer, launch_order
from graph_executor.cuda.stopwatch import Stopwatch
from graph_executor.cuda.topology import describe_machine
from graph_executor.group_timer import GroupOptions, time_group
from graph_executor.measure_cache import MeasureCache
from hios.errors import ArtifactMismatch, DeviceUnavailable, ExecutionError, UnknownDevice
from hios.ir import Device, DeviceId
from hios.ir.presets import preset


class Card(ModelDriver):
    """A model whose facts are those of an A100, with figures to compute from."""

    def facts(self, device):
        return DeviceFacts(
            device,
            "A100",
            f"GPU-{device}",
            (8, 0),
            108,
            40 << 30,
            39 << 30,
            40 << 20,
            1_410_000,
            1_215_000,
            5120,
            {"threads": 2048},
        )


SIZES = (4096, 65536)


def healthy(_ordinal):
    return None


@pytest.fixture(scope="module")
def case():
    return random_case(5, 10, kinds=("cuda",), most_devices=1)


def disjoint_pair(graph):
    """Two operators that do not depend on each other."""
    closure = nx.transitive_closure_dag(graph.to_networkx())
    for one in sorted(closure):
        for two in sorted(closure):
            if one < two and not closure.has_edge(one, two) and not closure.has_edge(two, one):
                return one, two
    raise AssertionError("a chain")


def test_groups_are_timed_in_captured_graphs_and_compared(case):
    driver = Card()
    one, two = disjoint_pair(case.graph)
    timer = CudaGroupTimer(
        compiled_case(case.graph), Device("cuda:0", "cuda", 2), driver, repeats=4, health=healthy
    )
    timing = time_group(timer, ((one,), (two,)), GroupOptions(rounds=3, most_rounds=5))
    timer.close()
    # The model's clock counts steps: its times say nothing, but they are all there.
    assert timing.reject == "" or "sentinel" in timing.reject
    assert len(timing.solo_us) == 2
    assert len(timing.serial_us) == len(timing.group_us) >= 3
    assert all(time > 0 for time in timing.group_us)
    assert timer.mode == "graph"
    assert timer.cache == "warm"
    assert timer.device.limits == {"threads": 2048}
    assert timer.widths(((one,), (two,))) == ()
    assert timer.order(((one,), (two,))) == (0, 1)
    assert driver.leaks == []


def test_a_cold_cache_is_flushed_before_every_replay(case):
    driver = Card()
    one, two = disjoint_pair(case.graph)
    timer = CudaGroupTimer(
        compiled_case(case.graph),
        Device("cuda:0", "cuda", 2),
        driver,
        is_cold=True,
        health=healthy,
    )
    run = timer.open(((one,), (two,)))
    begin = len(driver.calls)
    run.rounds(1)
    names = [call.name for call in driver.calls[begin:]]
    assert names.count("fill") == names.count("replay") >= 8
    assert timer.cache == "cold"
    run.close()
    run.close()
    assert driver.leaks == []


def test_a_kernel_that_fails_rejects_the_group(case):
    driver = Card()
    one, two = disjoint_pair(case.graph)
    timer = CudaGroupTimer(
        compiled_case(case.graph), Device("cuda:0", "cuda", 2), driver, health=healthy
    )
    for after in (0, 3, 5, 9):
        driver.fail("launch", "cudaErrorInvalidConfiguration", after=after)
        timing = time_group(timer, ((one,), (two,)), GroupOptions(rounds=1, most_rounds=1))
        assert "cudaErrorInvalidConfiguration" in timing.reject
        assert driver.leaks == []


def test_results_that_differ_reject_the_group(case):
    driver = Card()
    one, two = disjoint_pair(case.graph)
    compiled = compiled_case(case.graph)
    kernel = compiled.library.module[case.graph.operators[two].kernel]
    calls = []

    def fickle(*arrays):
        kernel(*arrays)
        calls.append(1)
        arrays[-1].reshape(-1).view("u1")[0] ^= len(calls) % 2

    compiled.library.module[case.graph.operators[two].kernel] = fickle
    timer = CudaGroupTimer(compiled, Device("cuda:0", "cuda", 2), driver, health=healthy)
    timing = time_group(timer, ((one,), (two,)), GroupOptions(rounds=1, most_rounds=1))
    assert timing.reject.startswith("results differ from the serial run")


def test_a_throttled_card_gives_no_samples(case):
    driver = Card()
    hot = DeviceHealth(600, 1215, 1410, 91, ("hw_thermal_slowdown",))
    assert hot.is_throttled
    assert not DeviceHealth(1410, 1215, 1410, 40, ("gpu_idle",)).is_throttled
    timer = CudaGroupTimer(
        compiled_case(case.graph), Device("cuda:0", "cuda"), driver, health=lambda _: hot
    )
    with pytest.raises(ExecutionError, match=r"slowed down \(hw_thermal_slowdown\) at 600 MHz"):
        timer.open(((0,),)).rounds(1)


def test_groups_take_turns():
    assert launch_order(((1, 2), (3,))) == (0, 2, 1)
    assert launch_order(()) == ()


def test_a_stopwatch_gives_everything_back_when_it_cannot_be_made():
    for call in ("create_stream", "create_event", "allocate"):
        driver = Card()
        driver.fail(call, "cudaErrorUnknown", after=0)
        with pytest.raises(ExecutionError):
            Stopwatch(driver, 0, 2, is_cold=True)
        assert driver.leaks == []


def test_links_are_measured_once_for_each_pair_of_cards():
    driver = Card(2)
    machine = describe_machine(driver, ("cuda:0", "cuda:1", "cuda:1"), 2, lambda a, b: None)
    measured = measure_cuda_links(driver, machine, SIZES)
    assert len(measured.links) == 6
    assert all(link.source.startswith("measured between cuda:") for link in measured.links)
    assert all(link.bandwidth_gb_s > 0 for link in measured.links)
    assert driver.copies_without_peer == 0
    assert driver.leaks == []


def test_operators_of_one_key_are_measured_once(case, tmp_path):
    driver = Card(2)
    machine = describe_machine(driver, ("cuda:0", "cuda:1"), 2, lambda a, b: None)
    cache = MeasureCache(tmp_path)
    costs, measured, times = measure_cuda_costs(
        driver,
        compiled_case(case.graph),
        machine,
        runs=2,
        warmup=1,
        cache=cache,
        link_sizes_bytes=SIZES,
    )
    assert list(times) == ["A100"]
    assert len(times["A100"]) == len(case.graph.operators)
    assert costs.operator_us(0, DeviceId(0)) == costs.operator_us(0, DeviceId(1)) > 0
    assert measured.links[0].source.startswith("measured")
    assert driver.leaks == []


def test_the_machine_is_described_from_what_the_driver_tells():
    driver = Card(3)
    driver.not_peers = {(0, 2), (2, 0)}
    wires = {(0, 1): Wiring("NVLink", 300.0, "12 links, version 3")}
    machine = describe_machine(
        driver, ("cuda:0", "cuda:1", "cuda:2", "cuda:0"), 3, lambda a, b: wires.get((a, b))
    )
    names = [device.name for device in machine.devices]
    assert names == ["cuda:0", "cuda:1", "cuda:2", "cuda:0#1"]
    assert [ordinal_of(device) for device in machine.devices] == [0, 1, 2, 0]
    assert machine.shares_hardware
    first = machine.devices[0]
    # 108 × 64 units, two operations each; 5120 bits at double data rate (NVIDIA A100 40 GB).
    assert first.peak_gflops == pytest.approx(19_492, rel=1e-3)
    assert first.bandwidth_gb_s == pytest.approx(1_555, rel=1e-3)
    assert first.memory_bytes == 20 << 30
    assert machine.link(DeviceId(0), DeviceId(1)).bandwidth_gb_s == 300.0
    assert "staged through the host" in machine.link(DeviceId(0), DeviceId(2)).source
    assert "one card" in machine.link(DeviceId(0), DeviceId(3)).source
    with pytest.raises(UnknownDevice, match="it has cuda:0 to cuda:2"):
        describe_machine(driver, ("cuda:7",), 1, lambda a, b: None)


def test_devices_are_told_apart_from_described_ones(monkeypatch):
    from graph_executor.cuda import detect

    monkeypatch.setattr(detect, "open_driver", lambda: Card(2))
    monkeypatch.setattr(detect, "count_devices", lambda: 2)
    here = describe_machine(Card(2), ("cuda:0", "cuda:1"), 1, lambda a, b: None)
    assert are_here(here)
    assert not are_here(preset("2xA40-NVLink"))
    assert not are_here(machine_of("cpu", 1, 1))
    monkeypatch.setattr(detect, "count_devices", lambda: 0)
    assert not are_here(here)
    assert detect_machine(("cuda:0",), 4) is None


@pytest.mark.parametrize(
    ("arch", "runs"), [("sm_80", True), ("sm_86", False), ("sm_90", False), ("sm_70", False)]
)
def test_machine_code_runs_on_its_own_generation(arch, runs):
    target = f'{{"kind":"cuda","arch":"{arch}"}}'
    if runs:
        check_architecture(Card(), (0,), target)
        return
    with pytest.raises(ArtifactMismatch, match=r"do not run on cuda:0 \(A100, sm_80\)"):
        check_architecture(Card(), (0, 0), target)


def test_names_of_devices():
    with pytest.raises(DeviceUnavailable, match="'gpu0' of kind 'cuda' is no CUDA device"):
        ordinal_of(Device("gpu0", "cuda"))
