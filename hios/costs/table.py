"""Costs read from tables: measured times, or the times of a graph file.

A stage of several groups costs, in this order of preference:

1. what was measured for just this stage (`TableCosts.stages_us`);
2. on a CPU device with one-core times (`TableCosts.narrow_us`): the groups share the cores;
3. the formula of the HIOS paper (CLUSTER 2023, section on the cost model) over utilisations:
   ``½·ΣTg + ½·max(ΣTg·ūg, max Tg)``, with Tg the solo time of group g and ūg its
   time-weighted utilisation. An operator of unknown utilisation fills its device (1.0), so
   that groups take turns and nothing is promised that was not measured.

One group costs exactly Tg in every case.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hios.costs.protocol import Stage
from hios.errors import InvalidCosts, InvalidMachine
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId, OpId, TensorId
from hios.ir.machine import Machine
from hios.ir.serial import decode_json, encode_json

__all__ = ["StageKey", "TableCosts", "least_shared_us", "shared_cores_us", "utilization_stage_us"]

StageKey = tuple[DeviceId, tuple[tuple[OpId, ...], ...]]
"""A measured stage: its device, and its groups in ascending order (see `TableCosts.stage_key`)."""


@dataclass(frozen=True, slots=True)
class _StoredStage:
    """A measured stage as JSON can hold it."""

    device: int
    groups: tuple[tuple[int, ...], ...]
    time_us: float


@dataclass(frozen=True, slots=True)
class _StoredTable:
    """The tables of a `TableCosts` as JSON can hold them."""

    times_us: tuple[tuple[float, ...], ...]
    narrow_us: tuple[tuple[float, ...], ...] | None = None
    utilization: tuple[float, ...] | None = None
    transfers_us: dict[str, float] | None = None
    stages: tuple[_StoredStage, ...] = ()


@dataclass(frozen=True, slots=True)
class TableCosts:
    """Costs of one graph on one machine, looked up.

    Parameters
    ----------
    graph
        The graph that the ids belong to.
    machine
        Its links give the transfer times unless `transfers_us` does.
    times_us
        Solo time of each operator on each device at its full width, ``[op][device]``.
    narrow_us
        Solo time on one core, ``[op][device]``; only the rows of ``cpu`` devices are read.
    utilization
        Fraction of a device that each operator keeps busy when alone, in [0, 1].
    transfers_us
        Time of a copy of each tensor between any two different devices; a tensor that is
        not in it takes the time of the link.
    stages_us
        Measured stages, by `stage_key`.

    Raises
    ------
    InvalidCosts
        When a table has the wrong shape, or holds a NaN, infinite or negative number.

    Examples
    --------
    >>> from hios.graph_file import parse_graph_file
    >>> from hios.ir.presets import abstract_machine
    >>> text = '''{"operators": [{"id": 0, "time_us": 3, "utilization": 0.5},
    ...                          {"id": 1, "time_us": 1, "utilization": 0.5}], "edges": []}'''
    >>> costs = parse_graph_file(text).costs(abstract_machine(1, streams=2))
    >>> costs.stage_us([[0], [1]], 0)
    3.5
    """

    graph: OpGraph
    machine: Machine
    times_us: Sequence[Sequence[float]]
    narrow_us: Sequence[Sequence[float]] | None = None
    utilization: Sequence[float] | None = None
    transfers_us: Mapping[TensorId, float] | None = None
    stages_us: Mapping[StageKey, float] = field(default_factory=dict)
    _links: Mapping[tuple[int, int], tuple[float, float]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Freeze the tables as tuples of float and check every number."""
        n_ops, n_devices = len(self.graph.operators), len(self.machine.devices)
        for name in ("times_us", "narrow_us"):
            table = getattr(self, name)
            if table is not None:
                object.__setattr__(self, name, _checked_table(table, name, n_ops, n_devices))
        if self.utilization is not None:
            object.__setattr__(self, "utilization", _checked_fractions(self.utilization, n_ops))
        for tensor, value in (self.transfers_us or {}).items():
            _check_time(value, f"transfer of tensor {tensor}")
        for (device, groups), value in self.stages_us.items():
            _check_time(value, f"stage {groups} on device {device}")
        links = {
            (int(link.src), int(link.dst)): (link.latency_us, link.bandwidth_gb_s * 1e3)
            for link in self.machine.links
        }
        object.__setattr__(self, "_links", links)

    @staticmethod
    def stage_key(groups: Stage, device: DeviceId) -> StageKey:
        """Return the key of a stage in `stages_us`: the order of its groups does not matter."""
        return device, tuple(sorted(tuple(group) for group in groups))

    def operator_us(self, op: OpId, device: DeviceId) -> float:
        """Return the solo time of `op` on `device`."""
        return self.times_us[op][device]

    def stage_us(self, groups: Stage, device: DeviceId) -> float:
        """Return the time of concurrent groups; see the module's docstring for the rule."""
        times = self.times_us
        solo = [sum([times[op][device] for op in group]) for group in groups]
        if len(solo) < 2:
            return solo[0] if solo else 0.0
        longest = max(solo)
        if self.stages_us:
            measured = self.stages_us.get(self.stage_key(groups, device))
            if measured is not None:
                return max(measured, longest)
        if self.narrow_us is not None and self.machine.devices[device].kind == "cpu":
            narrow_us = self.narrow_us
            narrow = [sum([narrow_us[op][device] for op in group]) for group in groups]
            return shared_cores_us(solo, narrow, self._n_cores(device))
        demand = sum(solo)
        if self.utilization is not None:
            utilization = self.utilization
            demand = sum([times[op][device] * utilization[op] for group in groups for op in group])
        return utilization_stage_us(solo, demand)

    def stage_us_many(self, stages: Sequence[Stage], device: DeviceId) -> list[float]:
        """Return `stage_us` of each stage."""
        return [self.stage_us(stage, device) for stage in stages]

    def least_work_us(self, op: OpId, device: DeviceId, is_staged: bool) -> float:
        """Return the least time of `device` that `op` takes away from others.

        From the rule of `stage_us`: on one core all of it, on several the one-core time over
        the cores (stages only); by utilisation ``½·t·(1 + u)`` in stages and ``½·t`` in free
        streams, where the second half hides behind the longest operator. Nothing is promised
        for measured stages.
        """
        solo = self.times_us[op][device]
        if self.stages_us:
            return 0.0
        if self.narrow_us is not None and self.machine.devices[device].kind == "cpu":
            n_cores = self._n_cores(device)
            if n_cores == 1:
                return solo
            return min(solo, self.narrow_us[op][device] / n_cores) if is_staged else 0.0
        if self.utilization is None:
            return solo
        return least_shared_us(solo, self.utilization[op], is_staged)

    def transfer_us(self, tensor: TensorId, src: DeviceId, dst: DeviceId) -> float:
        """Return the time to copy `tensor` from `src` to `dst`.

        Raises
        ------
        InvalidMachine
            When neither the table nor the machine knows such a copy.
        """
        if src == dst:
            return 0.0
        if self.transfers_us is not None:
            known = self.transfers_us.get(tensor)
            if known is not None:
                return known
        try:
            latency_us, bytes_per_us = self._links[src, dst]
        except KeyError:
            devices = self.machine.devices
            raise InvalidMachine(
                f"machine {self.machine.name!r} has no link from {devices[src].name} to "
                f"{devices[dst].name}; add one to its description"
            ) from None
        return latency_us + self.graph.tensors[tensor].bytes / bytes_per_us

    def _n_cores(self, device: DeviceId) -> int:
        described = self.machine.devices[device]
        return len(described.cores) or described.compute_units or 1

    def to_json(self) -> bytes:
        """Encode the tables (not graph and machine) as JSON; `from_json` reads them back."""
        transfers = self.transfers_us
        return encode_json(
            _StoredTable(
                times_us=tuple(tuple(row) for row in self.times_us),
                narrow_us=(
                    None if self.narrow_us is None else tuple(tuple(r) for r in self.narrow_us)
                ),
                utilization=None if self.utilization is None else tuple(self.utilization),
                transfers_us=(
                    None if transfers is None else {str(t): transfers[t] for t in sorted(transfers)}
                ),
                stages=tuple(
                    _StoredStage(device, groups, time_us)
                    for (device, groups), time_us in sorted(self.stages_us.items())
                ),
            )
        )

    @staticmethod
    def from_json(
        data: bytes | str, graph: OpGraph, machine: Machine, what: str = "cost table"
    ) -> "TableCosts":
        """Decode tables written by `to_json` for the same graph and machine.

        Raises
        ------
        InvalidCosts
            When `data` is no cost table, or one of another graph or machine.
        """
        stored = decode_json(data, _StoredTable, InvalidCosts, what)
        transfers: dict[TensorId, float] | None = None
        if stored.transfers_us is not None:
            transfers = {}
            for key, value in stored.transfers_us.items():
                if not key.isdecimal() or int(key) >= len(graph.tensors):
                    raise InvalidCosts(f"{what}: {key!r} is no tensor of graph {graph.name!r}")
                transfers[TensorId(int(key))] = value
        return TableCosts(
            graph,
            machine,
            stored.times_us,
            stored.narrow_us,
            stored.utilization,
            transfers,
            {
                TableCosts.stage_key(
                    [[OpId(op) for op in group] for group in stage.groups], DeviceId(stage.device)
                ): stage.time_us
                for stage in stored.stages
            },
        )


