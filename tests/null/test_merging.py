"""Which merges are worth a try, before anything is compiled."""

from dataclasses import replace

from hios.ir import OpGraph
from hios.merge import merge_candidates
from hios.testing import graph_from_edges
from hios_tvm.merging import worthwhile_merges


def fan_out(kernels: list[str]) -> OpGraph:
    """Return convolutions of one value, of equal arithmetic per tap."""
    plain = graph_from_edges(1 + len(kernels), [(0, v) for v in range(1, 1 + len(kernels))])
    operators = [plain.operators[0]]
    for op, kernel in zip(plain.operators[1:], kernels, strict=True):
        high, wide = map(int, kernel.split("x"))
        attrs = {"groups": 1, "stride": "1x1", "kernel_size": kernel}
        operators.append(replace(op, kind="conv2d", flops=1000.0 * high * wide, attrs=attrs))
    tensors = tuple(replace(tensor, shape=(1, 8, 7, 7)) for tensor in plain.tensors)
    return replace(plain, operators=tuple(operators), tensors=tensors)


def test_a_kernel_is_not_padded_to_more_than_twice_the_work() -> None:
    offered = worthwhile_merges(fan_out(["1x1", "3x3", "5x5", "1x1"]))
    members = {tuple(map(int, one.members)) for one in offered.alternatives}
    # 1×1 beside 3×3 is 18 taps for 10, beside 5×5 50 for 26; two of them 27 for 11, 75 for 27.
    assert members == {(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)}


def test_large_fans_offer_their_smaller_merges() -> None:
    eight = worthwhile_merges(fan_out(["1x1"] * 8)).alternatives
    assert sorted({len(one.members) for one in eight}) == [2, 3, 4]
    twenty = worthwhile_merges(fan_out(["1x1"] * 20)).alternatives
    assert {len(one.members) for one in twenty} == {2}
    assert len(twenty) == 190
    assert len(worthwhile_merges(fan_out(["1x1"] * 40)).alternatives) == 256


def test_workspaces_and_classes_of_a_compiler_count() -> None:
    graph = fan_out(["1x1"] * 4)
    operators = [graph.operators[0]]
    for op in graph.operators[1:]:
        operators.append(replace(op, attrs={**op.attrs, "merge_class": op.id % 2}))
    graph = replace(graph, operators=tuple(operators))
    assert merge_candidates(graph) == ((1, 3), (2, 4))
    last = operators[-1]
    scratch = replace(graph.tensors[last.outputs[0]], id=len(graph.tensors), consumers=())
    both = replace(last, outputs=(*last.outputs, scratch.id))
    graph = replace(graph, operators=(*operators[:-1], both), tensors=(*graph.tensors, scratch))
    assert merge_candidates(graph) == ((1, 3),)
    known = replace(both, attrs={**both.attrs, "workspaces": 1})
    graph = replace(graph, operators=(*operators[:-1], known))
    assert merge_candidates(graph) == ((1, 3), (2, 4))
