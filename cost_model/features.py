"""Groups of concurrent operators as rows of features.

The same arrays describe groups that were measured and stages that a scheduler asks about: rows
of operators (`cost_model.operator_features`), which of them form a chain, and which chains form
a group. Everything is a reduction over these, for all groups at once, and no feature depends on
which stream a chain is on.

Beside the features, `Basis` holds the quantities that targets, margins and clamps are made of.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cost_model.operator_features import Column, Rows
from cost_model.records import Cache, DeviceRecord, Mode

__all__ = [
    "FEATURES",
    "MONOTONE",
    "Basis",
    "Layout",
    "group_features",
    "lay_out",
    "setting_row",
]

Floats = npt.NDArray[np.float64]

_CHAIN = ("time", "narrow", "demand", "bandwidth", "compute", "memory_bound", "set", "waves")
"""Per chain: Tg and its one-core time over ΣTg; mean shares over its time; its largest working
set over the cache; the waves of its first launch."""

_SUMMED = ("narrow", "demand", "bandwidth", "compute", "set", "waves")
"""Those whose sum over the chains tells more than their mean: what all of them want at once."""

_SLOT = ("time", "demand", "bandwidth", "compute", "waves", "tail")
"""Of each of the two longest operators; its time over ΣTg."""

_SUMMED_AT = [_CHAIN.index(name) for name in _SUMMED]

_FAMILIES = (Column.CONV, Column.DEPTHWISE, Column.DENSE, Column.POOL, Column.OTHER)

_ADD = slice(0, Column.COUNT + 1)
_PEAK = slice(Column.WAVES, Column.WORKING_SET + 1)

_SETTING = ("units", "bandwidth", "peak", "cache", "is_graph", "is_cold")

FEATURES: tuple[str, ...] = (
    *("groups", "operators", "longest_chain", "groups_per_unit"),
    *("ln_sum", "ln_longest_op", "ln_bytes", "ln_flops", "ln_intensity"),
    *("ln_bound", "ln_shared", "ln_half"),
    *(f"{name}_{how}" for how in ("max", "min", "std") for name in _CHAIN),
    *(f"{name}_sum" for name in _SUMMED),
    *(f"{name}_mean" for name in ("demand", "bandwidth", "compute", "memory_bound")),
    *(f"{column.name.lower()}_share" for column in _FAMILIES),
    *(f"{Column(c).name.lower()}_op_max" for c in range(_PEAK.start, _PEAK.stop)),
    *("second_chain", "second_chain_narrow", "complement"),
    *(f"slot{slot}_{name}" for slot in (1, 2) for name in _SLOT),
    *_SETTING,
)
"""Names in order; a model file holds them, and is refused where they differ."""

MONOTONE: tuple[str, ...] = ("demand_sum", "bandwidth_sum")
"""Features with which a prediction never falls: more demand on a device is never faster."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which rows form chains, and which chains groups.

    Attributes
    ----------
    rows
        Row of each operator: chains one after another, groups one after another.
    chains
        Where each chain begins in `rows`.
    groups
        Where each group begins in `chains`.
    """

    rows: npt.NDArray[np.intp]
    chains: npt.NDArray[np.intp]
    groups: npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Basis:
    """Times of each group that predictions are built on, in µs.

    Attributes
    ----------
    sum_us
        ΣTg, the groups one after another.
    longest_us
        max Tg: no prediction is below.
    bound_us
        max(max Tg, Σbytes / bandwidth, Σflops / peak), at most ΣTg.
    shared_us
        On a CPU the groups on equal shares of the cores (`hios.costs.table.shared_cores_us`);
        elsewhere the HIOS paper's ½·ΣTg + ½·max(demand, max Tg).
    half_us
        The paper's formula, everywhere.
    traffic_us
        Σbytes / bandwidth; 0 where unknown.
    """

    sum_us: Floats
    longest_us: Floats
    bound_us: Floats
    shared_us: Floats
    half_us: Floats
    traffic_us: Floats


def lay_out(groups: Sequence[Sequence[Sequence[int]]]) -> Layout:
    """Return the layout of groups of chains of rows; chains have at least one operator."""
    chains = [chain for group in groups for chain in group]
    lengths = np.fromiter(map(len, chains), np.intp, len(chains))
    counts = np.fromiter(map(len, groups), np.intp, len(groups))
    flat = [row for chain in chains for row in chain]
    return Layout(np.array(flat, np.intp), _starts(lengths), _starts(counts))


def setting_row(device: DeviceRecord, mode: Mode, cache: Cache) -> list[float]:
    """Return what all groups of one setting share: device constants, mode and cache."""
    return [
        float(device.units),
        device.bandwidth_gb_s or 0.0,
        device.peak_gflops or 0.0,
        float(device.cache_bytes),
        float(mode == "graph"),
        float(cache == "cold"),
    ]


def group_features(
    rows: Rows, layout: Layout, settings: Floats, is_cpu: bool
) -> tuple[npt.NDArray[np.float32], Basis]:
    """Return features and basis of groups.

    Parameters
    ----------
    rows
        Rows of operators, ``(operators, len(Column))``.
    layout
        The groups.
    settings
        `setting_row` of each group, ``(groups, 6)``, or one for all, ``(1, 6)``.
    is_cpu
        Whether groups share cores.

    Returns
    -------
    features
        ``(groups, len(FEATURES))``, float32.
    basis
        See `Basis`.

    Notes
    -----
    O(operators); about a hundred numpy calls however many groups there are.
    """
    ops = rows[layout.rows]
    chains, groups = layout.chains, layout.groups
    n_groups = len(groups)
    settings = np.broadcast_to(settings, (n_groups, len(_SETTING)))
    units, bandwidth, peak = settings[:, 0], settings[:, 1], settings[:, 2]
    counts = np.diff(groups, append=len(chains))
    owner = np.repeat(np.arange(n_groups), counts)

    of_chain = np.add.reduceat(ops[:, _ADD], chains, axis=0)
    time, narrow = of_chain[:, Column.SOLO], of_chain[:, Column.NARROW]
    total = np.add.reduceat(of_chain, groups, axis=0)
    sums = total[:, Column.SOLO]

    traffic_us = _over(total[:, Column.BYTES], bandwidth * 1e3)
    compute_us = _over(total[:, Column.FLOPS], peak * 1e3)
    longest = np.maximum.reduceat(time, groups)
    bound = np.minimum(sums, np.maximum(longest, np.maximum(traffic_us, compute_us)))
    half = 0.5 * sums + 0.5 * np.maximum(total[:, Column.DEMAND], longest)
    shared = half
    if is_cpu:
        shared = _shared_cores(
            time, narrow, total[:, Column.NARROW], longest, units, groups, counts
        )
    basis = Basis(sums, longest, bound, shared, half, traffic_us)

    lengths = of_chain[:, Column.COUNT]
    sums_of_owner = sums[owner]
    peaks = np.maximum.reduceat(ops[:, _PEAK], chains, axis=0)
    values = np.empty((len(chains), len(_CHAIN)))
    values[:, 0] = time / sums_of_owner
    values[:, 1] = narrow / sums_of_owner
    values[:, 2:6] = of_chain[:, Column.DEMAND : Column.MEMORY_BOUND + 1] / time[:, None]
    values[:, 6] = peaks[:, Column.WORKING_SET - _PEAK.start]
    values[:, 7] = ops[chains, Column.WAVES]

    found = np.empty((n_groups, len(FEATURES)), np.float32)
    found[:, 0] = counts
    found[:, 1] = total[:, Column.COUNT]
    found[:, 2] = np.maximum.reduceat(lengths, groups)
    found[:, 3] = counts / units
    ends = np.add.reduceat(lengths, groups).astype(np.intp).cumsum()
    first, second = _two_longest(ops[:, Column.SOLO], ends)
    found[:, 4] = np.log(sums)
    found[:, 5] = np.log(ops[first, Column.SOLO])
    found[:, 6] = np.log1p(total[:, Column.BYTES])
    found[:, 7] = np.log1p(total[:, Column.FLOPS])
    found[:, 8] = found[:, 7] - found[:, 6]
    found[:, 9] = np.log(bound / sums)
    found[:, 10] = np.log(shared / sums)
    found[:, 11] = np.log(half / sums)
    added = np.add.reduceat(values, groups, axis=0)
    squares = np.add.reduceat(values * values, groups, axis=0)
    mean = added / counts[:, None]
    variance = np.maximum(0.0, squares / counts[:, None] - mean * mean)
    at, width = 12, len(_CHAIN)
    for extreme in (
        np.maximum.reduceat(values, groups, axis=0),
        np.minimum.reduceat(values, groups, axis=0),
        np.sqrt(variance),
    ):
        found[:, at : at + width] = extreme
        at += width
    found[:, at : at + len(_SUMMED)] = added[:, _SUMMED_AT]
    at += len(_SUMMED)
    found[:, at : at + 4] = total[:, Column.DEMAND : Column.MEMORY_BOUND + 1] / sums[:, None]
    found[:, at + 4 : at + 9] = total[:, Column.CONV : Column.OTHER + 1] / sums[:, None]
    found[:, at + 9 : at + 14] = np.maximum.reduceat(peaks, groups, axis=0)
    at += 14
    one, other = _two_longest(time, np.cumsum(counts))
    found[:, at] = values[other, 0]
    found[:, at + 1] = values[other, 1]
    # Whether one of the two longest chains wants bandwidth while the other wants arithmetic.
    found[:, at + 2] = np.abs(values[one, 5] - values[other, 5])
    at += 3
    for chosen in (first, second):
        op = ops[chosen]
        found[:, at] = op[:, Column.SOLO] / sums
        found[:, at + 1 : at + 4] = (
            op[:, Column.DEMAND : Column.COMPUTE + 1] / op[:, Column.SOLO, None]
        )
        found[:, at + 4 : at + 6] = op[:, Column.WAVES : Column.TAIL + 1]
        at += len(_SLOT)
    found[:, at:] = settings
    return found, basis


def _starts(lengths: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    starts: npt.NDArray[np.intp] = np.cumsum(lengths) - lengths
    return starts


def _over(work: Floats, rate: Floats) -> Floats:
    """Return work / rate, 0 where the rate is unknown (0)."""
    return np.divide(work, rate, out=np.zeros_like(work), where=rate > 0.0)


def _two_longest(
    times: Floats, ends: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return where the longest and the second longest of each run of `times` stand.

    `ends` are the ends of the runs. A run of one gives the same place twice.
    """
    lengths = np.diff(ends, prepend=0)
    owner = np.repeat(np.arange(len(ends)), lengths)
    ordered = np.lexsort((-times, owner))
    starts = ends - lengths
    return ordered[starts], ordered[np.minimum(starts + 1, ends - 1)]


def _shared_cores(
    time: Floats,
    narrow: Floats,
    total_narrow: Floats,
    longest: Floats,
    units: Floats,
    groups: npt.NDArray[np.intp],
    counts: npt.NDArray[np.intp],
) -> Floats:
    """Return `hios.costs.table.shared_cores_us` of each group."""
    share = np.maximum(1.0, units / counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.where(units > 1, (1 / share - 1 / units) / (1 - 1 / units), 0.0)
    weight = np.repeat(np.where(counts > 1, weight, 0.0), counts)
    slowest = np.maximum.reduceat(time + (narrow - time) * weight, groups)
    together = np.maximum(np.maximum(longest, slowest), total_narrow / units)
    alone = (counts == 1) | (units == 1)
    return np.where(alone, np.add.reduceat(time, groups), together)
