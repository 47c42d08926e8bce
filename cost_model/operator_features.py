"""One operator as a row of numbers, on the device that it was measured on.

A row holds what a device would have to give the operator: time alone, the share of the device
that it fills, of its bandwidth and of its peak. The rows of a graph are made once; the features
of a group (`cost_model.features`) are sums, extremes and ratios of rows.

Demand is the share of the device that an operator keeps busy when alone. On a CPU it is measured:
an operator that is as fast on one core as on U fills 1/U. On CUDA it is the grid over what the
device holds at once, by the threads, blocks, registers and shared memory of a multiprocessor.
"""

import math
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from cost_model.records import OperatorRecord
from graph_executor.timed_device import TimedDevice
from hios.errors import InvalidRecord

__all__ = ["Column", "operator_row", "operator_rows"]

Rows = npt.NDArray[np.float64]
"""One operator a row, one `Column` a column."""


class Column(IntEnum):
    """What stands where in a row; times in µs, shares as fractions of the device."""

    SOLO = 0
    """Time alone at the device's full width."""
    NARROW = 1
    """Time alone on one core; on CUDA the same as `SOLO`."""
    FLOPS = 2
    BYTES = 3
    """Compulsory traffic, read and written."""
    DEMAND = 4
    """`DEMAND` to `MEMORY_BOUND` are times the solo time, so that they add up over a chain."""
    BANDWIDTH = 5
    COMPUTE = 6
    MEMORY_BOUND = 7
    CONV = 8
    """`CONV` to `OTHER`: the solo time in the column of its family."""
    DEPTHWISE = 9
    DENSE = 10
    POOL = 11
    OTHER = 12
    COUNT = 13
    """1; the columns up to here add up."""
    WAVES = 14
    """ln(1 + rounds of blocks, or of parallel iterations, over the device)."""
    TAIL = 15
    """Idle share of the last of them."""
    SHARED_MEMORY = 16
    """Of a multiprocessor, for one block."""
    REGISTERS = 17
    WORKING_SET = 18
    """Bytes over the last-level cache."""


_FAMILIES = {
    "conv2d": Column.CONV,
    "depthwise": Column.DEPTHWISE,
    "dense": Column.DENSE,
    "attention": Column.DENSE,
    "pool": Column.POOL,
    "global_pool": Column.POOL,
}

_MOST_SHARE = 4.0
"""Caches lift an operator above the memory's bandwidth; beyond this it tells nothing more."""


def operator_rows(ops: Sequence[OperatorRecord], device: TimedDevice) -> Rows:
    """Return the rows of operators with solo times.

    Raises
    ------
    InvalidRecord
        When an operator has no solo time.
    """
    rows = [operator_row(op, device) for op in ops]
    return np.array(rows, np.float64).reshape(len(rows), len(Column))


def operator_row(op: OperatorRecord, device: TimedDevice) -> list[float]:
    """Return one operator's `Column` values.

    Raises
    ------
    InvalidRecord
        When it has no solo time.
    """
    if op.solo_us is None:
        raise InvalidRecord(f"operator {op.key!r} has no solo time; measure it first")
    # A kernel below the clock's resolution still takes some time.
    solo = max(op.solo_us.p50, 1e-3)
    narrow = solo if op.narrow_us is None else max(op.narrow_us.p50, 1e-3)
    rounds, blocks_at_once = _rounds(op, device)
    if device.kind == "cpu" and op.narrow_us is not None:
        demand = narrow / (solo * device.units)
    else:
        demand = rounds
    moved = op.bytes_read + op.bytes_written
    bandwidth = _share(moved, solo, device.bandwidth_gb_s)
    compute = _share(op.flops, solo, device.peak_gflops)
    row = [0.0] * len(Column)
    row[Column.SOLO] = solo
    row[Column.NARROW] = narrow
    row[Column.FLOPS] = op.flops
    row[Column.BYTES] = moved
    row[Column.DEMAND] = solo * min(1.0, demand)
    row[Column.BANDWIDTH] = solo * bandwidth
    row[Column.COMPUTE] = solo * compute
    row[Column.MEMORY_BOUND] = solo * float(bandwidth > compute)
    row[_FAMILIES.get(op.kind, Column.OTHER)] = solo
    row[Column.COUNT] = 1.0
    row[Column.WAVES] = math.log1p(rounds)
    row[Column.TAIL] = 1.0 - rounds / math.ceil(rounds) if rounds > 0.0 else 0.0
    if blocks_at_once:
        limits = device.limits
        row[Column.SHARED_MEMORY] = op.launch.get("shared_bytes", 0) / limits["shared_bytes"]
        used = op.launch.get("registers", 0) * op.launch["block"]
        row[Column.REGISTERS] = used / limits["registers"]
    row[Column.WORKING_SET] = moved / device.cache_bytes if device.cache_bytes else 0.0
    return row


def _share(work: float, time_us: float, rate_g_s: float | None) -> float:
    """Return the part of a rate (10⁹ a second) that `work` in this time needs."""
    return min(_MOST_SHARE, work / (time_us * rate_g_s * 1e3)) if rate_g_s else 0.0


def _rounds(op: OperatorRecord, device: TimedDevice) -> tuple[float, int]:
    """Return how often the launch fills the device, and blocks a multiprocessor holds at once.

    The second is 0 on a CPU and where launch or limits are unknown.
    """
    if device.kind == "cpu":
        return op.launch.get("parallel_extent", device.units) / device.units, 0
    grid, block = op.launch.get("grid", 0), op.launch.get("block", 0)
    limits = device.limits
    if not grid or not block or {"threads", "blocks", "registers", "shared_bytes"} - set(limits):
        return 1.0, 0
    at_once = min(limits["threads"] // block, limits["blocks"])
    if registers := op.launch.get("registers", 0) * block:
        at_once = min(at_once, limits["registers"] // registers)
    if shared := op.launch.get("shared_bytes", 0):
        at_once = min(at_once, limits["shared_bytes"] // shared)
    at_once = max(1, at_once)
    return grid / (device.units * at_once), at_once
