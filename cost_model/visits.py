"""One record for each group, out of all the times that it was measured.

A measurement lasts some tenths of a second, and on a shared machine it sees the mood of that
moment: what others do to the cores and caches lasts longer. So a group may be measured again at
another time (a *visit*), and what is known of it is the middle of its visits. An operator is
measured alone with every group that it is part of, so its time alone stands on all of these.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace

from cost_model.records import GroupRecord, OperatorRecord, RecordIdentity, Spread

__all__ = ["by_group", "merge_visits"]

_Operator = tuple[str, str, int, str, str]
"""Its key, the name and units of the device, mode and cache."""


def by_group(records: Iterable[GroupRecord]) -> dict[RecordIdentity, list[GroupRecord]]:
    """Return the valid records of each group on each kind of device, in their order."""
    found: dict[RecordIdentity, list[GroupRecord]] = {}
    for record in records:
        if record.valid:
            found.setdefault(record.identity, []).append(record)
    return found


def merge_visits(records: Iterable[GroupRecord]) -> list[GroupRecord]:
    """Return one record a group: medians over its visits, and over all groups of its operators.

    Parameters
    ----------
    records
        The invalid ones are left out.

    Returns
    -------
    list of GroupRecord
        In the order of the first visits. Counts of samples are added up.
    """
    groups = by_group(records)
    solo: dict[_Operator, list[Spread]] = {}
    narrow: dict[_Operator, list[Spread]] = {}
    for visits in groups.values():
        for record in visits:
            for op in record.ops:
                if op.solo_us is not None:
                    solo.setdefault(_place(record, op), []).append(op.solo_us)
                if op.narrow_us is not None:
                    narrow.setdefault(_place(record, op), []).append(op.narrow_us)
    alone = {place: _middle(times) for place, times in solo.items()}
    on_one = {place: _middle(times) for place, times in narrow.items()}
    return [
        replace(
            visits[0],
            ops=tuple(
                replace(
                    op,
                    solo_us=alone.get(_place(visits[0], op)),
                    narrow_us=on_one.get(_place(visits[0], op)),
                )
                for op in visits[0].ops
            ),
            serial_us=_middle([r.serial_us for r in visits if r.serial_us]),
            group_us=_middle([r.group_us for r in visits if r.group_us]),
        )
        for visits in groups.values()
    ]


def _place(record: GroupRecord, op: OperatorRecord) -> _Operator:
    device = record.device
    return op.key, device.name, device.units, record.mode, record.cache


def _middle(times: Sequence[Spread]) -> Spread | None:
    if not times:
        return None
    if len(times) == 1:
        return times[0]
    p10, p50, p90 = (
        round(statistics.median(getattr(time, name) for time in times), 3)
        for name in ("p10", "p50", "p90")
    )
    return Spread(p10, p50, p90, sum(time.n for time in times))
