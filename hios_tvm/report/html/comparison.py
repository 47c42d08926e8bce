"""Read what `hios compare --json` wrote, and keep what the page shows of it."""

from os import PathLike, fspath

import msgspec

from hios.errors import InvalidOption
from hios.ir.serial import decode_json, read_bytes
from hios_tvm.comparison_result import FORMAT, ComparisonResult, EngineRow
from hios_tvm.report.html.data import ComparedEngine, ComparedModel

__all__ = ["read_comparison"]


def read_comparison(path: str | PathLike[str]) -> tuple[ComparedModel, ...]:
    """Read one comparison, or a list of them.

    Parameters
    ----------
    path
        A JSON file of `hios compare`.

    Returns
    -------
    tuple of ComparedModel
        Engines with times first, the fastest at the top.

    Raises
    ------
    MissingFile
        When it cannot be read.
    InvalidOption
        When it is no comparison, or one of another format.
    """
    what = f"--comparison {fspath(path)}"
    data = read_bytes(path)
    parts: list[bytes] = [data]
    if data.lstrip().startswith(b"["):
        parts = [bytes(part) for part in decode_json(data, list[msgspec.Raw], InvalidOption, what)]
    results = [decode_json(part, ComparisonResult, InvalidOption, what) for part in parts]
    for result in results:
        if result.format != FORMAT:
            raise InvalidOption(
                f"{what}: format {result.format}, this version reads {FORMAT}; "
                "write it again with `hios compare --json`"
            )
    return tuple(_model(result) for result in results)


def _model(result: ComparisonResult) -> ComparedModel:
    timeless = [row for row in result.rows if row.median_us is None]
    cores = f", {len(result.host.cores)} cores" if result.host.cores else ""
    devices = f", devices {', '.join(result.devices)}" if result.devices else ""
    baseline = result.row(result.baseline)
    return ComparedModel(
        name=result.model,
        machine=f"{result.host.cpu}{cores}{devices}",
        command=result.command,
        engines=tuple(_engine(row) for row in (*result.measured(), *timeless)),
        baseline=result.baseline if baseline is None else baseline.name,
        date=result.date,
    )


def _engine(row: EngineRow) -> ComparedEngine:
    remark = "; ".join(part for part in (row.note, row.remedy) if part)
    if row.status == "differs":
        remark = f"its outputs differ from the reference’s. {remark}".strip()
    return ComparedEngine(
        name=row.title,
        median_us=row.median_us,
        p10_us=row.p10_us,
        p90_us=row.p90_us,
        ratio=row.speedup,
        ratio_low=row.speedup_low,
        ratio_high=row.speedup_high,
        remark=remark,
        is_ours=row.family == "hios",
    )
