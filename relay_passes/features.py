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
from tvm.tirx.buffer import BufferType

from relay_passes.kernels.blocks import ROLE, all_blocks, annotation
from relay_passes.kinds import kind_from_name

__all__ = ["FLOPS", "KIND", "RecordFeatures", "buffer_bytes", "kind_of", "launch_of"]

KIND = "hios.kind"
"""PrimFunc attribute: family of the operator."""
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


def buffer_bytes(ty: BufferType) -> int:
    """Return the packed size of a buffer of static shape."""
    bits = int(tvm.DataType(str(ty.dtype.dtype)).bits)
    return math.prod(int(s) for s in ty.shape) * -(-bits // 8)


def launch_of(func: tirx.PrimFunc) -> dict[str, int]:
    """Return the launch facts of a scheduled kernel.

    Returns
    -------
    dict
        On a GPU ``grid`` and ``block`` (numbers of blocks, and of threads in a block, of the
        largest launch); on a CPU ``parallel_extent``, the largest parallel loop (1 if serial).
    """
    parallel = 1
    launches: list[dict[str, int]] = []

    def visit(loop: tirx.For) -> None:
        nonlocal parallel
        if not isinstance(loop.extent, tirx.IntImm):
            return
        extent = int(loop.extent)
        if loop.kind == tirx.ForKind.PARALLEL:
            parallel = max(parallel, extent)
        elif loop.kind == tirx.ForKind.THREAD_BINDING and loop.thread_binding is not None:
            tag = str(loop.thread_binding.thread_tag)
            current = launches[-1] if launches and tag not in launches[-1] else {}
            if not launches or current is not launches[-1]:
                launches.append(current)
            current[tag] = extent

    tvm_ffi.structural_walk(func.body, (tirx.For, visit), order="pre")
    if not launches:
        return {"parallel_extent": parallel}

    def product(launch: dict[str, int], prefix: str) -> int:
        return math.prod(v for k, v in launch.items() if k.startswith(prefix))

    largest = max(launches, key=lambda x: product(x, "blockIdx") * product(x, "threadIdx"))
    return {"grid": product(largest, "blockIdx"), "block": product(largest, "threadIdx")}


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