def utilization_stage_us(solo_us: Sequence[float], demand_us: float) -> float:
    """Return the HIOS paper's estimate for concurrent groups.

    Parameters
    ----------
    solo_us
        Time of each group alone.
    demand_us
        Σ over all operators of time × utilisation.

    Returns
    -------
    float
        ``½·ΣTg + ½·max(demand, max Tg)``; at least max Tg.
    """
    return 0.5 * sum(solo_us) + 0.5 * max(demand_us, max(solo_us))


def least_shared_us(solo_us: float, utilization: float, is_staged: bool) -> float:
    """Return the least device time of one operator under `utilization_stage_us`.

    A stage costs at least ``½·Σt·(1 + u)``. In free streams the slowdown of k operators is at
    least ``½·(k + 1)``, so each takes at least ``½·t``.
    """
    return 0.5 * solo_us * (1.0 + utilization) if is_staged else 0.5 * solo_us


def shared_cores_us(wide_us: Sequence[float], narrow_us: Sequence[float], n_cores: int) -> float:
    """Return the time of concurrent groups that share the cores of one CPU device.

    Each group gets an equal share of the cores. Its time on k cores follows Amdahl's law
    through the two known points: all cores (wide) and one core (narrow). With more groups
    than cores they take turns, so the total one-core time divided by the cores is a bound.

    Parameters
    ----------
    wide_us, narrow_us
        Time of each group on all the cores and on one core.
    n_cores
        Cores of the device.

    Returns
    -------
    float
        Never below the longest group alone on all the cores.
    """
    if n_cores == 1:
        return sum(wide_us)
    # A group without work leaves its share to the others.
    n_busy = sum(wide > 0.0 for wide in wide_us) or 1
    if n_busy == 1:
        return max(wide_us)
    share = max(1.0, n_cores / n_busy)
    # 0 on all the cores, 1 on one: where the share stands on Amdahl's 1/k axis.
    weight = (1.0 / share - 1.0 / n_cores) / (1.0 - 1.0 / n_cores)
    at_share = [
        wide + (narrow - wide) * weight for wide, narrow in zip(wide_us, narrow_us, strict=True)
    ]
    slowest = max(*wide_us, *at_share)
    return max(slowest, sum(narrow_us) / n_cores)


