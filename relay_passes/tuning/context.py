"""MetaSchedule's context of one kernel, made without what a CPU does not need."""

from __future__ import annotations

import logging
from typing import Any

import tvm
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule import _ffi_api
from tvm.s_tir.meta_schedule.logging import get_logging_func

__all__ = ["tune_context"]

_LOG = logging.getLogger("hios.tuning")


def tune_context(
    workload: tvm.IRModule,
    target: tvm.target.Target,
    strategy: Any,
    name: str,
    seed: int,
    threads: int,
) -> Any:
    """Return an initialised ``TuneContext``.

    Parameters
    ----------
    workload : tvm.IRModule
        One unscheduled kernel.
    target : tvm.target.Target
        What for.
    strategy : SearchStrategy
        Of the search.
    name : str
        Of the kernel.
    seed, threads : int
        Of the search.

    Notes
    -----
    The constructor of ``TuneContext`` imports every tensor intrinsic that TVM has, which takes
    most of a minute in version 0.27 (43 s of CPU time on a Zen 5 core). Only kernels for tensor
    cores and for integer dot products use them, so for a CPU its rules without intrinsics are
    named and the context is made below the constructor.
    """
    if str(target.kind.name) != "llvm":
        return ms.TuneContext(
            workload,
            target=target,
            space_generator="post-order-apply",
            search_strategy=strategy,
            task_name=name,
            rand_state=seed + 1,
            num_threads=threads,
            logger=_LOG,
        )
    space = ms.space_generator.PostOrderApply(
        sch_rules="llvm", postprocs="llvm", mutator_probs="llvm"
    )
    context = ms.TuneContext.__new__(ms.TuneContext)
    context.__init_handle_by_constructor__(
        _ffi_api.TuneContext,
        workload,
        target,
        space,
        strategy,
        name,
        threads,
        seed + 1,
        get_logging_func(_LOG),
    )
    _ffi_api.TuneContextInitialize(context)
    return context
