"""The phases from an imported Relax module to scheduled kernels, in order.

1. *Simplify*: constants, inference identities, batch norms.
2. *Merge*: the convolutions that were chosen become one; facts of all of them are noted.
3. *Layout*: channels-last.
4. *Legalise and fuse*: every operator becomes a PrimFunc, elementwise ones join their producer.
5. *Schedule*: each PrimFunc gets its loops, by the rules for the kind of target.
6. *Finish*: no scratch buffer stays inside a kernel, every kernel takes views into an arena.

Afterwards ``main`` is one list of ``call_tir``, views and tuples: the operator graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm
from tvm.relax import transform
from tvm.relax.backend import DispatchSortScan

from hios.errors import UnsupportedModel
from relay_passes.channels_last import ChannelsLast
from relay_passes.convolutions import RecordConvolutions
from relay_passes.features import RecordFeatures
from relay_passes.ffi_errors import register_errors
from relay_passes.hoist_workspace import HoistWorkspace
from relay_passes.kernels import cuda
from relay_passes.kernels.cpu import ScheduleKernels, legalize_map
from relay_passes.merge_convolutions import MergeConvolutions
from relay_passes.offset_factor import AllowOffsets
from relay_passes.simplify import Simplify

register_errors()

__all__ = ["lowering_phases", "lowering_pipeline"]


def lowering_phases(
    target: tvm.target.Target, merges: Sequence[Sequence[str]] = (), merge: Any = MergeConvolutions
) -> list[tuple[str, list[Any]]]:
    """Return the named phases of the lowering for `target`.

    Parameters
    ----------
    target : tvm.target.Target
        Decides on layouts and kernel rules.
    merges : sequence of sequence of str
        Convolutions to merge, see `relay_passes.merge_convolutions`.
    merge : pass class
        Takes `merges`: `MergeConvolutions` or `OfferedConvolutions`.

    Raises
    ------
    UnsupportedModel
        When the kind of target has no rules.
    """
    kind = str(target.kind.name)
    if kind == "llvm":
        layout: list[Any] = [ChannelsLast(), transform.CanonicalizeBindings()]
        legalize = transform.LegalizeOps(legalize_map(target))
        schedule: list[Any] = [ScheduleKernels(target)]
        offsets = [AllowOffsets()]
    elif kind == "cuda":
        layout = [ChannelsLast(), transform.CanonicalizeBindings()]
        legalize = transform.LegalizeOps(cuda.legalize_map(target))
        schedule = [cuda.ScheduleKernels(target)]
        # Views are tensors at their own address there: an unknown offset would break vectors.
        offsets = []
    else:
        raise UnsupportedModel(f"target kind {kind!r} has no kernel rules; use llvm or cuda")
    return [
        (
            "simplify",
            [
                Simplify(),
                transform.DecomposeOpsForInference(),
                transform.CanonicalizeBindings(),
                transform.FoldConstant(),
            ],
        ),
        ("merge", [merge(merges), RecordConvolutions()]),
        ("layout", [*layout, transform.FoldConstant()]),
        (
            "fuse",
            [
                DispatchSortScan(),
                legalize,
                transform.FoldConstant(),
                transform.AnnotateTIROpPattern(),
                transform.FuseOps(),
                transform.FuseTIR(),
                transform.DeadCodeElimination(),
                transform.RewriteDataflowReshape(),
            ],
        ),
        ("schedule", [RecordFeatures(), *schedule]),
        ("finish", [HoistWorkspace(), *offsets, transform.DeadCodeElimination()]),
    ]


def lowering_pipeline(target: tvm.target.Target) -> Any:
    """Return all phases as one pass."""
    passes = [p for _, phase in lowering_phases(target) for p in phase]
    return tvm.transform.Sequential(passes, name="hios_lowering")
