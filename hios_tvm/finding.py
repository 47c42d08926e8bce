"""What a probe of `hios doctor` says."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Status"]

Status = Literal["ok", "absent", "broken"]
"""``absent`` is no error (something optional), ``broken`` needs its remedy."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one probe.

    Attributes
    ----------
    name
        What was looked at.
    status
        See `Status`.
    detail
        Version, count, path, or what is wrong.
    remedy
        The command or the step that helps; empty where nothing is wrong.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""
