"""What a launch of each kernel takes, for the operators of a graph.

A PrimFunc may hold several launches; TVM calls the first ``NAME_kernel``, those after it
``NAME_kernel_1`` and so on. An operator tells of the one with the most threads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hios.ir import OpGraph
from relay_passes.cuda.occupancy import resident_blocks
from relay_passes.cuda.resources import KernelResources
from relay_passes.features import launches_of

__all__ = ["kernel_launches", "with_resources"]


def with_resources(
    graph: OpGraph,
    kernels: Mapping[str, Any],
    resources: Mapping[str, KernelResources],
    arch: str,
) -> OpGraph:
    """Return `graph` with the static resources of its kernels in `Operator.launch`.

    Parameters
    ----------
    graph : OpGraph
        Its operators name the kernels.
    kernels : mapping
        Scheduled PrimFuncs by name.
    resources : mapping
        Of each launch, by the name that it has in the cubin.
    arch : str
        Decides how many blocks fit on a multiprocessor.

    Notes
    -----
    Keys are ``grid`` (blocks), ``block`` (threads of a block), ``shared_bytes`` (of a block,
    static and dynamic), ``registers`` and ``local_bytes`` (of a thread; local memory is a spill
    or a stack), ``resident_blocks`` (of a multiprocessor at most), ``occupancy_percent`` (of the
    threads of a multiprocessor) and ``launches`` (of one call).
    """
    known: dict[str, dict[str, int]] = {}
    for name, func in kernels.items():
        launches = kernel_launches(name, func, resources, arch)
        if launches:
            largest = max(launches, key=lambda launch: launch["grid"] * launch["block"])
            known[name] = largest | {"launches": len(launches)}
    operators = tuple(
        replace(op, launch=known[op.kernel]) if op.kernel in known else op for op in graph.operators
    )
    return replace(graph, operators=operators)


def kernel_launches(
    name: str, func: Any, resources: Mapping[str, KernelResources], arch: str
) -> list[dict[str, int]]:
    """Return the facts of every launch of one kernel, in order; see `with_resources`."""
    from relay_passes.cuda.occupancy import LIMITS

    pattern = re.compile(re.escape(name) + r"_kernel(?:_(\d+))?$")
    found = {int(match[1] or 0): r for n, r in resources.items() if (match := pattern.match(n))}
    launches = []
    for index, launch in enumerate(launches_of(func)):
        used = found.get(index)
        if used is None:
            launches.append(launch)
            continue
        shared = used.shared_bytes + launch.get("dynamic_shared_bytes", 0)
        fits = resident_blocks(arch, launch["block"], used.registers, shared)
        warps = -(-launch["block"] // 32)
        launches.append(
            {
                "grid": launch["grid"],
                "block": launch["block"],
                "shared_bytes": shared,
                "registers": used.registers,
                "local_bytes": used.local_bytes,
                "resident_blocks": fits,
                "occupancy_percent": round(100 * fits * warps / LIMITS[arch].warps),
            }
        )
    return launches
