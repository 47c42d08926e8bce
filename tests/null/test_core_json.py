"""Core types survive JSON, and broken JSON is refused in one line."""

import pytest
from hypothesis import given

from hios.costs import TableCosts
from hios.errors import HiosError, InfeasibleSchedule, InvalidCosts, InvalidGraph, InvalidMachine
from hios.ir import Machine, OpGraph, Schedule, Timeline
from hios.ir.presets import PRESET_NAMES, preset
from hios.simulator import simulate
from hios.testing import Case, cases


@given(cases())
def test_round_trips(case: Case) -> None:
    assert OpGraph.from_json(case.graph.to_json()) == case.graph
    assert Machine.from_json(case.machine.to_json()) == case.machine
    assert Schedule.from_json(case.schedule.to_json()) == case.schedule
    timeline = simulate(case.graph, case.machine, case.costs, case.schedule)
    assert Timeline.from_json(timeline.to_json()) == timeline
    read = TableCosts.from_json(case.costs.to_json(), case.graph, case.machine)
    assert read == case.costs


def test_measured_stages_round_trip() -> None:
    from hios.testing import diamond, uniform_costs

    graph, machine = diamond(), preset("2xA40-NVLink")
    plain = uniform_costs(graph, machine)
    key = TableCosts.stage_key([[2], [1]], 0)
    costs = TableCosts(graph, machine, plain.times_us, stages_us={key: 13.0})
    assert costs.stage_us([[1], [2]], 0) == 13.0
    assert TableCosts.from_json(costs.to_json(), graph, machine) == costs


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_presets_round_trip(name: str) -> None:
    machine = preset(name)
    assert Machine.from_json(machine.to_json()) == machine


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"name": 3}', b"\xff\xfe"])
@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (OpGraph, InvalidGraph),
        (Machine, InvalidMachine),
        (Schedule, InfeasibleSchedule),
        (Timeline, HiosError),
    ],
)
def test_broken_files(data: bytes, kind: type, error: type[HiosError]) -> None:
    with pytest.raises(error) as caught:
        kind.from_json(data, "some.json")
    assert "some.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_costs_of_another_graph_are_refused() -> None:
    from hios.testing import chain, diamond, uniform_costs

    machine = preset("2xA40-NVLink")
    data = uniform_costs(diamond(), machine).to_json()
    with pytest.raises(InvalidCosts, match="chain_3"):
        TableCosts.from_json(data, chain(3), machine)
