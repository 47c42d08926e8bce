"""Real networks through the executor: right against ONNX Runtime, and always the same bits."""

import os
import random

import numpy as np
import pytest
from plan_cases import random_schedule
from relax_fixtures import relative_error
from small_kernels import cpu_machine

from graph_executor.executor import ExecutorOptions, GraphExecutor
from graph_executor.planner import make_plan
from hios.costs.analytic import AnalyticCosts
from hios.schedulers.run import schedule
from hios_tvm.models.light import LIGHT_NETWORKS

CORES = sorted(os.sched_getaffinity(0))
FIRST, LAST = CORES[0], CORES[-1]
BOTH = tuple(dict.fromkeys((FIRST, LAST)))
MACHINES = {
    f"{devices} devices, {streams} streams": cpu_machine(cores, streams)
    for devices, cores in ((1, [BOTH]), (2, [(FIRST,), (LAST,)]))
    for streams in (1, 2)
}
ON_SEVERAL_DEVICES = ("hios-lp", "hios-mr", "heft")
ON_SEVERAL_STREAMS = ("ios", "nimble", "lios", "opara", "graphi", "wavefront")


def decided(name, graph, machine):
    return schedule(name, graph, machine, AnalyticCosts(graph, machine))


def different_schedules(graph):
    """Return schedules by what made them, those of equal placements once."""
    made = {}
    for place, machine in MACHINES.items():
        for name in ON_SEVERAL_DEVICES:
            made[f"{name}, {place}"] = machine, decided(name, graph, machine)
        seed = len(machine.devices) * 10 + machine.devices[0].streams
        made[f"random, {place}"] = machine, random_schedule(random.Random(seed), graph, machine)
    streams = MACHINES["1 devices, 2 streams"]
    for name in ON_SEVERAL_STREAMS:
        made[f"{name}, streams"] = streams, decided(name, graph, streams)
    different = {}
    for label, (machine, found) in made.items():
        key = len(machine.devices), machine.devices[0].streams, found.placements
        different.setdefault(key, (label, machine, found))
    return different.values()


@pytest.mark.parametrize("name", LIGHT_NETWORKS)
def test_every_schedule_gives_the_same_right_outputs(light_network, name):
    network = light_network(name)
    graph = network.compiled.graph
    one_core = cpu_machine([(FIRST,)], 1)
    in_order = ("sequential", one_core, decided("sequential", graph, one_core))
    expected = []
    for label, machine, found in [in_order, *different_schedules(graph)]:
        with GraphExecutor(
            network.compiled, machine, found, ExecutorOptions(is_poisoned=True)
        ) as executor:
            outputs = [executor.run({network.input_name: x}) for x in network.inputs]
        values = [next(iter(out.values())) for out in outputs]
        if label == "sequential":
            expected = values
            for value, reference in zip(values, network.references, strict=True):
                assert relative_error(value, reference) <= 1e-3
                assert np.std(reference) > 1e-3 * abs(np.mean(reference)), "a flat reference"
            assert not np.array_equal(values[0], values[1])
        for value, right in zip(values, expected, strict=True):
            np.testing.assert_array_equal(value, right, err_msg=label)


@pytest.mark.parametrize("name", LIGHT_NETWORKS)
def test_arenas_of_real_networks_are_tight(light_network, name):
    graph = light_network(name).compiled.graph
    machine = cpu_machine([(FIRST,)], 1)
    found = decided("sequential", graph, machine)
    (memory,) = make_plan(graph, machine, found).memory
    assert memory.arena_bytes <= 1.1 * memory.lower_bound_bytes
