"""A comparison as a table for terminals, and as Markdown."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hios_tvm.comparison_result import ComparisonResult, EngineRow, Verdict
from hios_tvm.report.summary import format_us, rows_table

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["comparison_table", "facts", "markdown", "verdict_lines"]

_HEADERS = ("engine", "median", "p10–p90", "p99", "runs", "speed-up (90 %)", "error")
_DASH = "–"


def comparison_table(result: ComparisonResult) -> "Table":
    """Return the measured rows; `absences` of the result come as lines after it."""
    title = (
        f"{result.model}: {result.operators} operators on {_cores(result)}; "
        f"speed-up over {_name(result, result.baseline)}"
    )
    return rows_table(_headers(result), _cells(result), title)


def facts(result: ComparisonResult) -> list[str]:
    """Return what a reader must know beside the table, a line each: absences, precision, notes."""
    missing: dict[str, list[str]] = {}
    for row in result.rows:
        if row.status == "absent":
            missing.setdefault(row.remedy or "", []).append(row.name)
    lines = [f"not here: {'; '.join(names)}: {remedy}" for remedy, names in missing.items()]
    lines += [
        f"WRONG: {row.name} differs from {_name(result, result.reference)} by "
        f"{_error(row)}, allowed {row.tolerance:g}"
        for row in result.rows
        if row.status == "differs"
    ]
    lines += [
        f"{row.name}: {row.note}" for row in result.rows if row.note and row.status != "absent"
    ]
    shapes = ", ".join(f"{i.name} {'×'.join(map(str, i.shape))} {i.dtype}" for i in result.inputs)
    lines.append(f"input {shapes}, random from seed {result.seed}, the same for all")
    lines.append(
        f"error: ‖out − ref‖ / ‖ref‖ against {_name(result, result.reference)}; precision "
        + ", ".join(dict.fromkeys(row.precision for row in result.measured()))
    )
    if result.energy_source is None:
        lines.append("energy: this machine does not tell (neither RAPL nor NVML)")
    else:
        lines.append(f"energy from {result.energy_source}, idle share included")
    spinning = [row for row in result.measured() if (row.lingering_us or 0.0) > 1e3]
    lines += [
        f"after a turn the threads of {row.name} still used {format_us(row.lingering_us or 0.0)} "
        "of processor time; the next engine waited for that"
        for row in spinning
    ]
    return lines


def verdict_lines(result: ComparisonResult) -> list[str]:
    """Return one sentence for each rival: how ours stands against it."""
    return [_sentence(result, verdict) for verdict in result.verdicts]


def markdown(result: ComparisonResult) -> str:
    """Return the whole comparison as a Markdown section."""
    headers = [*_headers(result), "settings"]
    lines = [
        f"## {result.model}",
        "",
        (
            f"{result.operators} operators, {_cores(result)}; {_host(result)}, "
            f"{result.host.system}, {result.date}. Speed-up over {_name(result, result.baseline)}, "
            "with its 90 % bootstrap interval; all engines took turns in one process."
        ),
        "",
        "| " + " | ".join(headers) + " |",
        "|---|" + "--:|" * (len(headers) - 2) + "---|",
    ]
    settings = [row.settings for row in result.rows if row.status != "absent"]
    lines += [
        "| " + " | ".join((*cells, said)) + " |"
        for cells, said in zip(_cells(result), settings, strict=True)
    ]
    lines += ["", *(f"- {line}" for line in verdict_lines(result))]
    lines += ["", *(f"- {line}" for line in facts(result))]
    if result.command:
        lines += ["", "```console", f"$ {result.command}", "```"]
    return "\n".join(lines) + "\n"


def _headers(result: ComparisonResult) -> Sequence[str]:
    return _HEADERS if result.energy_source is None else (*_HEADERS, "energy")


def _cells(result: ComparisonResult) -> list[tuple[str, ...]]:
    table = []
    for row in result.rows:
        if row.status == "absent" or row.median_us is None:
            continue
        cells = [
            row.title,
            format_us(row.median_us),
            _range(row.p10_us or 0.0, row.p90_us or 0.0),
            format_us(row.p99_us or 0.0),
            str(row.runs),
            f"{row.speedup:.2f}× ({row.speedup_low:.2f}–{row.speedup_high:.2f})",
            _error(row),
        ]
        if result.energy_source is not None:
            cells.append(_DASH if row.energy_j is None else f"{1e3 * row.energy_j:.1f} mJ")
        table.append(tuple(cells))
    return table


def _range(low_us: float, high_us: float) -> str:
    """Write both ends in the unit of the higher one."""
    value, unit = format_us(high_us).split()
    scale = high_us / float(value) if high_us > 0 else 1.0
    return f"{low_us / scale:.2f}–{value} {unit}"


def _error(row: EngineRow) -> str:
    return "∞" if row.relative_error is None else f"{row.relative_error:.1e}"


def _sentence(result: ComparisonResult, verdict: Verdict) -> str:
    interval = f"{verdict.ratio:.2f}× ({verdict.low:.2f}–{verdict.high:.2f})"
    rival = _name(result, verdict.rival)
    if verdict.low > 1.0:
        return f"{_name(result, verdict.ours)} is {interval} as fast as {rival}"
    if verdict.high < 1.0:
        return f"{rival} is faster: ours has {interval} its speed"
    return f"{rival} and ours are equally fast: {interval}"


def _name(result: ComparisonResult, key: str) -> str:
    row = result.row(key)
    return key if row is None else row.name


def _host(result: ComparisonResult) -> str:
    vectors = result.host.vectors
    widest = next((name for name in _WIDEST_FIRST if name in vectors), "")
    return f"{result.host.cpu} ({widest})" if widest else result.host.cpu


_WIDEST_FIRST = ("avx512f", "avx2", "avx")


def _cores(result: ComparisonResult) -> str:
    devices = ", ".join(result.devices)
    count = len(result.host.cores)
    return f"{devices} ({count} core{'s' if count > 1 else ''} in all)"
