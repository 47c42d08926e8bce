"""Records as arrays to learn from.

The target is y = ln(T / ΣTg): below 0 the group is faster together than one after another. A
group with one chain costs its sum by definition and is not learnt from. Groups that were measured
several times are one row (`cost_model.visits`).
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cost_model.features import Basis, group_features, lay_out, setting_row
from cost_model.noise import Noise, noise_floor
from cost_model.operator_features import Column, operator_row
from cost_model.records import GroupRecord
from cost_model.visits import merge_visits
from graph_executor.timed_device import TimedDevice
from hios.errors import InvalidRecord

__all__ = ["Dataset", "build_dataset"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Groups of one kind of device, one a row.

    Attributes
    ----------
    features
        ``(groups, len(FEATURES))``.
    basis
        Sums, bounds and estimates, see `cost_model.features.Basis`.
    time_us
        Measured.
    target
        ln(time / sum).
    records
        The records themselves.
    keys
        Operators of each group.
    described
        Each device once, as features see it.
    noise
        From repeats; None where nothing was repeated.
    """

    features: npt.NDArray[np.float32]
    basis: Basis
    time_us: Floats
    target: Floats
    records: tuple[GroupRecord, ...]
    keys: tuple[frozenset[str], ...]
    described: tuple[TimedDevice, ...]
    noise: Noise | None

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self.records)

    @property
    def models(self) -> tuple[str, ...]:
        """The model that each group was met in."""
        return tuple(record.source.model for record in self.records)

    @property
    def devices(self) -> tuple[str, ...]:
        """The device that ran each group, with its units."""
        return tuple(f"{r.device.name} ×{r.device.units}" for r in self.records)

    @property
    def ids(self) -> tuple[str, ...]:
        """Identity of each group."""
        return tuple(record.group_id for record in self.records)

    def take(self, chosen: Sequence[int] | npt.NDArray[np.intp]) -> "Dataset":
        """Return the groups at these places."""
        at = np.asarray(chosen, np.intp)
        basis = Basis(*(getattr(self.basis, name)[at] for name in Basis.__slots__))
        return Dataset(
            self.features[at],
            basis,
            self.time_us[at],
            self.target[at],
            tuple(self.records[i] for i in at),
            tuple(self.keys[i] for i in at),
            self.described,
            self.noise,
        )

    def digest(self) -> str:
        """Return a hash of the measured groups and times, whatever their order."""
        told = sorted(
            f"{r.group_id} {r.device.name} {r.group_us.p50 if r.group_us else 0}"
            for r in self.records
        )
        return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def build_dataset(records: Sequence[GroupRecord]) -> Dataset:
    """Return the valid groups of several chains, each once, with features.

    Records are put in the order of their ids, so that the same set gives the same data set.

    Raises
    ------
    InvalidRecord
        When there are none, or they are of several kinds of device or target.
    """
    usable = [record for record in records if record.valid and record.streams > 1]
    if not usable:
        raise InvalidRecord(
            f"{len(records)} records and none is a valid group of several chains; collect more"
        )
    kinds = sorted({record.device.kind for record in usable})
    if len(kinds) > 1:
        raise InvalidRecord(
            f"records of devices of kinds {', '.join(kinds)}; train one model for each"
        )
    usable.sort(key=lambda r: (r.group_id, r.device.name, r.device.units, r.date, r.session))
    return _build(merge_visits(usable), noise_floor(usable))


def _described(kept: Sequence[GroupRecord]) -> dict[tuple[str, int], TimedDevice]:
    """Return one description of each device: figures that every process measures anew differ."""
    found: dict[tuple[str, int], Counter[str]] = {}
    known: dict[str, TimedDevice] = {}
    for record in kept:
        told = repr(record.device)
        known[told] = record.device
        found.setdefault((record.device.name, record.device.units), Counter())[told] += 1
    return {place: known[counts.most_common(1)[0][0]] for place, counts in sorted(found.items())}


def _build(kept: Sequence[GroupRecord], noise: Noise | None) -> Dataset:
    described = _described(kept)
    rows: list[list[float]] = []
    groups: list[list[list[int]]] = []
    settings: list[list[float]] = []
    for record in kept:
        # Chains in the order of their keys: rounding must not tell streams apart.
        device = described[record.device.name, record.device.units]
        group = []
        for chain in sorted(record.chains, key=lambda chain: [op.key for op in chain]):
            group.append(list(range(len(rows), len(rows) + len(chain))))
            rows += [operator_row(op, device) for op in chain]
        groups.append(group)
        settings.append(setting_row(device, record.mode, record.cache))
    features, basis = group_features(
        np.array(rows, np.float64).reshape(len(rows), len(Column)),
        lay_out(groups),
        np.array(settings, np.float64),
        is_cpu=kept[0].device.kind == "cpu",
    )
    time_us = np.array([r.group_us.p50 if r.group_us else np.nan for r in kept])
    keys = tuple(frozenset(op.key for op in record.ops) for record in kept)
    target = np.log(time_us / basis.sum_us)
    return Dataset(
        features, basis, time_us, target, tuple(kept), keys, tuple(described.values()), noise
    )
