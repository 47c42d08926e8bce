"""Groups of concurrent operators as rows of features.

The same arrays describe groups that were measured and stages that a scheduler asks about: rows
of operators (`cost_model.operator_features`), which of them form a chain, and which chains form
a group. Everything is a reduction over these, in one compiled loop over all groups, and no
feature depends on which stream a chain is on.

Beside the features, `Basis` holds the quantities that targets, margins and clamps are made of.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from cost_model.operator_features import Column, Rows
from graph_executor.timed_device import Cache, Mode, TimedDevice

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

_SUMMED_AT = tuple(_CHAIN.index(name) for name in _SUMMED)

_FAMILIES = (Column.CONV, Column.DEPTHWISE, Column.DENSE, Column.POOL, Column.OTHER)


_SETTING = ("units", "bandwidth", "peak", "cache", "is_graph", "is_cold")

FEATURES: tuple[str, ...] = (
    *("groups", "operators", "longest_chain", "groups_per_unit"),
    *("ln_sum", "ln_longest_op", "ln_bytes", "ln_flops", "ln_intensity"),
    *("ln_bound", "ln_shared", "ln_half"),
    *(f"{name}_{how}" for how in ("max", "min", "std") for name in _CHAIN),
    *(f"{name}_sum" for name in _SUMMED),
    *(f"{name}_mean" for name in ("demand", "bandwidth", "compute", "memory_bound")),
    *(f"{column.name.lower()}_share" for column in _FAMILIES),
    *(f"{Column(c).name.lower()}_op_max" for c in range(Column.WAVES, len(Column))),
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


def setting_row(device: TimedDevice, mode: Mode, cache: Cache) -> list[float]:
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
    O(operators), some hundred nanoseconds a group. The loop is compiled when it is first needed.
    """
    n_groups = len(layout.groups)
    found = np.empty((n_groups, len(FEATURES)), np.float32)
    basis = np.empty((len(Basis.__slots__), n_groups))
    if n_groups:
        _compiled_fill()(
            rows,
            layout.rows,
            np.append(layout.chains, len(layout.rows)),
            np.append(layout.groups, len(layout.chains)),
            np.broadcast_to(settings, (n_groups, len(_SETTING))),
            is_cpu,
            found,
            basis,
        )
    return found, Basis(*basis)


