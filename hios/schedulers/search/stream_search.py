"""Search over streams without stages: every stream is a small device of its own.

While several streams of a device are busy they slow each other down, by how much depends on what
runs. The search does not follow that moment by moment: it stretches all times by one factor, half
way between running alone and running beside typical company, lets copies between streams of one
device take no time, and anneals as if streams were devices. What it finds is a guess that the
simulator must confirm; where there is enough work for all streams it beats stages, which wait for
their slowest group.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hios.ir.ids import DeviceId, OpId, StreamId
from hios.ir.schedule import Placement, Schedule
from hios.problem import Problem
from hios.schedulers.search.annealing import Annealed, Effort, anneal_instance
from hios.schedulers.search.arrays import Instance, make_instance

__all__ = ["search_streams", "slowdown"]

_SAMPLES = 32


def search_streams(
    problem: Problem, order: Sequence[int], device: Sequence[int], effort: Effort
) -> tuple[Schedule, Annealed]:
    """Give operators devices and streams.

    Parameters
    ----------
    problem
        What is scheduled; at least one operator.
    order
        All nodes, topological: where to start from.
    device
        By node.
    effort
        How long to try.

    Returns
    -------
    schedule : Schedule
        Without stages; links undecided.
    annealed : Annealed
        In terms of streams as devices.
    """
    lanes = [
        (d, stream)
        for d, described in enumerate(problem.machine.devices)
        for stream in range(described.streams)
    ]
    inst = _instance_of_lanes(problem, lanes)
    first_lane = {d: index for index, (d, stream) in reversed(list(enumerate(lanes))) if not stream}
    # Deal the operators of each device out to its streams in turn.
    turn = [0] * problem.n_devices
    lane_of = [0] * problem.n_nodes
    for v in order:
        d = device[v]
        lane_of[v] = first_lane[d]
        if problem.op_of[v] is not None:
            lane_of[v] += turn[d]
            turn[d] = (turn[d] + 1) % problem.machine.devices[d].streams
    annealed = anneal_instance(inst, [(order, lane_of)], 0.0, effort)
    placements = tuple(
        Placement(op, DeviceId(lanes[lane][0]), StreamId(lanes[lane][1]))
        for v in annealed.order
        if (op := problem.op_of[v]) is not None
        for lane in (annealed.device[v],)
    )
    return Schedule("streams", _used_streams_first(placements)), annealed


def slowdown(problem: Problem, device: int) -> float:
    """Return by how much operators slow each other down while all streams of a device are busy.

    The mean over samples of as many operators as there are streams, neighbours in topological
    order; at least 1.
    """
    streams = problem.machine.devices[device].streams
    ops = [op for op in problem.op_of if op is not None]
    width = min(streams, len(ops))
    if width < 2:
        return 1.0
    n_windows = len(ops) - width + 1
    step = max(1, n_windows // _SAMPLES)
    windows: list[list[list[OpId]]] = [
        [[op] for op in ops[begin : begin + width]] for begin in range(0, n_windows, step)
    ]
    where = DeviceId(device)
    together = problem.costs.stage_us_many(windows, where)
    apart = [sum(problem.costs.operator_us(group[0], where) for group in one) for one in windows]
    return max(1.0, width * sum(together) / sum(apart)) if sum(apart) > 0.0 else 1.0


def _instance_of_lanes(problem: Problem, lanes: Sequence[tuple[int, int]]) -> Instance:
    inst = make_instance(problem)
    device = np.array([d for d, _ in lanes])
    stretch = np.array([(1.0 + slowdown(problem, d)) / 2.0 for d in range(problem.n_devices)])
    pairs = (device[:, None] * problem.n_devices + device[None, :]).ravel()
    return inst._replace(
        time=np.ascontiguousarray((inst.time * stretch)[:, device]),
        tail=inst.tail * stretch.min(),
        copy_us=np.ascontiguousarray(inst.copy_us[:, pairs]),
        occupies=inst.occupies[device],
    )


def _used_streams_first(placements: tuple[Placement, ...]) -> tuple[Placement, ...]:
    """Number the streams of each device in the order of their first use."""
    names: dict[DeviceId, dict[StreamId, StreamId]] = {}
    for placement in placements:
        known = names.setdefault(placement.device, {})
        known.setdefault(placement.stream, StreamId(len(known)))
    return tuple(
        replace(placement, stream=names[placement.device][placement.stream])
        for placement in placements
    )
