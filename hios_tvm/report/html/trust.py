"""How far the times of a schedule can be trusted: their source, and what a run showed."""

from statistics import median
from typing import Protocol, runtime_checkable

from hios.costs.protocol import Costs
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId, OpId
from hios.ir.timeline import Timeline
from hios_tvm.report.html.data import KindError, Trust

__all__ = ["IntervalCosts", "interval_of", "trust_in"]


@runtime_checkable
class IntervalCosts(Protocol):
    """Costs that say how sure they are."""

    def operator_interval_us(self, op: OpId, device: DeviceId) -> tuple[float, float]:
        """Return the interval in which the time of `op` alone on `device` is believed to be."""
        ...


def interval_of(costs: Costs | None, op: OpId, device: DeviceId) -> tuple[float, float] | None:
    """Return the interval of an operator's time, or None where the costs give none."""
    return costs.operator_interval_us(op, device) if isinstance(costs, IntervalCosts) else None


def trust_in(
    graph: OpGraph,
    source: str,
    predicted: Timeline,
    measured: Timeline | None,
    intervals: dict[OpId, tuple[float, float]],
) -> Trust:
    """Compare a prediction with a run, operator by operator.

    Parameters
    ----------
    graph
        What ran.
    source
        Where the times come from, in words.
    predicted, measured
        Timelines of one schedule; without a measured one only the source is known.
    intervals
        By operator, where the costs give them.

    Returns
    -------
    Trust
        Kinds with the longest measured time first.
    """
    if measured is None:
        return Trust(source, with_interval=len(intervals))
    before, after = _durations(predicted), _durations(measured)
    errors = {
        op: abs(after[op] - time) / time for op, time in before.items() if op in after and time > 0
    }
    rows = []
    for kind in {graph.operators[op].kind for op in errors}:
        ops = [op for op in errors if graph.operators[op].kind == kind]
        rows.append(
            KindError(
                kind,
                len(ops),
                sum(before[op] for op in ops),
                sum(after[op] for op in ops),
                median(errors[op] for op in ops),
            )
        )
    rows.sort(key=lambda row: (-row.measured_us, row.kind))
    inside = [low <= after[op] <= high for op, (low, high) in intervals.items() if op in after]
    return Trust(
        source,
        tuple(rows),
        median(errors.values()) if errors else None,
        len(intervals),
        sum(inside) if inside else None,
    )


def _durations(timeline: Timeline) -> dict[OpId, float]:
    return {
        OpId(event.subject): event.end_us - event.start_us
        for event in timeline.events
        if event.kind == "operator"
    }
