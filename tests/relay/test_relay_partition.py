"""The partition pass alone, and what it reads of operators."""

import pytest
import tvm
from relay_modules import inception_block, module, views_and_tuples, weight
from tvm import relay
from tvm.relay import transform

from hios.ir import OpGraph, Schedule
from hios.ir.validation import validate_schedule
from hios_tvm.machines import resolve_machine
from relay_passes import HIOSPartition
from relay_passes.relay.operators import extract_relay


def fused(mod):
    return tvm.transform.Sequential(
        [transform.InferType(), transform.SimplifyInference(), transform.FuseOps(2)]
    )(mod)


def decision(mod):
    attrs = mod["main"].attrs
    return OpGraph.from_json(str(attrs["hios_graph"])), Schedule.from_json(
        str(attrs["hios_schedule"])
    )


@pytest.mark.parametrize("make", [inception_block, views_and_tuples])
@pytest.mark.parametrize(
    "passes",
    [
        [transform.InferType()],
        [transform.InferType(), transform.FuseOps(2), transform.InferType()],
    ],
    ids=["bare", "fused"],
)
def test_the_pass_stands_in_a_sequential(make, passes):
    machine = resolve_machine(2)
    mod = tvm.transform.Sequential([*passes, HIOSPartition(machine)])(make())
    graph, schedule = decision(mod)
    validate_schedule(graph, machine, schedule)
    assert len(schedule.placements) == len(graph.operators) > 3


def test_the_annotated_module_still_builds_and_is_not_changed_otherwise():
    mod = fused(views_and_tuples())
    noted = HIOSPartition(["cpu:0", "cpu:1"])(mod)
    assert tvm.ir.structural_equal(noted["main"].body, mod["main"].body)
    with tvm.transform.PassContext(opt_level=3):
        relay.build(noted, target="llvm")


def test_scheduler_options_and_costs_are_used():
    machine = resolve_machine(2)
    asked = []

    def costs(graph, place):
        from hios.costs.analytic import AnalyticCosts

        asked.append((len(graph.operators), place))
        return AnalyticCosts(graph, place)

    mod = HIOSPartition(machine, "sequential", costs=costs)(fused(inception_block()))
    _, schedule = decision(mod)
    assert schedule.scheduler == "sequential"
    assert asked == [(len(schedule.placements), machine)]


def test_bare_and_fused_modules_hold_the_same_work():
    bare = extract_relay(inception_block(), "bare").graph
    joined = extract_relay(
        tvm.transform.Sequential([transform.FuseOps(2), transform.InferType()])(inception_block()),
        "fused",
    ).graph
    assert len(joined.operators) < len(bare.operators)
    assert sum(op.flops for op in joined.operators) == sum(op.flops for op in bare.operators)


@pytest.mark.parametrize(
    ("groups", "weights", "kind", "flops"),
    [
        (1, (16, 8, 3, 3), "conv2d", 2 * 16 * 10 * 10 * 8 * 9),
        (4, (16, 2, 3, 3), "conv2d", 2 * 16 * 10 * 10 * 2 * 9),
        (8, (8, 1, 3, 3), "depthwise", 2 * 8 * 10 * 10 * 9),
    ],
)
def test_convolutions_are_counted(groups, weights, kind, flops):
    x = relay.var("x", shape=(1, 8, 10, 10), dtype="float32")
    conv = relay.nn.conv2d(
        x,
        weight(*weights),
        padding=(1, 1),
        groups=groups,
        channels=weights[0],
        kernel_size=(3, 3),
    )
    (operator,) = extract_relay(module([x], conv), "one").graph.operators
    assert (operator.kind, operator.flops) == (kind, flops)
    assert operator.bytes_read == 4 * (8 * 10 * 10 + weights[0] * weights[1] * 9)
    assert operator.bytes_written == 4 * weights[0] * 10 * 10


def test_pools_denses_and_moves_are_counted():
    x = relay.var("x", shape=(1, 8, 8, 8), dtype="float32")
    pooled = relay.nn.max_pool2d(x, (2, 2), (2, 2))
    flat = relay.nn.batch_flatten(pooled)
    out = relay.concatenate([relay.nn.dense(flat, weight(10, 128)), weight(1, 6)], axis=1)
    graph = extract_relay(module([x], out), "three").graph
    assert [(op.kind, op.flops) for op in graph.operators] == [
        ("pool", 8 * 4 * 4 * 4),
        ("dense", 2 * 10 * 128),
        ("concat", 0),
    ]
