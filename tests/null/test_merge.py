"""Merged operators: where their time comes from, and how a schedule that chose one is timed."""

from dataclasses import replace

import pytest

from hios.costs import TableCosts
from hios.errors import InvalidCosts, InvalidOption
from hios.ir import Alternative, OpGraph, OpId, Placement, Schedule
from hios.ir.ids import DeviceId, StageId, StreamId
from hios.ir.presets import abstract_machine
from hios.merge import (
    ChosenCosts,
    alternative_us,
    costs_of_schedule,
    merge_candidates,
    offer_merges,
)
from hios.simulator import makespan, simulate
from hios.testing import graph_from_edges

FIRST = DeviceId(0)


def problem(**attrs: float) -> tuple[OpGraph, TableCosts]:
    plain = graph_from_edges(4, [(0, 1), (0, 2), (1, 3), (2, 3)])
    offer = Alternative("both", (OpId(1), OpId(2)), "merge", "merged", attrs)
    graph = replace(plain, alternatives=(offer, replace(offer, name="same")))
    machine = abstract_machine(1, streams=2)
    return graph, TableCosts(graph, machine, [(8.0,)] * 4, utilization=[0.5] * 4)


def test_costs_are_asked_before_the_attribute() -> None:
    class Knowing(TableCosts):
        def alternative_us(self, alternative: Alternative, device: DeviceId) -> float | None:
            return 7.0 if alternative.name == "both" else None

    graph, table = problem(time_us=9.0)
    costs = Knowing(graph, table.machine, table.times_us)
    assert [alternative_us(costs, one, FIRST) for one in graph.alternatives] == [7.0, 9.0]
    assert alternative_us(table, graph.alternatives[0], FIRST) == 9.0
    graph, table = problem()
    assert alternative_us(table, graph.alternatives[0], FIRST) is None


@pytest.mark.parametrize("time_us", [-1.0, float("nan"), float("inf")])
def test_an_impossible_time_is_refused(time_us: float) -> None:
    graph, table = problem(time_us=time_us)
    with pytest.raises(InvalidCosts, match="alternative 'both' takes"):
        alternative_us(table, graph.alternatives[0], FIRST)


def test_the_simulator_times_a_merge_through_the_chosen_costs() -> None:
    graph, table = problem(time_us=9.0)
    stages = [(0, 0, 0), (1, 0, 1), (2, 0, 1), (3, 0, 2)]
    placements = tuple(
        Placement(OpId(op), FIRST, StreamId(stream), StageId(stage)) for op, stream, stage in stages
    )
    plain = Schedule("by hand", placements)
    merged = replace(plain, alternatives=("both",))
    assert costs_of_schedule(graph, table, plain) is table
    costs = costs_of_schedule(graph, table, merged)
    assert makespan(graph, table.machine, table, plain) == 32.0
    assert makespan(graph, table.machine, table, merged) == 25.0
    assert makespan(graph, table.machine, costs, merged) == 25.0
    ends = {e.subject: e.end_us for e in simulate(graph, table.machine, table, merged).events}
    assert ends == {0: 8.0, 1: 17.0, 2: 17.0, 3: 25.0}
    # Without stages as well.
    loose = replace(merged, placements=tuple(replace(p, stage=None) for p in placements))
    assert makespan(graph, table.machine, table, loose) == 25.0


def test_a_merge_beside_other_groups_takes_its_turn() -> None:
    graph, table = problem(time_us=9.0)
    costs = ChosenCosts(graph, table, ["both"])
    assert costs.stage_us([[OpId(1), OpId(2)], [OpId(0)]], FIRST) == 17.0
    assert costs.stage_us([[OpId(0)], [OpId(3)]], FIRST) == table.stage_us(
        [[OpId(0)], [OpId(3)]], FIRST
    )


def test_wrong_choices_are_refused() -> None:
    graph, table = problem(time_us=9.0)
    with pytest.raises(InvalidOption, match="no alternative 'neither'; it offers both, same"):
        ChosenCosts(graph, table, ["neither"])
    with pytest.raises(InvalidOption, match="'both' and 'same' both replace operator 'op1'"):
        ChosenCosts(graph, table, ["both", "same"])
    graph, table = problem()
    with pytest.raises(InvalidCosts, match="no time is known"):
        ChosenCosts(graph, table, ["both"]).operator_us(OpId(1), FIRST)


def convolutions(**changes: dict[str, object]) -> OpGraph:
    """Return a head, and four convolutions of its output that differ in channels only."""
    plain = graph_from_edges(5, [(0, v) for v in range(1, 5)])
    attrs = {"groups": 1, "stride": "1x1"}
    operators = [plain.operators[0]]
    for op in plain.operators[1:]:
        own = {**attrs, **changes.get(op.name, {})}
        kind = str(own.pop("kind", "conv2d"))
        operators.append(replace(op, kind=kind, attrs=own))
    tensors = [
        replace(tensor, shape=(1, 8 * (1 + tensor.id), 7, 7 + 7 * ("tall" in attributes)))
        for tensor, attributes in zip(plain.tensors, [op.attrs for op in operators], strict=True)
    ]
    return replace(plain, operators=tuple(operators), tensors=tuple(tensors))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ((1, 2, 3, 4),)),
        ({"op2": {"groups": 2}}, ((1, 3, 4),)),
        ({"op2": {"stride": "2x2"}, "op3": {"stride": "2x2"}}, ((1, 4), (2, 3))),
        ({"op1": {"kind": "pool"}, "op4": {"tall": 1}}, ((2, 3),)),
        ({name: {"groups": 0} for name in ("op1", "op2", "op3")}, ()),
    ],
)
def test_convolutions_of_one_value_and_size_may_be_merged(
    changes: dict[str, dict[str, object]], expected: tuple[tuple[int, ...], ...]
) -> None:
    assert merge_candidates(convolutions(**changes)) == expected


def test_every_choice_up_to_the_limit_is_offered() -> None:
    graph = offer_merges(convolutions(), most=3)
    graph.validate()
    assert sorted(len(one.members) for one in graph.alternatives) == [2] * 6 + [3] * 4
    assert len({one.name for one in graph.alternatives}) == 10
    assert offer_merges(graph, most=3) == graph
    with pytest.raises(InvalidOption, match="need at least 2"):
        offer_merges(graph, most=1)


def test_operators_that_read_two_values_are_no_candidates() -> None:
    graph = graph_from_edges(4, [(0, 2), (1, 2), (0, 3), (1, 3)])
    attrs = {"groups": 1, "stride": "1x1"}
    operators = tuple(replace(op, kind="conv2d", attrs=attrs) for op in graph.operators)
    assert merge_candidates(replace(graph, operators=operators)) == ()
