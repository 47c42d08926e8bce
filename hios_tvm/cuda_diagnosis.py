"""What `hios doctor` says about CUDA: driver, devices, how they are wired, compilers.

The facts are gathered in a process of its own (`graph_executor.cuda.probe`); `cuda_findings`
turns them into findings, so that it can be tested without a GPU.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from hios_tvm.finding import Finding
from hios_tvm.model_finding import model_finding

__all__ = ["cuda_findings", "diagnose_cuda", "nvcc_finding"]

_TIMEOUT_S = 120
_BINDINGS = "python -m pip install 'hios-tvm[cuda]'"


def diagnose_cuda() -> list[Finding]:
    """Look at CUDA; takes about a second, more where there are GPUs."""
    return [*cuda_findings(_probe()), nvcc_finding()]


def cuda_findings(facts: Mapping[str, Any]) -> list[Finding]:
    """Turn what the probe found into findings.

    Parameters
    ----------
    facts
        See `graph_executor.cuda.probe.look`; ``{"error": ...}`` when it did not end well.
    """
    if "error" in facts:
        return [Finding("CUDA", "broken", facts["error"], "see what nvidia-smi says")]
    if not facts.get("bindings"):
        return [Finding("CUDA", "absent", "cuda-core and cuda-bindings not installed", _BINDINGS)]
    findings = [_driver(facts)]
    for ordinal, device in enumerate(facts["devices"]):
        findings.append(_device(ordinal, device))
        findings.append(
            model_finding(
                f"cost model, cuda:{ordinal}",
                "cuda",
                device["name"],
                device["multiprocessors"],
                "cuda",
            )
        )
    findings += [_pair(pair) for pair in facts["pairs"]]
    findings.append(_nvrtc(facts))
    return findings


def nvcc_finding() -> Finding:
    """Look for nvcc, which compiles kernels ahead of time, with or without a GPU."""
    path = shutil.which("nvcc")
    remedy = "install the CUDA toolkit, or python -m pip install nvidia-cuda-nvcc"
    if path is None:
        detail = "not found; needed to compile for CUDA, not to run what was compiled"
        return Finding("nvcc", "absent", detail, remedy)
    try:
        answer = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        return Finding("nvcc", "broken", f"{path}: {problem}", remedy)
    match = re.search(r"release (\S+),", answer.stdout)
    if answer.returncode != 0 or match is None:
        return Finding("nvcc", "broken", f"{path} ends with {answer.returncode}", remedy)
    return Finding("nvcc", "ok", f"{match[1]} at {path} (compiles kernels ahead of time)")


def _probe() -> dict[str, Any]:
    try:
        answer = subprocess.run(
            [sys.executable, "-m", "graph_executor.cuda.probe"],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        return {"error": f"asking CUDA did not end: {problem}"}
    try:
        found: dict[str, Any] = json.loads(answer.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        lines = answer.stderr.strip().splitlines() or ["no reason given"]
        return {"error": f"asking CUDA ended with exit code {answer.returncode}: {lines[-1]}"}
    return found


def _driver(facts: Mapping[str, Any]) -> Finding:
    if "device_problem" in facts:
        return Finding("CUDA", "broken", facts["device_problem"], "see what nvidia-smi says")
    if "driver_problem" in facts and not facts["devices"]:
        detail = "no NVIDIA driver on this machine; compiling for CUDA works, running does not"
        remedy = "on a machine with a GPU: install NVIDIA's driver (nvidia.com/drivers)"
        return Finding("CUDA", "absent", detail, remedy)
    detail = "driver without NVML"
    if "driver" in facts:
        detail = f"driver {facts['driver']} for CUDA {facts['driver_cuda']}"
    if "runtime" in facts:
        detail += f", bindings for {facts['runtime']}"
    if not facts["devices"]:
        remedy = "check CUDA_VISIBLE_DEVICES, and what nvidia-smi lists"
        return Finding("CUDA", "absent", f"{detail}; no device", remedy)
    known = "runtime" in facts and "driver_cuda" in facts
    if known and _major(facts["runtime"]) > _major(facts["driver_cuda"]):
        remedy = f"update the driver, or python -m pip install 'cuda-bindings<{facts['runtime']}'"
        return Finding("CUDA", "broken", f"{detail}: the driver is older", remedy)
    return Finding("CUDA", "ok", detail)


def _device(ordinal: int, device: Mapping[str, Any]) -> Finding:
    free, total = device["free_bytes"] / 1e9, device["memory_bytes"] / 1e9
    detail = (
        f"{device['name']}, {device['architecture']} (--target cuda:{device['architecture']}), "
        f"{device['multiprocessors']} multiprocessors, {free:.1f} of {total:.1f} GB free"
    )
    if device["clock_mhz"] is not None:
        detail += f", {device['clock_mhz']} MHz"
    slow = [reason for reason in device["held_back_by"] if "slowdown" in reason]
    if slow:
        detail += f"; slowed down ({', '.join(slow)}), let it cool down before measuring"
    return Finding(f"cuda:{ordinal}", "ok", detail)


def _pair(pair: Mapping[str, Any]) -> Finding:
    name = f"cuda:{pair['src']} → cuda:{pair['dst']}"
    wires = pair["wiring"] or "unknown wiring"
    detail = f"{wires} ({pair['detail']})" if pair["detail"] else wires
    if pair["has_access"]:
        return Finding(name, "ok", f"peer access over {detail}")
    remedy = "copies are staged through the host; see nvidia-smi topo -p2p r, and IOMMU settings"
    return Finding(name, "absent", f"no peer access; {detail}", remedy)


def _nvrtc(facts: Mapping[str, Any]) -> Finding:
    if "nvrtc" in facts:
        return Finding("nvrtc", "ok", facts["nvrtc"])
    detail = "not found; only needed for kernels that were not compiled ahead of time"
    return Finding("nvrtc", "absent", detail, "python -m pip install nvidia-cuda-nvrtc")


def _major(version: str) -> int:
    return int(version.partition(".")[0])
