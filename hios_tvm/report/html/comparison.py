"""Read what `hios compare --json` wrote: only what the page shows of it."""

from os import PathLike, fspath
from typing import Any, Literal

import msgspec

from hios.errors import InvalidOption
from hios.ir.serial import decode_json, read_bytes
from hios_tvm.report.html.data import ComparedEngine, ComparedModel

__all__ = ["read_comparison"]

_FORMAT = 1


class _Host(msgspec.Struct):
    cpu: str
    cores: list[int] = []


class _Row(msgspec.Struct):
    key: str
    family: str
    name: str
    status: Literal["measured", "differs", "absent"]
    precision: str = ""
    note: str = ""
    remedy: str | None = None
    median_us: float | None = None
    p10_us: float | None = None
    p90_us: float | None = None
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None


class _Result(msgspec.Struct):
    model: str
    rows: list[_Row]
    host: _Host
    devices: list[str] = []
    date: str = ""
    command: str = ""
    baseline: str = ""
    format: int = _FORMAT


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
    what = fspath(path)
    data: Any = decode_json(read_bytes(path), msgspec.Raw, InvalidOption, what)
    kind: Any = list[_Result] if bytes(data).lstrip().startswith(b"[") else _Result
    try:
        found = msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as problem:
        raise InvalidOption(
            f"--comparison {what}: not a result of `hios compare --json`: {problem}"
        ) from problem
    results: list[_Result] = found if isinstance(found, list) else [found]
    for result in results:
        if result.format != _FORMAT:
            raise InvalidOption(
                f"--comparison {what}: format {result.format}, this version reads {_FORMAT}; "
                "write it again with `hios compare --json`"
            )
    return tuple(_model(result) for result in results)


def _model(result: _Result) -> ComparedModel:
    names = {row.key: row.name for row in result.rows}
    rows = sorted(
        result.rows, key=lambda row: float("inf") if row.median_us is None else row.median_us
    )
    cores = f", {len(result.host.cores)} cores" if result.host.cores else ""
    devices = f", devices {', '.join(result.devices)}" if result.devices else ""
    return ComparedModel(
        name=result.model,
        machine=f"{result.host.cpu}{cores}{devices}",
        command=result.command,
        engines=tuple(_engine(row) for row in rows),
        baseline=names.get(result.baseline, result.baseline),
        date=result.date,
    )


def _engine(row: _Row) -> ComparedEngine:
    remark = "; ".join(part for part in (row.note, row.remedy) if part)
    if row.status == "differs":
        remark = f"its outputs differ from the reference’s. {remark}".strip()
    precision = f", {row.precision}" if row.precision and row.precision != "float32" else ""
    return ComparedEngine(
        name=row.name + precision,
        median_us=row.median_us,
        p10_us=row.p10_us,
        p90_us=row.p90_us,
        ratio=row.speedup,
        ratio_low=row.speedup_low,
        ratio_high=row.speedup_high,
        remark=remark,
        is_ours=row.family == "hios",
    )
