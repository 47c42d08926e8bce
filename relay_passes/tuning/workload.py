"""The identity of a kernel before and after scheduling, free of names."""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx

__all__ = ["func_key", "is_tunable", "like", "workload_of"]

_RULE = "schedule_rule"


def is_tunable(func: Any) -> bool:
    """Return whether `func` is an unscheduled kernel, and no call of a library routine."""
    return isinstance(func, tirx.PrimFunc) and isinstance(func.body, s_tir.SBlockRealize)


def workload_of(func: tirx.PrimFunc) -> tvm.IRModule:
    """Return the kernel as tuning knows it: one function ``main`` with no attribute of ours.

    Networks that call it by other names, and notes of what kind it is, make no difference.
    """
    body = tvm_ffi.structural_map(func.body, (s_tir.SBlock, _without_rule))
    plain = tirx.PrimFunc(func.params, body, func.ret_type)
    plain = plain.with_attr("global_symbol", "main").with_attr("tirx.noalias", True)
    return tvm.IRModule({"main": plain})


def _without_rule(block: s_tir.SBlock) -> s_tir.SBlock:
    """Drop the name of a schedule rule that TVM's operators carry and no rule answers to."""
    if _RULE not in block.annotations:
        return block
    kept = {key: value for key, value in block.annotations.items() if str(key) != _RULE}
    return s_tir.SBlock(
        block.iter_vars,
        block.reads,
        block.writes,
        block.name_hint,
        block.body,
        block.init,
        block.alloc_buffers,
        block.match_buffers,
        kept,
    )


def like(func: tirx.PrimFunc, scheduled: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return `scheduled` with the attributes of `func`."""
    new = tirx.PrimFunc(scheduled.params, scheduled.body, scheduled.ret_type, func.attrs)
    return new.with_attr("tirx.is_scheduled", True)


def func_key(func: tirx.PrimFunc) -> str:
    """Return a hash of a function without its attributes."""
    plain = tirx.PrimFunc(func.params, func.body, func.ret_type)
    return f"{int(tvm_ffi.structural_hash(plain)) & 0xFFFFFFFFFFFFFFFF:016x}"
