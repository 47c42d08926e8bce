"""Costs of stages by a learned model, from the solo times of operators.

Operators cost what a table says (measured alone). A stage of one group costs exactly the sum of
its operators. Stages of several groups are predicted, all new ones of a question in one batch,
and remembered. On a CPU device of one core groups take turns, which needs no model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cost_model.features import Basis, group_features, lay_out, setting_row
from cost_model.model_file import CostModel
from cost_model.operator_features import Rows, operator_rows
from cost_model.records import Spread, describe_operator
from graph_executor.timed_device import TimedDevice
from hios.costs.protocol import Stage
from hios.costs.table import TableCosts
from hios.errors import CostModelMismatch, InvalidCosts
from hios.ir.ids import DeviceId, OpId, TensorId
from hios.ir.machine import Device

__all__ = ["LearnedCosts", "StageInterval"]

_Key = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class StageInterval:
    """A predicted stage with its uncertainty, in µs.

    Attributes
    ----------
    low_us, high_us
        Between them the measured time is expected with the model's coverage.
    time_us
        The prediction.
    """

    low_us: float
    time_us: float
    high_us: float


@dataclass(slots=True)
class _DeviceView:
    """What predictions on one device need."""

    rows: Rows
    settings: np.ndarray[tuple[int, int], np.dtype[np.float64]]
    solo: list[float]
    takes_turns: bool
    known: dict[_Key, float] = field(default_factory=dict)


class LearnedCosts:
    """`hios.costs.protocol.Costs` whose stages a model predicts.

    Parameters
    ----------
    table
        Solo times and transfers, bound to graph and machine. On a CPU it needs one-core times.
    model
        Trained for this kind of device.
    device_names
        What each device of the machine is, as records name it: the model of the CPU or GPU.
    target
        TVM's JSON of the target of the kernels; checked against the model.
    is_graph, is_cold
        How groups will run, as in records: replayed as one graph, without warm caches.

    Raises
    ------
    CostModelMismatch
        When the model was trained for another target, kind of device or number of cores.
    InvalidCosts
        When the table has no one-core times for a CPU device.

    Notes
    -----
    A device that the model was not trained on, but of its kind and size, is predicted with the
    constants of the machine description; `is_foreign` says so.
    """

    def __init__(
        self,
        table: TableCosts,
        model: CostModel,
        device_names: Sequence[str],
        target: str,
        *,
        is_graph: bool = False,
        is_cold: bool = False,
    ) -> None:
        self.table = table
        self.model = model
        self.graph = table.graph
        self.machine = table.machine
        self.is_foreign = False
        self._names = tuple(device_names)
        self._target = target
        self._setting = (is_graph, is_cold)
        self._views: list[_DeviceView] = []
        for index, device in enumerate(self.machine.devices):
            model.require(device.kind, target)
            self._views.append(self._view(DeviceId(index), device, device_names[index]))

    def operator_us(self, op: OpId, device: DeviceId) -> float:
        """Return the solo time of `op` on `device`."""
        return self.table.times_us[op][device]

    def stage_us(self, groups: Stage, device: DeviceId) -> float:
        """Return the predicted time of concurrent groups; at least the longest of them."""
        return self.stage_us_many((groups,), device)[0]

    def stage_us_many(self, stages: Sequence[Stage], device: DeviceId) -> list[float]:
        """Return `stage_us` of each stage, predicting those that are new in one batch."""
        view = self._views[device]
        solo, known = view.solo, view.known
        found: list[float] = []
        asked: list[tuple[int, _Key]] = []
        for place, groups in enumerate(stages):
            if len(groups) < 2 or view.takes_turns:
                found.append(sum([solo[op] for group in groups for op in group]))
                continue
            # The order of groups means nothing; sorted, rounding is the same for all orders.
            key: _Key = tuple(sorted([tuple(group) for group in groups if len(group)]))
            time = known.get(key)
            if time is None:
                if len(key) < 2:
                    time = sum([solo[op] for group in key for op in group])
                else:
                    asked.append((place, key))
                    time = 0.0
            found.append(time)
        if asked:
            new = list(dict.fromkeys([key for _, key in asked]))
            known.update(zip(new, self._predict(new, view), strict=True))
            for place, key in asked:
                found[place] = known[key]
        return found

    def interval(self, groups: Stage, device: DeviceId) -> StageInterval:
        """Return the prediction of a stage with its uncertainty: none where groups do not share."""
        time_us = self.stage_us(groups, device)
        view = self._views[device]
        key: _Key = tuple(sorted(tuple(group) for group in groups if len(group)))
        if len(key) < 2 or view.takes_turns:
            return StageInterval(time_us, time_us, time_us)
        features, basis = self._features([key], view)
        low, high = self.model.fitted.interval(features, basis)
        total = float(basis.sum_us[0])
        return StageInterval(
            min(time_us, total * float(np.exp(low[0]))),
            time_us,
            max(time_us, total * float(np.exp(high[0]))),
        )

    def least_work_us(self, op: OpId, device: DeviceId, is_staged: bool) -> float:
        """Return the least time of `device` that `op` takes away from others.

        No stage is predicted faster than its longest group, so k streams do at most k times
        the work of one. A device whose groups take turns gives all of its time.
        """
        del is_staged
        solo = self.table.times_us[op][device]
        if self._views[device].takes_turns:
            return solo
        return solo / self.machine.devices[device].streams

    def transfer_us(self, tensor: TensorId, src: DeviceId, dst: DeviceId) -> float:
        """Return the time to copy `tensor`, as the table says."""
        return self.table.transfer_us(tensor, src, dst)

    def with_table(self, table: TableCosts) -> "LearnedCosts":
        """Return the same costs from other solo times."""
        is_graph, is_cold = self._setting
        return LearnedCosts(
            table, self.model, self._names, self._target, is_graph=is_graph, is_cold=is_cold
        )

    @property
    def stages_predicted(self) -> int:
        """How many different stages were predicted so far."""
        return sum(len(view.known) for view in self._views)

    def _predict(self, keys: Sequence[_Key], view: _DeviceView) -> list[float]:
        features, basis = self._features(keys, view)
        times = basis.sum_us * np.exp(self.model.fitted.predict(features, basis))
        # exp(ln x) may round below x.
        found: list[float] = np.maximum(times, basis.longest_us).tolist()
        return found

    def _features(
        self, keys: Sequence[_Key], view: _DeviceView
    ) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], Basis]:
        is_cpu = self.model.facts.device_kind == "cpu"
        return group_features(view.rows, lay_out(keys), view.settings, is_cpu)

    def _view(self, index: DeviceId, device: Device, name: str) -> _DeviceView:
        units = len(device.cores) or device.compute_units or 1
        takes_turns = device.kind == "cpu" and units == 1
        described = self.model.device(name, units)
        if described is None and not takes_turns:
            if device.kind == "cpu" and units not in {d.units for d in self.model.facts.devices}:
                sizes = sorted({d.units for d in self.model.facts.devices})
                raise CostModelMismatch(
                    f"the cost model was trained on devices of {', '.join(map(str, sizes))} cores "
                    f"and device {device.name!r} has {units}; collect groups there and train again"
                )
            self.is_foreign = True
        if described is None:
            described = TimedDevice(
                name,
                device.kind,
                "",
                units,
                bandwidth_gb_s=device.bandwidth_gb_s,
                peak_gflops=device.peak_gflops,
            )
        table = self.table
        solo = [row[index] for row in table.times_us]
        narrow = table.narrow_us
        if device.kind == "cpu" and not takes_turns and narrow is None:
            raise InvalidCosts(
                "learned costs need the one-core time of each operator; measure them (profile)"
            )
        ops = [
            describe_operator(
                self.graph,
                op.id,
                solo_us=_exactly(solo[op.id]),
                narrow_us=_exactly(narrow[op.id][index])
                if device.kind == "cpu" and narrow is not None
                else None,
            )
            for op in self.graph.operators
        ]
        is_graph, is_cold = self._setting
        settings = setting_row(
            described, "graph" if is_graph else "eager", "cold" if is_cold else "warm"
        )
        return _DeviceView(operator_rows(ops, described), np.array([settings]), solo, takes_turns)


def _exactly(time_us: float) -> Spread:
    return Spread(time_us, time_us, time_us, 1)
