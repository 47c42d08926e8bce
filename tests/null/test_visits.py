"""Groups measured several times become one record, and say how much measuring them varies."""

from dataclasses import replace

import pytest
from synthetic_groups import operators, record

from cost_model.dataset import build_dataset
from cost_model.known_groups import KnownGroups
from cost_model.noise import noise_floor
from cost_model.records import Spread
from cost_model.visits import merge_visits


@pytest.fixture(scope="module")
def ops():
    return operators(6, 3)


def visit(chains, time_us, session, solo_us=None, **other):
    """A record of these chains in a process, with a time of its own."""
    made = record(chains)
    changed = [
        op if solo_us is None else replace(op, solo_us=Spread(solo_us, solo_us, solo_us, 30))
        for op in made.ops
    ]
    spread = Spread(time_us - 1, time_us, time_us + 1, 30)
    return replace(made, ops=tuple(changed), group_us=spread, session=session, **other)


def test_a_group_is_the_middle_of_its_visits(ops):
    chains = [[ops[0]], [ops[1]]]
    visits = [visit(chains, time, name) for time, name in ((90.0, "a"), (10.0, "b"), (30.0, "c"))]
    broken = visit(chains, 1.0, "d", valid=False, reject="the sentinel changed by +9.0%")
    (merged,) = merge_visits([*visits, broken])
    assert merged.group_us == Spread(29.0, 30.0, 31.0, 90)
    assert merged.session == "a"
    assert merge_visits(visits[:1])[0].group_us == visits[0].group_us


def test_an_operator_alone_is_the_middle_of_all_its_groups(ops):
    one = visit([[ops[0]], [ops[1]]], 50.0, "a", 10.0)
    two = visit([[ops[0]], [ops[2]]], 50.0, "a", 14.0)
    three = visit([[ops[0]], [ops[3]]], 50.0, "a", 30.0)
    alone = {
        op.key: op.solo_us.p50
        for merged in merge_visits([one, two, three])
        for op in merged.ops
        if op.solo_us
    }
    assert alone[ops[0].key] == 14.0
    assert alone[ops[3].key] == 30.0
    elsewhere = replace(three, device=replace(three.device, units=4))
    (first, *_) = merge_visits([one, elsewhere])
    assert first.ops[0].solo_us is not None
    assert first.ops[0].solo_us.p50 == 10.0


def test_the_noise_is_the_difference_of_processes(ops):
    chains, others = [[ops[0]], [ops[1]]], [[ops[2]], [ops[3]]]
    assert noise_floor([visit(chains, 10.0, "a"), visit(chains, 20.0, "a")]) is None
    noise = noise_floor(
        [visit(chains, 10.0, "a"), visit(chains, 12.0, "b"), visit(others, 10.0, "a")]
    )
    assert noise is not None
    assert noise.pairs == 1
    assert noise.visits == 1.5
    assert noise.visit == pytest.approx(0.2 / 2**0.5)
    assert noise.mape == pytest.approx(0.2 / 2**0.5 / 1.5**0.5)


def test_a_data_set_has_each_group_once(ops):
    chains = [[ops[0]], [ops[1]]]
    data = build_dataset([visit(chains, 40.0, "a"), visit(chains, 44.0, "b")])
    assert len(data) == 1
    assert data.time_us[0] == 42.0
    assert data.noise is not None


def test_a_group_is_known_once_it_was_visited_so_often(ops):
    chains = [[ops[0]], [ops[1]]]
    visits = [visit(chains, 10.0, "a"), visit(chains, 11.0, "a")]
    identity = visits[0].identity
    assert KnownGroups(visits[:1]).is_valid(identity)
    assert KnownGroups(visits[:1], visits=2).is_valid(identity) is None
    assert KnownGroups(visits, visits=2).is_valid(identity)
