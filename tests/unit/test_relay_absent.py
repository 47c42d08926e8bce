"""Without Relay in TVM, the Relay door names the door that there is."""

import pytest

import hios_tvm
import relay_passes
from hios.errors import MissingDependency
from relay_passes.relay.availability import has_relay


def test_this_tvm_has_no_relay():
    assert not has_relay()


def test_the_pass_context_names_the_other_door():
    with pytest.raises(MissingDependency, match=r"hios_tvm\.pipeline\(devices"):
        hios_tvm.pass_context(devices=2)


@pytest.mark.parametrize("name", ["HIOSPartition", "HIOSInstrument", "pass_context"])
def test_the_passes_do_too(name):
    with pytest.raises(MissingDependency, match=r"hios_tvm\.pipeline\(devices"):
        getattr(relay_passes.relay, name)


def test_the_partition_pass_does_too():
    with pytest.raises(MissingDependency, match="Relay"):
        _ = relay_passes.HIOSPartition
