"""Static features of a kernel, read from its TIR before it is scheduled.

They describe the work (family, arithmetic, compulsory bytes), not the schedule, so that two
schedules of one operator have the same features. `RecordFeatures` writes them as attributes of
the PrimFunc, where they survive scheduling; `launch_of` reads the scheduled form.
"""

from __future__ import annotations

import math
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx
from tvm.s_tir.analysis import estimate_tir_flops

from relay_passes.kernels.blocks import ROLE, all_blocks, annotation
from relay_passes.kinds import kind_from_name

__all__ = [
    "FLOPS",
    "KIND",
    "RecordFeatures",
    "bound_extents",
    "kind_of",
    "launch_of",
    "launches_of",
]

KIND = "hios.kind"
"""PrimFunc attribute: family of the operator."""
RULE = "hios.rule"
"""PrimFunc attribute: which rule scheduled it."""
FLOPS = "hios.flops"
"""PrimFunc attribute: arithmetic operations of one call, as a string (it may pass 2³¹)."""


@tvm.transform.module_pass(opt_level=0, name="HiosRecordFeatures")
class RecordFeatures:
    """Module pass: attach `KIND` and `FLOPS` to every PrimFunc that lacks them."""

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Annotate each function."""
        new = tvm.IRModule(dict(mod.functions_items()), attrs=mod.attrs)
        for gvar, func in mod.functions_items():
            if isinstance(func, tirx.PrimFunc) and KIND not in (func.attrs or {}):
                kind = kind_of(func, str(gvar.name_hint))
                func = func.with_attr(KIND, kind).with_attr(FLOPS, repr(_flops(func)))
                new.update_func(gvar, func)
        return new


def kind_of(func: tirx.PrimFunc, name: str) -> str:
    """Return the family of a kernel: the role marked in it, else what its name tells."""
    for block in _blocks(func):
        if block[1] not in (None, "pad"):
            return str(block[1])
    return kind_from_name(name)


def launch_of(func: tirx.PrimFunc) -> dict[str, int]:
    """Return the launch facts of a scheduled kernel.

    Returns
    -------
    dict
        On a GPU ``grid`` and ``block`` (numbers of blocks, and of threads in a block, of the
        largest launch); on a CPU ``parallel_extent``, the largest parallel loop (1 if serial).
    """
    launches = launches_of(func)
    if launches:
        return max(launches, key=lambda launch: launch["grid"] * launch["block"])
    parallel = 1

    def visit(loop: tirx.For) -> None:
        nonlocal parallel
        if isinstance(loop.extent, tirx.IntImm) and loop.kind == tirx.ForKind.PARALLEL:
            parallel = max(parallel, int(loop.extent))

    tvm_ffi.structural_walk(func.body, (tirx.For, visit), order="pre")
    return {"parallel_extent": parallel}


def launches_of(func: tirx.PrimFunc) -> list[dict[str, int]]:
    """Return ``grid`` and ``block`` of each launch of a scheduled kernel, in order.

    Every outermost loop that is bound to blocks or threads is one launch.
    """
    return [
        {
            "grid": math.prod(v for k, v in extents.items() if k.startswith("blockIdx")),
            "block": math.prod(v for k, v in extents.items() if k.startswith("threadIdx")),
        }
        for extents in bound_extents(func)
    ]


def bound_extents(func: tirx.PrimFunc) -> list[dict[str, int]]:
    """Return the extent of each thread tag (``blockIdx.x``) of each launch, in order."""
    launches = []
    for loops in _bound_loops(func.body):
        extents: dict[str, int] = {}
        for tag, extent in loops:
            extents[tag] = max(extent, extents.get(tag, 1))
        launches.append(extents)
    return launches


def _bound_loops(body: Any) -> list[list[tuple[str, int]]]:
    """Return tags and extents of the bound loops below each outermost one."""
    found: list[list[tuple[str, int]]] = []
    inside = 0

    def enter(loop: tirx.For) -> None:
        nonlocal inside
        if loop.kind != tirx.ForKind.THREAD_BINDING or loop.thread_binding is None:
            return
        if inside == 0:
            found.append([])
            tvm_ffi.structural_walk(loop, (tirx.For, count), order="pre")
        inside -= 1
        extent = int(loop.extent) if isinstance(loop.extent, tirx.IntImm) else 1
        found[-1].append((str(loop.thread_binding.thread_tag), extent))

    def count(loop: tirx.For) -> None:
        nonlocal inside
        inside += loop.kind == tirx.ForKind.THREAD_BINDING and loop.thread_binding is not None

    tvm_ffi.structural_walk(body, (tirx.For, enter), order="pre")
    return found


def _blocks(func: tirx.PrimFunc) -> list[tuple[int, str | None]]:
    """Return ``(iterations, role)`` of every block below the root."""
    if not isinstance(func.body, s_tir.SBlockRealize):
        return []
    sch = s_tir.Schedule(func)
    found = []
    for block in all_blocks(sch):
        role = annotation(sch, block, ROLE)
        extents = [sch.get(loop).extent for loop in sch.get_loops(block)]
        known = all(isinstance(e, tirx.IntImm) for e in extents)
        size = math.prod(int(e) for e in extents) if known else 0
        found.append((size, None if role is None else str(role)))
    return found


def _flops(func: tirx.PrimFunc) -> float:
    flops = float(estimate_tir_flops(tvm.IRModule({"main": func})))
    if not isinstance(func.body, s_tir.SBlockRealize):
        return flops
    # Tiles compute a little beyond the edge of the output: count what was asked for.
    sch = s_tir.Schedule(func)
    for block in all_blocks(sch):
        useful = annotation(sch, block, "hios.flops")
        if useful is not None:
            extents = [int(sch.get(loop).extent) for loop in sch.get_loops(block)]
            flops += float(str(useful)) - 2.0 * math.prod(extents)
    return flops
