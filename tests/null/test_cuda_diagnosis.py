"""What the doctor makes of CUDA, from what a probe of machines with GPUs would say."""

import pytest

from hios_tvm import cuda_diagnosis
from hios_tvm.cuda_diagnosis import cuda_findings, nvcc_finding

DEVICE = {
    "name": "NVIDIA A40",
    "architecture": "sm_86",
    "multiprocessors": 84,
    "free_bytes": 47_000_000_000,
    "memory_bytes": 48_000_000_000,
    "clock_mhz": 1740,
    "held_back_by": ["gpu_idle"],
}
TWO = {
    "bindings": True,
    "driver": "580.65.06",
    "driver_cuda": "13.0",
    "runtime": "13.0",
    "nvrtc": "13.0",
    "devices": [DEVICE, DEVICE | {"held_back_by": ["hw_thermal_slowdown"]}],
    "pairs": [
        {"src": 0, "dst": 1, "has_access": True, "wiring": "NVLink", "detail": "4 links"},
        {"src": 1, "dst": 0, "has_access": False, "wiring": None, "detail": ""},
    ],
}


def by_name(facts):
    return {finding.name: finding for finding in cuda_findings(facts)}


def test_two_cards():
    found = by_name(TWO)
    assert found["CUDA"].status == "ok"
    assert "driver 580.65.06 for CUDA 13.0" in found["CUDA"].detail
    assert "A40, sm_86 (--target cuda:sm_86), 84 multiprocessors" in found["cuda:0"].detail
    assert "47.0 of 48.0 GB free" in found["cuda:0"].detail
    assert "slowed down" not in found["cuda:0"].detail
    assert "slowed down (hw_thermal_slowdown)" in found["cuda:1"].detail
    assert found["cuda:0 → cuda:1"].detail == "peer access over NVLink (4 links)"
    assert found["cuda:1 → cuda:0"].status == "absent"
    assert "staged through the host" in found["cuda:1 → cuda:0"].remedy


def test_each_card_is_told_which_cost_model_applies():
    assert by_name(TWO)["cost model, cuda:1"].status == "absent"
    card = DEVICE | {"name": "NVIDIA H200", "multiprocessors": 132}
    finding = by_name(TWO | {"devices": [card], "pairs": []})["cost model, cuda:0"]
    assert finding.status == "ok"
    assert finding.detail.startswith("cuda-h200.ubj for NVIDIA H200 ×132: ")


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"bindings": False}, "absent", "not installed"),
        ({"driver_problem": "x", "devices": [], "pairs": []}, "absent", "no NVIDIA driver"),
        ({"device_problem": "facts failed on cuda:0: E: lost"}, "broken", "lost"),
        ({"devices": [], "pairs": []}, "absent", "no device"),
        ({"runtime": "14.1"}, "broken", "the driver is older"),
        ({"error": "asking CUDA did not end"}, "broken", "did not end"),
    ],
)
def test_what_is_missing_comes_with_the_next_step(change, status, words):
    finding = by_name({**TWO, **change})["CUDA"]
    assert finding.status == status
    assert words in finding.detail
    assert finding.remedy


def test_a_probe_that_dies_is_a_finding(monkeypatch):
    monkeypatch.setattr(cuda_diagnosis.sys, "executable", "/bin/false")
    (finding, *_) = cuda_diagnosis.diagnose_cuda()
    assert finding.status == "broken"
    assert "exit code 1" in finding.detail


def test_nvcc_is_looked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvcc_finding().status == "absent"
    tool = tmp_path / "nvcc"
    tool.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V13.0.48'\n")
    tool.chmod(0o755)
    assert nvcc_finding().detail.startswith("13.0 at ")
    tool.write_text("#!/bin/sh\nexit 3\n")
    assert nvcc_finding().status == "broken"


def test_without_nvrtc_only_sources_cannot_be_loaded():
    found = by_name({key: value for key, value in TWO.items() if key != "nvrtc"})
    assert found["nvrtc"].status == "absent"