def _starts(lengths: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    starts: npt.NDArray[np.intp] = np.cumsum(lengths) - lengths
    return starts


@cache
def _compiled_fill() -> Any:
    """Return `_fill` compiled; numba is imported when the first group is looked at."""
    from hios.schedulers.search.compiled import compiled

    return compiled(_fill)


_N_ADDED = int(Column.COUNT) + 1
_N_PEAKS = int(Column.WORKING_SET) - int(Column.WAVES) + 1
_N_CHAIN = len(_CHAIN)
_N_FAMILIES = len(_FAMILIES)
_SOLO, _NARROW, _FLOPS, _BYTES = (
    int(Column.SOLO),
    int(Column.NARROW),
    int(Column.FLOPS),
    int(Column.BYTES),
)
_DEMAND, _CONV, _COUNT, _WAVES = (
    int(Column.DEMAND),
    int(Column.CONV),
    int(Column.COUNT),
    int(Column.WAVES),
)


def _fill(
    rows: Rows,
    order: npt.NDArray[np.intp],
    chains: npt.NDArray[np.intp],
    groups: npt.NDArray[np.intp],
    settings: Floats,
    is_cpu: bool,
    found: npt.NDArray[np.float32],
    basis: Floats,
) -> None:
    """Write features and basis of all groups; `chains` and `groups` end with their ends."""
    added = np.empty(_N_ADDED)
    peaks = np.empty(_N_PEAKS)
    total = np.empty(_N_ADDED)
    peak = np.empty(_N_PEAKS)
    # Of the chains of a group: values, and their sum, largest, smallest and sum of squares.
    value = np.empty(_N_CHAIN)
    summed, high, low, square = (
        np.empty(_N_CHAIN),
        np.empty(_N_CHAIN),
        np.empty(_N_CHAIN),
        np.empty(_N_CHAIN),
    )
    for g in range(len(groups) - 1):
        units, bandwidth, fastest = settings[g, 0], settings[g, 1], settings[g, 2]
        count = groups[g + 1] - groups[g]

        total[:] = 0.0
        for at in range(chains[groups[g]], chains[groups[g + 1]]):
            for c in range(_N_ADDED):
                total[c] += rows[order[at], c]
        sum_us = total[_SOLO]
        # Amdahl's law on an equal share of the cores, as `hios.costs.table.shared_cores_us`.
        weight = 0.0
        if units > 1.0 and count > 1:
            share = max(1.0, units / count)
            weight = (1.0 / share - 1.0 / units) / (1.0 - 1.0 / units)

        summed[:] = 0.0
        square[:] = 0.0
        high[:] = -np.inf
        low[:] = np.inf
        peak[:] = -np.inf
        longest_us = slowest_us = longest_chain = 0.0
        # The two longest operators, and of the two longest chains the times and one-core times.
        first = second = -1
        one_us = other_us = -1.0
        one_narrow = other_narrow = one_bound = other_bound = 0.0
        for chain in range(groups[g], groups[g + 1]):
            added[:] = 0.0
            peaks[:] = -np.inf
            for at in range(chains[chain], chains[chain + 1]):
                op = order[at]
                for c in range(_N_ADDED):
                    added[c] += rows[op, c]
                for c in range(_N_PEAKS):
                    peaks[c] = max(peaks[c], rows[op, _WAVES + c])
                if first < 0 or rows[op, _SOLO] > rows[first, _SOLO]:
                    first, second = op, first
                elif second < 0 or rows[op, _SOLO] > rows[second, _SOLO]:
                    second = op
            time = added[_SOLO]
            longest_us = max(longest_us, time)
            slowest_us = max(slowest_us, time + (added[_NARROW] - time) * weight)
            longest_chain = max(longest_chain, added[_COUNT])
            value[0] = time / sum_us
            value[1] = added[_NARROW] / sum_us
            for c in range(4):
                value[2 + c] = added[_DEMAND + c] / time
            value[6] = peaks[_N_PEAKS - 1]
            value[7] = rows[order[chains[chain]], _WAVES]
            for c in range(_N_CHAIN):
                summed[c] += value[c]
                square[c] += value[c] * value[c]
                high[c] = max(high[c], value[c])
                low[c] = min(low[c], value[c])
            for c in range(_N_PEAKS):
                peak[c] = max(peak[c], peaks[c])
            if time > one_us:
                other_us, other_narrow, other_bound = one_us, one_narrow, one_bound
                one_us, one_narrow, one_bound = time, value[1], value[5]
            elif time > other_us:
                other_us, other_narrow, other_bound = time, value[1], value[5]
        if second < 0:
            second = first
        if other_us < 0.0:
            other_us, other_narrow, other_bound = one_us, one_narrow, one_bound

        traffic_us = total[_BYTES] / (bandwidth * 1e3) if bandwidth > 0.0 else 0.0
        compute_us = total[_FLOPS] / (fastest * 1e3) if fastest > 0.0 else 0.0
        bound_us = min(sum_us, max(longest_us, max(traffic_us, compute_us)))
        half_us = 0.5 * sum_us + 0.5 * max(total[_DEMAND], longest_us)
        shared_us = half_us
        if is_cpu:
            shared_us = max(max(longest_us, slowest_us), total[_NARROW] / units)
            if count == 1 or units == 1.0:
                shared_us = sum_us
        basis[0, g] = sum_us
        basis[1, g] = longest_us
        basis[2, g] = bound_us
        basis[3, g] = shared_us
        basis[4, g] = half_us
        basis[5, g] = traffic_us

        row = found[g]
        row[0] = count
        row[1] = total[_COUNT]
        row[2] = longest_chain
        row[3] = count / units
        row[4] = np.log(sum_us)
        row[5] = np.log(rows[first, _SOLO])
        row[6] = np.log1p(total[_BYTES])
        row[7] = np.log1p(total[_FLOPS])
        row[8] = np.log1p(total[_FLOPS]) - np.log1p(total[_BYTES])
        row[9] = np.log(bound_us / sum_us)
        row[10] = np.log(shared_us / sum_us)
        row[11] = np.log(half_us / sum_us)
        at = 12
        for c in range(_N_CHAIN):
            mean = summed[c] / count
            row[at + c] = high[c]
            row[at + _N_CHAIN + c] = low[c]
            row[at + 2 * _N_CHAIN + c] = np.sqrt(max(0.0, square[c] / count - mean * mean))
        at += 3 * _N_CHAIN
        for c in _SUMMED_AT:
            row[at] = summed[c]
            at += 1
        for c in range(4):
            row[at + c] = total[_DEMAND + c] / sum_us
        at += 4
        for c in range(_N_FAMILIES):
            row[at + c] = total[_CONV + c] / sum_us
        at += _N_FAMILIES
        for c in range(_N_PEAKS):
            row[at + c] = peak[c]
        at += _N_PEAKS
        row[at] = other_us / sum_us
        row[at + 1] = other_narrow
        # Whether one of the two longest chains wants bandwidth while the other wants arithmetic.
        row[at + 2] = abs(one_bound - other_bound)
        at += 3
        for op in (first, second):
            solo = rows[op, _SOLO]
            row[at] = solo / sum_us
            for c in range(3):
                row[at + 1 + c] = rows[op, _DEMAND + c] / solo
            row[at + 4] = rows[op, _WAVES]
            row[at + 5] = rows[op, _WAVES + 1]
            at += 6
        for c in range(settings.shape[1]):
            row[at + c] = settings[g, c]
