"""Costs whose stages are measured when a scheduler first asks about them: the exhaustive profile.

Stages of the same kernels are measured once. Operators cost what the profile of the whole network
says; a stage costs their sum times the measured ratio of the stage to its operators alone, so
that both ways of knowing stages stand on the same solo times.
"""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from cost_model.candidates import Identity, identity_of
from graph_executor.group_measure import CpuGroupTimer
from graph_executor.group_timer import GroupOptions, time_group
from hios.costs.protocol import Costs, Stage
from hios.costs.table import TableCosts
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId, OpId, TensorId
from hios.ir.kernels import CompiledGraph
from hios.ir.machine import Device
from hios.statistics import Samples

__all__ = ["CountedStages", "MeasuredStages"]


class CountedStages:
    """Other costs, and which stages of several groups were asked about.

    Attributes
    ----------
    asked
        One stage of each set of kernels.
    """

    def __init__(self, graph: OpGraph, costs: Costs) -> None:
        self._graph = graph
        self._costs = costs
        self.asked: dict[Identity, Stage] = {}

    def operator_us(self, op: OpId, device: DeviceId) -> float:
        """Return what the other costs say."""
        return self._costs.operator_us(op, device)

    def stage_us(self, groups: Stage, device: DeviceId) -> float:
        """Return what the other costs say."""
        if sum(len(group) > 0 for group in groups) > 1:
            self.asked.setdefault(identity_of(self._graph, groups), groups)
        return self._costs.stage_us(groups, device)

    def stage_us_many(self, stages: Sequence[Stage], device: DeviceId) -> list[float]:
        """Return `stage_us` of each."""
        return [self.stage_us(stage, device) for stage in stages]

    def transfer_us(self, tensor: TensorId, src: DeviceId, dst: DeviceId) -> float:
        """Return what the other costs say."""
        return self._costs.transfer_us(tensor, src, dst)


class MeasuredStages:
    """Costs on one CPU device that measure every stage that they are asked about.

    Attributes
    ----------
    seconds
        What each stage took to measure that was asked about since `forget_asked`, whether it
        was measured then or before.
    rejected
        Stages that gave no time; they cost the sum.
    """

    def __init__(
        self, compiled: CompiledGraph, table: TableCosts, device: Device, options: GroupOptions
    ) -> None:
        self._graph = compiled.graph
        self._table = table
        self._timer = CpuGroupTimer(compiled, device, is_validated=False)
        self._options = options
        self._known: dict[Identity, tuple[float, float]] = {}
        self.seconds: dict[Identity, float] = {}
        self.rejected: set[Identity] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.close()

    def operator_us(self, op: OpId, device: DeviceId) -> float:
        """Return the profiled time."""
        return self._table.operator_us(op, device)

    def stage_us(self, groups: Stage, device: DeviceId) -> float:
        """Return the time of a stage; measures it when it is new."""
        full = [group for group in groups if len(group)]
        solo = [sum(self._table.operator_us(op, device) for op in group) for group in full]
        if len(full) < 2:
            return sum(solo)
        identity = identity_of(self._graph, full)
        known = self._known.get(identity)
        if known is None:
            known = self._known[identity] = self._measure(full, identity)
        ratio, self.seconds[identity] = known
        return max(ratio * sum(solo), max(solo))

    def stage_us_many(self, stages: Sequence[Stage], device: DeviceId) -> list[float]:
        """Return `stage_us` of each."""
        return [self.stage_us(stage, device) for stage in stages]

    def transfer_us(self, tensor: TensorId, src: DeviceId, dst: DeviceId) -> float:
        """Return what the profile says."""
        return self._table.transfer_us(tensor, src, dst)

    def forget_asked(self) -> None:
        """Begin to count anew what is asked; what was measured stays known."""
        self.seconds = {}

    def _measure(self, groups: Stage, identity: Identity) -> tuple[float, float]:
        """Return the measured ratio of a stage to its operators alone, and the seconds spent."""
        started = time.perf_counter()
        timing = time_group(self._timer, groups, self._options)
        spent = time.perf_counter() - started
        if not timing.group_us:
            self.rejected.add(identity)
            return 1.0, spent
        alone = sum(Samples.of(times).median_us for times in timing.solo_us)
        return Samples.of(timing.group_us).median_us / alone, spent
