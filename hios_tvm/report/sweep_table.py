"""A sweep as tables: engines by points, and schedules decided here run there."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hios_tvm.report.summary import format_us, rows_table
from hios_tvm.sweep import SpecialisationRow, SweepResult, describe

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["specialisation_table", "sweep_markdown", "sweep_table"]

_DASH = "–"


def sweep_table(result: SweepResult) -> "Table":
    """Return median and speed-up of each engine (rows) at each point (columns)."""
    headers, rows = _engines(result)
    return rows_table(headers, rows, f"{result.model}: median (speed-up over the baseline)")


def specialisation_table(result: SweepResult) -> "Table":
    """Return times of schedules: rows are where they ran, columns what they were decided for."""
    headers, rows = _specialisation(result)
    return rows_table(headers, rows, "schedules: decided for (columns), run at (rows)")


def sweep_markdown(result: SweepResult) -> str:
    """Return the tables as Markdown."""
    blocks = [f"## {result.model}", _markdown(*_engines(result))]
    if result.specialisation:
        blocks += [
            "Schedules decided for a column and run at a row; the factor is over the row's own.",
            _markdown(*_specialisation(result)),
        ]
    return "\n\n".join(blocks) + "\n"


def _engines(result: SweepResult) -> tuple[list[str], list[tuple[str, ...]]]:
    names = list(
        dict.fromkeys(
            row.key for done in result.points for row in done.result.rows if row.status != "absent"
        )
    )
    rows = []
    for name in names:
        cells = [name]
        for done in result.points:
            row = done.result.row(name)
            if row is None or row.median_us is None:
                cells.append(_DASH)
            else:
                wrong = "" if row.status == "measured" else " WRONG"
                cells.append(f"{format_us(row.median_us)} ({row.speedup:.2f}×){wrong}")
        rows.append(tuple(cells))
    return ["engine", *(describe(done.point) for done in result.points)], rows


def _specialisation(result: SweepResult) -> tuple[list[str], list[tuple[str, ...]]]:
    points = [done.point for done in result.points]
    cells = {
        (describe(row.run_at), describe(row.decided_for)): _cell(row)
        for row in result.specialisation
    }
    rows = [
        (
            f"run at {describe(here)}",
            *(cells.get((describe(here), describe(there)), _DASH) for there in points),
        )
        for here in points
    ]
    return ["", *(f"for {describe(point)}" for point in points)], rows


def _cell(row: SpecialisationRow) -> str:
    if row.median_us is None:
        return _DASH
    if row.decided_for == row.run_at:
        return f"{format_us(row.median_us)} (own)"
    return f"{format_us(row.median_us)} ({row.slowdown:.2f}×)"


def _markdown(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(headers) + " |", "|---|" + "--:|" * (len(headers) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)