def _check_time(value: float, what: str) -> None:
    if not 0.0 <= value < math.inf:
        raise InvalidCosts(f"{what} takes {value} µs; a time must be finite and not negative")


def _checked_table(
    table: Sequence[Sequence[float]], name: str, n_ops: int, n_devices: int
) -> tuple[tuple[float, ...], ...]:
    rows = tuple(tuple(float(value) for value in row) for row in table)
    if len(rows) != n_ops or any(len(row) != n_devices for row in rows):
        widths = sorted({len(row) for row in rows})
        raise InvalidCosts(
            f"{name} has {len(rows)} rows of {widths} times; need one row of {n_devices} "
            f"(one per device) for each of {n_ops} operators"
        )
    for op, row in enumerate(rows):
        for device, value in enumerate(row):
            _check_time(value, f"{name}: operator {op} on device {device}")
    return rows


def _checked_fractions(values: Sequence[float], n_ops: int) -> tuple[float, ...]:
    fractions = tuple(float(value) for value in values)
    if len(fractions) != n_ops:
        raise InvalidCosts(f"utilization has {len(fractions)} values for {n_ops} operators")
    for op, value in enumerate(fractions):
        if not 0.0 <= value <= 1.0:
            raise InvalidCosts(f"utilization of operator {op} is {value}; need 0 ≤ u ≤ 1")
    return fractions
