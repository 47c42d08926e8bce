"""Take tuned kernels where they measured faster than those of our rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm

from hios.entry_store import EntryStore
from relay_passes.tuning.compare import compare_kernels
from relay_passes.tuning.database import TuningDatabase, Verdict
from relay_passes.tuning.workload import func_key, is_tunable, like, workload_of

__all__ = ["ChooseKernels", "judge", "with_tuned_kernels"]


def with_tuned_kernels(
    phases: Sequence[tuple[str, list[Any]]], database: TuningDatabase, store: EntryStore | None
) -> list[tuple[str, list[Any]]]:
    """Return the phases of a lowering with tuned kernels chosen after the rules have scheduled.

    Parameters
    ----------
    phases : sequence
        From `relay_passes.pipeline.lowering_phases`.
    database : TuningDatabase
        The records for the target.
    store : EntryStore, optional
        Where object files are kept, for kernels that must be compared first.
    """
    return [
        (name, [ChooseKernels(passes, database, store)] if name == "schedule" else passes)
        for name, passes in phases
    ]


@tvm.transform.module_pass(opt_level=0, name="HiosChooseKernels")
class ChooseKernels:
    """Module pass: schedule by rules, then replace kernels by tuned ones that are faster.

    Parameters
    ----------
    rules : sequence of passes
        Schedule every kernel.
    database, store
        As for `with_tuned_kernels`.
    """

    def __init__(
        self, rules: Sequence[Any], database: TuningDatabase, store: EntryStore | None
    ) -> None:
        self.rules = list(rules)
        self.database = database
        self.store = store

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Schedule each function."""
        scheduled = tvm.transform.Sequential(self.rules)(mod)
        if self.database.records is None:
            return scheduled
        new = tvm.IRModule(dict(scheduled.functions_items()), attrs=scheduled.attrs)
        for gvar, func in mod.functions_items():
            if not is_tunable(func):
                continue
            tuned = self.database.best(workload_of(func))
            name = str(gvar.name_hint)
            if tuned is None:
                continue
            rule = scheduled[name]
            verdict = judge(self.database, rule, tuned, self.store)
            if verdict is not None and verdict.is_faster:
                new.update_func(new.get_global_var(name), like(rule, tuned))
        return new


def judge(
    database: TuningDatabase, rule: Any, tuned: Any, store: EntryStore | None
) -> Verdict | None:
    """Return how a tuned kernel compares with the rule's, measured now unless it was before.

    None where it cannot be measured here: kernels for a GPU are compared when they are tuned.
    """
    key = f"{func_key(rule)}-{func_key(tuned)}"
    verdict = database.verdicts.get(key)
    if verdict is None and str(database.target.kind.name) == "llvm":
        verdict = compare_kernels(rule, tuned, database.target, store)
        database.store_verdict(key, verdict)
    return verdict
