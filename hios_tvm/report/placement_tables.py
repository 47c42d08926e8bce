"""Tables of what lies and runs where: memory of each device, and candidates that were simulated."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graph_executor.prediction import MemoryUse
from hios.ir.schedule import Schedule
from hios_tvm.report.summary import format_bytes, format_us, rows_table

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["memory_rows", "memory_table", "simulated_table"]

_PREFIX, _SUFFIX = "simulated_", "_us"


def memory_table(memory: Sequence[MemoryUse]) -> "Table":
    """Return operators, arena and weights of each device, and how much of it that is."""
    headers = ("device", "operators", "arena", "least possible", "weights", "together", "of all")
    rows = [
        (
            use.device,
            str(use.operators),
            format_bytes(use.arena_bytes),
            format_bytes(use.lower_bound_bytes),
            format_bytes(use.weight_bytes),
            format_bytes(use.total_bytes),
            "–" if use.capacity_bytes is None else f"{use.total_bytes / use.capacity_bytes:.1%}",
        )
        for use in memory
    ]
    return rows_table(headers, rows)


def memory_rows(memory: Sequence[MemoryUse]) -> list[dict[str, Any]]:
    """Return the same for machines, sizes in bytes."""
    return [
        {
            "device": use.device,
            "operators": use.operators,
            "arena_bytes": use.arena_bytes,
            "lower_bound_bytes": use.lower_bound_bytes,
            "weight_bytes": use.weight_bytes,
            "capacity_bytes": use.capacity_bytes,
        }
        for use in memory
    ]


def simulated_table(schedule: Schedule) -> "Table | None":
    """Return the candidates that were compared by simulation; None where none were.

    The times are the notes ``simulated_NAME_us`` of the schedule.
    """
    times = {
        key.removeprefix(_PREFIX).removesuffix(_SUFFIX): float(value)
        for key, value in schedule.notes.items()
        if key.startswith(_PREFIX) and key.endswith(_SUFFIX)
    }
    if not times:
        return None
    fastest = min(times.values())
    rows = [
        (name, format_us(time), f"{time / fastest:.2f}×" if fastest > 0 else "–")
        for name, time in sorted(times.items(), key=lambda item: item[1])
    ]
    return rows_table(("candidate", "simulated, not measured", "of the fastest"), rows)
