"""What holds for every scheduler, whatever it decides."""

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hios.bounds import lower_bound
from hios.costs import Costs, TableCosts
from hios.errors import HiosError, InfeasibleSchedule, InvalidOption, UnknownScheduler
from hios.graph_file import GraphFile
from hios.ir import Machine, OpGraph, Placement, Schedule, required_copies
from hios.ir.presets import abstract_machine, cpu_machine, preset
from hios.ir.validation import validate_schedule
from hios.schedulers import get_scheduler, list_schedulers, register, registry, schedule
from hios.simulator import makespan, simulate
from hios.testing import (
    Case,
    cases,
    chain,
    fan_out,
    graph_from_edges,
    layered_random,
    random_costs,
    random_graph,
    random_machine,
    uniform_costs,
)

NAMES = ["heft", "hios-lp", "hios-lp-inter", "sequential"]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_these_are_registered() -> None:
    assert set(NAMES) <= set(list_schedulers())
    for name in NAMES:
        found = get_scheduler(name)
        assert found.name == name
        assert found.summary.endswith(".")


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60)
@given(data=st.data())
def test_properties(name: str, data: st.DataObject) -> None:
    rng = data.draw(st.randoms(use_true_random=False))
    graph = random_graph(rng, data.draw(st.integers(0, 14)))
    machine = random_machine(rng)
    costs = random_costs(rng, graph, machine)
    decided = schedule(name, graph, machine, costs)
    validate_schedule(graph, machine, decided)
    timeline = simulate(graph, machine, costs, decided)
    timeline.validate()
    assert lower_bound(graph, machine, costs) <= timeline.makespan_us * (1 + 1e-9)
    carried = {(t, link.src, link.dst) for link in decided.links for t in link.tensors}
    assert carried == {(c.tensor, c.src, c.dst) for c in required_copies(graph, decided)}
    assert schedule(name, graph, machine, costs).to_json() == decided.to_json()


def test_topologies(name: str, topology: OpGraph) -> None:
    for machine in (
        abstract_machine(2, 2),
        preset("2xA40-NVLink", 2),
        cpu_machine(["cpu:0", "cpu:1"], cores=[0, 1]),
    ):
        costs = uniform_costs(topology, machine)
        decided = schedule(name, topology, machine, costs)
        span = makespan(topology, machine, costs, decided)
        assert lower_bound(topology, machine, costs) <= span * (1 + 1e-9)
        if topology.name.startswith("chain"):
            assert span == 60.0


MACHINES = {
    "abstract": lambda: abstract_machine(3, 2),
    "cuda": lambda: preset("3xH200-NVLink4", 2),
    "cpu": lambda: cpu_machine(["cpu:0", "cpu:1"], cores=[0, 1], streams=2),
}

GRAPHS: dict[str, Callable[[], OpGraph]] = {
    "none": lambda: graph_from_edges(0, []),
    "one": lambda: graph_from_edges(1, [], has_inputs_and_outputs=True),
    "chain of 1000": lambda: chain(1000),
    "1000 wide": lambda: fan_out(1000),
    "disconnected": lambda: graph_from_edges(60, [(i, i + 1) for i in range(0, 60, 3)]),
    "5000 deep": lambda: graph_from_edges(
        5000, [(i, j) for i in range(4998) for j in (i + 1, i + 2)], has_inputs_and_outputs=True
    ),
}


@pytest.mark.parametrize("kind", sorted(MACHINES))
@pytest.mark.parametrize("graph_name", sorted(GRAPHS))
def test_extreme_graphs(name: str, graph_name: str, kind: str) -> None:
    graph, machine = GRAPHS[graph_name](), MACHINES[kind]()
    costs = uniform_costs(graph, machine)
    decided = schedule(name, graph, machine, costs)
    span = makespan(graph, machine, costs, decided)
    assert span <= 10.0 * len(graph.operators) * 1.25
    assert span >= lower_bound(graph, machine, costs) * (1 - 1e-9)


@pytest.mark.parametrize("kind", sorted(MACHINES))
def test_operators_without_time(name: str, kind: str) -> None:
    graph, machine = layered_random(60, 120, 8, seed=4), MACHINES[kind]()
    for time_us, transfer_us in ((0.0, 0.0), (0.0, 5.0)):
        costs = uniform_costs(graph, machine, time_us, transfer_us)
        decided = schedule(name, graph, machine, costs)
        assert makespan(graph, machine, costs, decided) == 0.0


