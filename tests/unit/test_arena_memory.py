"""Our arena against what TVM's virtual machine plans for the same kernels."""

import pytest

from benchmarks.arena_memory import LIMIT, arena_row
from hios_tvm.models import zoo

SMALL = ("squeezenet", "alexnet")
SIZES = {"retinanet": 128, "bert_base": 32, "moe_block": 32}


@pytest.mark.parametrize("network", SMALL)
def test_the_arena_is_hardly_larger_than_what_tvm_plans(network):
    row = arena_row(network, 64)
    assert row.bound_bytes <= row.arena_bytes
    assert row.ratio <= LIMIT, row


@pytest.mark.full
@pytest.mark.parametrize("network", [name for name in zoo.NETWORKS if name not in SMALL])
def test_so_it_is_for_every_network_of_the_zoo(network):
    row = arena_row(network, SIZES.get(network, 64))
    assert row.ratio <= LIMIT, row
