"""Read what `hios compare` wrote."""

from os import PathLike
from typing import Any

from hios_tvm.report.html.data import ComparedModel

__all__ = ["read_comparison"]


def read_comparison(path: str | PathLike[str]) -> tuple[ComparedModel, ...]:
    raise NotImplementedError
