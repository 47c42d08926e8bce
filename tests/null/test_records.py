"""Records of measured groups: identity, round trip, and what is refused."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_groups import operators, record, records

from cost_model.records import (
    GroupRecord,
    Spread,
    decode_record,
    describe_operator,
    encode_record,
)
from hios.errors import InvalidRecord
from hios.ir.ids import OpId
from hios.testing import TOPOLOGIES

OPERATORS = operators(8, seed=3)


def test_a_record_is_one_line_and_comes_back() -> None:
    for one in records(20):
        line = encode_record(one)
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        assert decode_record(line) == one


def test_unknown_fields_are_ignored() -> None:
    one = records(1)[0]
    line = encode_record(one).replace(b'{"schema"', b'{"new":[1],"schema"', 1)
    assert decode_record(line) == one


@given(
    chains=st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=3), min_size=1, max_size=4),
    data=st.data(),
)
def test_the_id_does_not_depend_on_streams(chains: list[list[int]], data: st.DataObject) -> None:
    mixed = data.draw(st.permutations(chains))
    one = record([[OPERATORS[i] for i in chain] for chain in chains])
    other = record([[OPERATORS[i] for i in chain] for chain in mixed], model="elsewhere")
    assert one.group_id == other.group_id
    one.validate()


def test_the_id_depends_on_what_may_change_the_time() -> None:
    a, b, c = OPERATORS[:3]
    ids = {record(chains).group_id for chains in ([[a, b], [c]], [[b, a], [c]], [[a], [b], [c]])}
    assert len(ids) == 3
    one = record([[a], [b]])
    for other in (replace(one, mode="graph"), replace(one, cache="cold")):
        with pytest.raises(InvalidRecord, match="not its own"):
            other.validate()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 99}, "schema 99; this version reads 1"),
        ({"group_us": None}, "has no times"),
        ({"group_us": Spread(1.0, 0.5, 2.0, 30)}, "p10 ≤ p50"),
        ({"valid": False}, "tells no reason"),
        ({"reject": "drift"}, "valid but rejected"),
        ({"order": (0, 0)}, "does not name each operator once"),
        ({"widths": (1,)}, "of widths"),
        ({"streams": 3}, "stream without operators"),
        ({"ops": ()}, "no operators"),
    ],
)
def test_a_contradiction_is_refused(change: dict[str, object], message: str) -> None:
    one = record([[OPERATORS[0]], [OPERATORS[1]]])
    with pytest.raises(InvalidRecord, match=message):
        replace(one, **change).validate()  # type: ignore[arg-type]


def test_a_failed_measurement_keeps_its_reason_and_no_times() -> None:
    one = record([[OPERATORS[0]], [OPERATORS[1]]])
    ops = tuple(replace(op, solo_us=None) for op in one.ops)
    failed = replace(
        one, ops=ops, serial_us=None, group_us=None, valid=False, reject="results differ"
    )
    assert decode_record(encode_record(failed)) == failed


@pytest.mark.parametrize("line", [b"", b"{", b'{"schema":1}', b"\xff\xfe", b"[1,2]"])
def test_damage_is_one_clear_error(line: bytes) -> None:
    with pytest.raises(InvalidRecord, match=r"^g.jsonl line 3: no valid record"):
        decode_record(line, "g.jsonl line 3")


def test_a_cut_line_is_damaged() -> None:
    line = encode_record(records(1)[0])
    for end in range(0, len(line) - 2, 97):
        with pytest.raises(InvalidRecord):
            decode_record(line[:end])


def test_an_operator_of_a_graph_is_described_without_names() -> None:
    graph = TOPOLOGIES["diamond"]()
    described = describe_operator(graph, OpId(1), stream=2, position=1)
    assert (described.stream, described.position) == (2, 1)
    assert described.kind == graph.operators[1].kind
    assert described.flops == graph.operators[1].flops
    assert graph.operators[1].name not in repr(described)


def test_chains_are_in_order() -> None:
    a, b, c = OPERATORS[:3]
    one: GroupRecord = record([[a, b], [c]])
    assert [[op.key for op in chain] for chain in one.chains] == [[a.key, b.key], [c.key]]
