"""Looks at CUDA in a process of its own: ``python -m graph_executor.cuda.probe`` prints JSON.

A broken driver can kill the process that asks, and asking makes a context on every GPU.
"""

import json
from typing import Any

from graph_executor.cuda.open import is_installed, open_driver

__all__ = ["look"]


def look() -> dict[str, Any]:
    """Return what there is: driver, runtime, nvrtc, devices, and how each pair is connected."""
    if not is_installed():
        return {"bindings": False}
    from cuda.bindings import nvrtc, runtime
    from cuda.core import system

    from graph_executor.cuda.check import check
    from graph_executor.cuda.driver import CudaFailed
    from graph_executor.cuda.nvml import device_health, wiring

    found: dict[str, Any] = {"bindings": True, "devices": [], "pairs": []}
    try:
        major, minor = system.get_user_mode_driver_version()[:2]
        found["driver_cuda"] = f"{major}.{minor}"
        found["driver"] = ".".join(map(str, system.get_kernel_mode_driver_version()))
    except RuntimeError as problem:
        found["driver_problem"] = _first_line(problem)
    try:
        version = check(None, runtime.cudaRuntimeGetVersion)
        found["runtime"] = f"{version // 1000}.{version % 1000 // 10}"
    except CudaFailed as problem:
        found["runtime_problem"] = str(problem)
    try:
        _, major, minor = nvrtc.nvrtcVersion()
        found["nvrtc"] = f"{major}.{minor}"
    except RuntimeError as problem:
        found["nvrtc_problem"] = _first_line(problem)
    driver = open_driver()
    try:
        count = driver.device_count()
        for ordinal in range(count):
            facts, health = driver.facts(ordinal), device_health(ordinal)
            found["devices"].append(
                {
                    "name": facts.name,
                    "architecture": facts.architecture,
                    "multiprocessors": facts.multiprocessors,
                    "free_bytes": facts.free_bytes,
                    "memory_bytes": facts.memory_bytes,
                    "clock_mhz": None if health is None else health.sm_clock_mhz,
                    "held_back_by": [] if health is None else list(health.held_back_by),
                }
            )
        for src in range(count):
            for dst in range(count):
                if src != dst:
                    wires = wiring(src, dst)
                    found["pairs"].append(
                        {
                            "src": src,
                            "dst": dst,
                            "has_access": driver.can_access_peer(dst, src),
                            "wiring": None if wires is None else wires.kind,
                            "detail": "" if wires is None else wires.detail,
                        }
                    )
    except CudaFailed as problem:
        found["device_problem"] = str(problem)
    return found


def _first_line(problem: object) -> str:
    lines = str(problem).strip().splitlines()
    return lines[0] if lines else "no reason given"


if __name__ == "__main__":
    print(json.dumps(look()))
