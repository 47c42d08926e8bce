"""The question that every scheduler asks: how long does it take?

Costs are bound to one graph and one machine, so operators, tensors and devices are named by
their ids. Implementations: `hios.costs.table.TableCosts` (measured, or read from a graph
file), `hios.costs.analytic.AnalyticCosts` (roofline), and the learned costs of `cost_model`.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from hios.ir.ids import DeviceId, OpId, TensorId

__all__ = ["BoundedCosts", "Costs", "Group", "Stage"]

Group = Sequence[OpId]
"""A chain of operators on one stream, in order."""

Stage = Sequence[Group]
"""Groups that run at once, one stream each."""


class Costs(Protocol):
    """Times in microseconds; pure functions of their arguments.

    With Tg the sum of the solo times of group g: a stage of one group costs exactly Tg, a
    stage of several at least max Tg.
    """

    def operator_us(self, op: OpId, device: DeviceId) -> float:
        """Return the time of `op` alone on `device`."""
        ...

    def stage_us(self, groups: Stage, device: DeviceId) -> float:
        """Return the time until all groups, started at once on `device`, have ended."""
        ...

    def stage_us_many(self, stages: Sequence[Stage], device: DeviceId) -> list[float]:
        """Return `stage_us` of each stage; batched, since a learned model is slow one by one."""
        ...

    def transfer_us(self, tensor: TensorId, src: DeviceId, dst: DeviceId) -> float:
        """Return the time to copy `tensor` from `src` to `dst`; 0 where they are equal."""
        ...


@runtime_checkable
class BoundedCosts(Costs, Protocol):
    """Costs that can promise a least share of a device's time, for lower bounds."""

    def least_work_us(self, op: OpId, device: DeviceId, is_staged: bool) -> float:
        """Return the least time of `device` that `op` takes away from others.

        However operators run together on the device, the sum of this over what they
        complete is at most the time that passes.

        Parameters
        ----------
        op, device
            What and where.
        is_staged
            Whether the promise has to hold for stages alone, or also for streams that share
            the device freely (`hios.simulator.sharing`).
        """
        ...
