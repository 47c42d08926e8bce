"""Machines by name: figures with sources, shares of the host, and clear refusals."""

from pathlib import Path

import pytest

from hios.errors import HiosError, InvalidMachine, MissingFile, UnknownDevice
from hios.ir.presets import (
    PRESET_NAMES,
    abstract_machine,
    available_cores,
    cpu_machine,
    cuda_machine,
    load_machine,
    machine_from_devices,
    parse_device_list,
    preset,
)


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_every_figure_has_a_source(name: str) -> None:
    machine = preset(name, streams=3)
    assert all(device.source and device.streams == 3 for device in machine.devices)
    assert all(link.source for link in machine.links)
    count = len(machine.devices)
    assert len(machine.links) == count * (count - 1)


def test_data_sheet_figures() -> None:
    a40, v100, h200 = (preset(n) for n in ("2xA40-NVLink", "4xV100-NVLink2", "8xH200-NVLink4"))
    assert a40.devices[0].bandwidth_gb_s == 696
    assert a40.link(0, 1).bandwidth_gb_s == 56.25
    assert len(v100.devices) == 4
    assert v100.link(3, 0).bandwidth_gb_s == 50
    assert h200.devices[7].compute_units == 132
    assert h200.link(0, 7).bandwidth_gb_s == 450
    assert preset("3xH200-PCIe5").link(2, 0).bandwidth_gb_s == 63
    assert preset("1xA40").links == ()


@pytest.mark.parametrize("name", ["", "A40", "2xA41-NVLink", "2xA40-NVLink9", "2xA40", "0xhost"])
def test_unknown_presets(name: str) -> None:
    with pytest.raises(UnknownDevice, match="preset"):
        preset(name)


def test_cpu_devices_share_the_cores_equally() -> None:
    machine = cpu_machine(["cpu:0", "cpu:1"], cores=[2, 3, 5, 7, 11], streams=2)
    assert [device.cores for device in machine.devices] == [(2, 3), (5, 7)]
    assert not machine.shares_hardware
    assert machine.copies_occupy(1)
    assert machine.link(1, 0).latency_us > 0
    assert "preset" in machine.link(0, 1).source
    measured = cpu_machine(["cpu:0", "cpu:1"], cores=[0, 1], copy_gb_s=5.0, copy_latency_us=1.0)
    assert measured.link(0, 1).transfer_us(5000) == pytest.approx(2.0)
    assert "preset" not in measured.link(0, 1).source


def test_more_devices_than_cores_share_them() -> None:
    machine = cpu_machine(["cpu:0", "cpu:1", "cpu:2"], cores=[4, 5])
    assert [device.cores for device in machine.devices] == [(4,), (5,), (4,)]
    assert machine.shares_hardware


def test_host_uses_the_cores_of_this_process() -> None:
    assert preset("host").devices[0].cores == available_cores()


def test_one_gpu_may_be_several_devices() -> None:
    machine = cuda_machine(["cuda:0", "cuda:0", "cuda:1"], "H200", "NVLink4")
    assert [device.name for device in machine.devices] == ["cuda:0", "cuda:0#1", "cuda:1"]
    assert machine.shares_hardware
    assert not cuda_machine(["cuda:0", "cuda:1"], "H200", "NVLink4").shares_hardware


def test_device_lists() -> None:
    assert parse_device_list("cpu:0, cpu:1") == ("cpu:0", "cpu:1")
    assert machine_from_devices(("cpu:0",), cores=[0]).devices[0].kind == "cpu"
    assert machine_from_devices(("cuda:0",)).devices[0].kind == "cuda"


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: parse_device_list("gpu:0"), UnknownDevice),
        (lambda: parse_device_list(""), UnknownDevice),
        (lambda: machine_from_devices(("cpu:0", "cuda:0")), UnknownDevice),
        (lambda: cpu_machine(["cuda:0"]), UnknownDevice),
        (lambda: cpu_machine([]), InvalidMachine),
        (lambda: cpu_machine(["cpu:0"], cores=[]), InvalidMachine),
        (lambda: cpu_machine(["cpu:0", "cpu:0"], cores=[0, 1]), InvalidMachine),
        (lambda: cuda_machine([], "H200", "NVLink4"), InvalidMachine),
        (lambda: cuda_machine(["cpu:0"], "H200", "NVLink4"), UnknownDevice),
        (lambda: abstract_machine(0), InvalidMachine),
        (lambda: abstract_machine(2, streams=0), InvalidMachine),
    ],
)
def test_refusals(make: object, error: type[HiosError]) -> None:
    with pytest.raises(error) as caught:
        make()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["99999xA40-NVLink", "99999xhost", "99999xV100-PCIe3"])
def test_absurd_counts_are_refused_before_they_fill_the_memory(name: str) -> None:
    with pytest.raises(InvalidMachine, match="at most 1024"):
        preset(name)


def test_machine_file(tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    path.write_bytes(preset("2xA40-NVLink").to_json())
    assert load_machine(str(path)) == preset("2xA40-NVLink")
    assert load_machine("2xA40-NVLink", streams=2).devices[0].streams == 2
    with pytest.raises(MissingFile):
        load_machine(str(tmp_path / "none.json"))
    path.write_text('{"name": "m", "devices": []}')
    with pytest.raises(InvalidMachine, match="no devices"):
        load_machine(str(path))