def test_sequential_takes_the_sum(
    reference_graph: tuple[GraphFile, list[dict[str, Any]]],
) -> None:
    file, figures = reference_graph
    for figure in figures:
        machine = abstract_machine(figure["devices"])
        costs = file.costs(machine)
        decided = schedule("sequential", file.graph, machine, costs)
        span = makespan(file.graph, machine, costs, decided)
        assert span == pytest.approx(figure["sequential_us"], abs=0.06)


def test_inputs_and_outputs_stay_on_the_first_device(name: str) -> None:
    """When every transfer is dear, nothing leaves the device where inputs are."""
    graph, machine = layered_random(20, 40, 4, seed=2), abstract_machine(3)
    costs = uniform_costs(graph, machine, transfer_us=1e6)
    decided = schedule(name, graph, machine, costs)
    assert decided.devices_used() == (0,)


def test_unknown_scheduler_names_the_known_ones() -> None:
    with pytest.raises(UnknownScheduler) as caught:
        get_scheduler("hios")
    assert "hios-lp" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("scheduler", "options", "said"),
    [
        ("sequential", {"window": 3}, "none"),
        ("hios-lp", {"windows": 3}, "window, streams"),
        ("hios-lp", {"window": 0}, "1 to 8"),
        ("hios-lp", {"window": 9}, "1 to 8"),
        ("hios-lp", {"window": "2"}, "'2'"),
        ("hios-lp", {"window": True}, "True"),
        ("hios-lp", {"streams": 0}, "streams is 0"),
        ("heft", {"insertion": "yes"}, "'yes'"),
    ],
)
def test_wrong_options(scheduler: str, options: dict[str, object], said: str) -> None:
    graph, machine = chain(3), abstract_machine(2)
    with pytest.raises(InvalidOption) as caught:
        schedule(scheduler, graph, machine, uniform_costs(graph, machine), **options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def clean_registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    copy = dict(registry._registered)
    monkeypatch.setattr(registry, "_registered", copy)
    return copy


def all_on_last(graph: OpGraph, machine: Machine, costs: Costs, *, last: bool = True) -> Schedule:
    """Put everything on one device."""
    device = len(machine.devices) - 1 if last else 7
    order = graph.topological_order()
    return Schedule("all-on-last", tuple(Placement(op, device) for op in order))


def test_own_schedulers_join(clean_registry: dict[str, Any]) -> None:
    register("all-on-last", source="a test")(all_on_last)
    graph, machine = chain(3), abstract_machine(2)
    costs = uniform_costs(graph, machine)
    decided = schedule("all-on-last", graph, machine, costs)
    # The input goes there and the output comes back.
    assert makespan(graph, machine, costs, decided) == 32.0
    assert get_scheduler("all-on-last").options == (("last", True),)
    with pytest.raises(InfeasibleSchedule, match="device 7"):
        schedule("all-on-last", graph, machine, costs, last=False)
    with pytest.raises(InvalidOption, match="registered already"):
        register("all-on-last")(all_on_last)


def test_schedulers_of_other_packages_join(
    clean_registry: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    points = EntryPoints(
        [
            EntryPoint("theirs", f"{__name__}:all_on_last", registry.ENTRY_POINT_GROUP),
            EntryPoint("broken", "no_such_module:f", registry.ENTRY_POINT_GROUP),
        ]
    )
    monkeypatch.setattr(registry, "entry_points", lambda group: points.select(group=group))
    assert {"theirs", "broken", "heft"} <= set(list_schedulers())
    assert get_scheduler("theirs").function is all_on_last
    with pytest.raises(HiosError, match="no_such_module"):
        get_scheduler("broken")


@given(cases())
def test_memory_too_small_is_refused(case: Case) -> None:
    devices = tuple(replace(device, memory_bytes=1) for device in case.machine.devices)
    machine = replace(case.machine, devices=devices)
    if any(op.outputs for op in case.graph.operators):
        with pytest.raises(InfeasibleSchedule, match="bytes"):
            schedule("sequential", case.graph, machine, case.costs)


def test_costs_may_differ_between_devices(name: str) -> None:
    """A second device that is ten times faster is used by those who may."""
    graph, machine = chain(6), abstract_machine(2)
    costs = TableCosts(
        graph, machine, [[100.0, 10.0]] * 6, transfers_us={t.id: 1.0 for t in graph.tensors}
    )
    decided = schedule(name, graph, machine, costs)
    expected = 600.0 if name == "sequential" else 62.0
    assert makespan(graph, machine, costs, decided) == expected
