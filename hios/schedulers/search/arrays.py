"""A problem and a state of the search as arrays for the compiled loop."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hios.ir.ids import DeviceId, TensorId
from hios.problem import Problem

__all__ = [
    "ACCEPTED",
    "BEST",
    "EVALUATIONS",
    "MAKESPAN",
    "N_CRITICAL",
    "TEMPERATURE",
    "Instance",
    "State",
    "make_instance",
    "make_state",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]

# Indices into `State.scalars` and `State.counters`.
MAKESPAN, BEST, TEMPERATURE = 0, 1, 2
EVALUATIONS, ACCEPTED, N_CRITICAL = 0, 1, 2

_N_DRAWS = 4096


class Instance(NamedTuple):
    """A problem as arrays; n nodes in topological numbering, m devices.

    Attributes
    ----------
    time
        ``(n, m)``, µs.
    first_movable, n_movable
        The nodes that are operators; the others, before and behind, are pinned.
    starts
        ``(n + 1, 2)``: the first entry of each node in `preds` and in `succs`.
    preds
        ``(k, 2)``: producer and tensor of each tensor that a node reads.
    succs
        Successors, each once.
    copy_us
        ``(tensors, m · m)``, by source · m + destination.
    tail
        Longest path after each node, without transfers.
    occupies
        ``(m,)``: copies into the device keep it busy.
    is_contended
        Each directed link carries one copy at a time.
    is_simple
        Neither of these two anywhere.
    draws
        Exponentially distributed thresholds, a power of two of them.
    """

    time: Floats
    first_movable: int
    n_movable: int
    starts: Ints
    preds: Ints
    succs: Ints
    copy_us: Floats
    tail: Floats
    occupies: Flags
    is_contended: bool
    is_simple: bool
    draws: Floats


class State(NamedTuple):
    """Where the search stands; all arrays are overwritten.

    Attributes
    ----------
    order, position, device, finish
        The current state and its finish times.
    best_order, best_device
        The best state seen.
    scalars
        Makespan, best makespan, temperature.
    counters
        Evaluations, accepted moves, length of `critical` (−1: unknown).
    random
        One word of xorshift.
    critical
        Movable operators of the critical path.
    old_finish, free, known, touched, dirty, arrival, is_here, link_free, shifts
        Scratch.
    """

    order: Ints
    position: Ints
    device: Ints
    finish: Floats
    best_order: Ints
    best_device: Ints
    scalars: Floats
    counters: Ints
    random: Words
    critical: Ints
    old_finish: Floats
    free: Floats
    known: Flags
    touched: Flags
    dirty: Flags
    arrival: Floats
    is_here: Flags
    link_free: Floats
    shifts: Ints


def make_instance(problem: Problem) -> Instance:
    """Return the arrays of a problem."""
    machine, n_nodes, n_devices = problem.machine, problem.n_nodes, problem.n_devices
    row: dict[TensorId, int] = {tensor: i for i, tensor in enumerate(problem.tensor_us)}
    copies = np.zeros((max(1, len(row)), n_devices * n_devices))
    for tensor, index in row.items():
        copies[index] = problem.tensor_us[tensor]

    starts, preds, succs = [(0, 0)], list[tuple[int, int]](), list[int]()
    for v in problem.nodes():
        for u, edge in problem.preds[v]:
            preds.extend((u, row[tensor]) for tensor in problem.edge_tensors[edge])
        succs.extend(s for s, _ in problem.succs[v])
        starts.append((len(preds), len(succs)))

    least = [min(times) for times in problem.time]
    tail = np.zeros(n_nodes)
    for v in reversed(problem.nodes()):
        tail[v] = max([least[s] + tail[s] for s, _ in problem.succs[v]], default=0.0)
    occupies = np.array(
        [n_devices > 1 and machine.copies_occupy(DeviceId(d)) for d in range(n_devices)], np.bool_
    )
    is_contended = machine.is_contended and n_devices > 1
    operators = problem.operators()
    return Instance(
        time=problem.time_array(),
        first_movable=operators[0] if operators else 0,
        n_movable=len(operators),
        starts=np.array(starts, np.int64),
        preds=np.array(preds, np.int64).reshape(-1, 2),
        succs=np.array(succs, np.int64),
        copy_us=copies,
        tail=tail,
        occupies=occupies,
        is_contended=is_contended,
        is_simple=not is_contended and not occupies.any(),
        # Rounded, so that the last bit of a logarithm decides nothing.
        draws=np.array(
            [round(-math.log((i + 0.5) / _N_DRAWS), 9) for i in range(_N_DRAWS)], np.float64
        ),
    )


def make_state(inst: Instance, order: Sequence[int], device: Sequence[int], seed: int) -> State:
    """Return the state of a topological order and a device for each node, not timed yet.

    Parameters
    ----------
    inst
        The problem.
    order
        All nodes.
    device
        By node; pinned nodes where they belong.
    seed
        Of the random numbers; any integer.
    """
    n_nodes, n_devices = inst.time.shape
    n_tensors = inst.copy_us.shape[0]
    orders = np.array(order, np.int64)
    position = np.empty(n_nodes, np.int64)
    position[orders] = np.arange(n_nodes)
    devices = np.array(device, np.int64)
    # Spread small seeds over all bits; xorshift must not start at zero.
    word = (seed * 0x9E3779B97F4A7C15 + 0x2545F4914F6CDD1D) % 2**64 or 1
    return State(
        order=orders,
        position=position,
        device=devices,
        finish=np.zeros(n_nodes),
        best_order=orders.copy(),
        best_device=devices.copy(),
        scalars=np.zeros(3),
        counters=np.array([0, 0, -1], np.int64),
        random=np.array([word], np.uint64),
        critical=np.zeros(n_nodes, np.int64),
        old_finish=np.zeros(n_nodes),
        free=np.zeros(n_devices),
        known=np.zeros(n_devices, np.bool_),
        touched=np.zeros(n_devices, np.bool_),
        dirty=np.zeros(n_devices, np.bool_),
        arrival=np.zeros(n_tensors * n_devices),
        is_here=np.zeros(n_tensors * n_devices, np.bool_),
        link_free=np.zeros(n_devices * n_devices),
        shifts=np.zeros((4, 4), np.int64),
    )
