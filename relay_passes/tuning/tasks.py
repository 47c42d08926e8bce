"""The distinct kernels of a network, before any rule has scheduled them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import ir, tirx

from relay_passes.frontends import import_model
from relay_passes.pipeline import lowering_phases
from relay_passes.straight_line import op_name
from relay_passes.tuning.workload import func_key, is_tunable, workload_of

__all__ = ["TuningTask", "tuning_tasks"]

_SCHEDULE = "schedule"


@dataclass(frozen=True, slots=True)
class TuningTask:
    """One distinct kernel.

    Attributes
    ----------
    name
        Its first name in the network.
    key
        Hash of the unscheduled kernel.
    count
        How often the network calls it.
    workload
        The unscheduled kernel as ``main`` of a module.
    rule
        The same kernel as our rules schedule it.
    """

    name: str
    key: str
    count: int
    workload: tvm.IRModule
    rule: tirx.PrimFunc


def tuning_tasks(
    model: Any, target: tvm.target.Target, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> list[TuningTask]:
    """Lower a network and return its distinct kernels, in the order of their first calls.

    Parameters
    ----------
    model, shapes
        As for `relay_passes.compile_graph`.
    target : tvm.target.Target
        What to tune for.

    Raises
    ------
    HiosError
        When the model cannot be read or lowered.
    """
    mod = import_model(model, shapes).mod
    with target:
        for phase, passes in lowering_phases(target):
            if phase == _SCHEDULE:
                break
            mod = tvm.transform.Sequential(passes)(mod)
        scheduled = tvm.transform.Sequential(passes)(mod)
    calls = Counter(_called(mod["main"]))
    by_name = {str(gvar.name_hint): gvar for gvar in mod.get_global_vars()}
    tasks: dict[str, TuningTask] = {}
    for name, count in calls.items():
        func = mod[by_name[name]]
        if not is_tunable(func):
            continue
        key = func_key(func)
        if key in tasks:
            count += tasks[key].count
            name = tasks[key].name
        tasks[key] = TuningTask(name, key, count, workload_of(func), scheduled[name])
    return list(tasks.values())


def _called(main: Any) -> list[str]:
    names = []
    for block in main.body.blocks:
        for binding in block.bindings:
            value = binding.value
            if op_name(value) == "relax.call_tir" and isinstance(value.args[0], ir.GlobalVar):
                names.append(str(value.args[0].name_hint))
    return names
