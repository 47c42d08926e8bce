"""Energy counters as the kernel shows them: files."""

from pathlib import Path

import pytest

from hios_tvm.energy import find_meter


def zone(folder: Path, name: str, microjoules: int, highest: int = 1_000_000) -> Path:
    (folder / name).mkdir()
    (folder / name / "energy_uj").write_text(f"{microjoules}\n")
    (folder / name / "max_energy_range_uj").write_text(f"{highest}\n")
    return folder / name / "energy_uj"


def test_packages_are_summed_and_their_parts_are_not(tmp_path: Path) -> None:
    counters = [zone(tmp_path, f"intel-rapl:{i}", 100) for i in range(2)]
    part = zone(tmp_path, "intel-rapl:0:0", 50)
    meter = find_meter("cpu", tmp_path)
    assert meter is not None
    assert meter.source == "RAPL, 2 packages"
    before = meter.read_j()
    for counter in (*counters, part):
        counter.write_text(str(int(counter.read_text()) + 400_000))
    assert meter.read_j() - before == pytest.approx(0.8)


def test_a_counter_that_wraps_goes_on(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", 999_000)
    meter = find_meter("cpu", tmp_path)
    assert meter is not None
    before = meter.read_j()
    counter.write_text("1000")
    assert meter.read_j() - before == pytest.approx(0.002001)


def test_no_counters_no_meter(tmp_path: Path) -> None:
    assert find_meter("cpu", tmp_path) is None
    assert find_meter("cpu", tmp_path / "absent") is None
    zone(tmp_path, "intel-rapl:0", 0).write_text("none of your business")
    assert find_meter("cpu", tmp_path) is None
