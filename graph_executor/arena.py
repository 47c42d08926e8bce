"""Where every buffer lies: one arena and one weight region per device.

Two buffers of one device may overlap only if every access to one of them happens before the
other is written, in the partial order of the plan (not merely in some order of time). That
makes a conflict graph; packing its buffers into the least memory is NP-hard (dynamic storage
allocation), so a few greedy orders are tried and the smallest result stays. The order by size
with the best-fitting gap is that of Pisarchyk and Lee, 2020 ("Efficient memory management for
deep neural net inference"), carried over from intervals to a partial order.

Graph inputs live from before the first action, so they may be overwritten after their last
reader (every run writes them anew); graph outputs live until after the last action. Views
live in their root. Weights are never overwritten and have a region of their own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graph_executor.plan import ALIGNMENT_BYTES, Buffer, Copy, DeviceMemory, Launch
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId, TensorId
from hios.ir.schedule import FIRST_DEVICE

__all__ = ["Lifetime", "align", "lifetimes", "plan_memory"]


def align(size_bytes: int) -> int:
    """Round up to a multiple of `ALIGNMENT_BYTES`; an empty buffer still gets one."""
    return max(1, -(-size_bytes // ALIGNMENT_BYTES)) * ALIGNMENT_BYTES


@dataclass(frozen=True, slots=True)
class Lifetime:
    """When a buffer is in use, as bit sets over the actions of a plan.

    Attributes
    ----------
    tensor
        The root tensor.
    bytes
        Its size.
    uses
        The action that writes it and those that read it.
    before_writer
        The actions that happen before its writer; 0 for graph inputs.
    reached
        The actions that its writer happens before, or is (all, for graph inputs).
    is_kept
        Whether it is read after the last action (a graph output).
    order
        Position of its writer in a topological order; -1 for graph inputs.
    """

    tensor: TensorId
    bytes: int
    uses: int
    before_writer: int
    is_kept: bool
    order: int

    def ends_before(self, other: "Lifetime") -> bool:
        """Return whether every access to this buffer happens before `other` is written."""
        return not self.is_kept and self.uses & ~other.before_writer == 0 and other.order >= 0


def plan_memory(
    graph: OpGraph,
    devices: int,
    steps: Sequence[tuple[Launch | Copy, DeviceId]],
    before: Sequence[int],
) -> tuple[DeviceMemory, ...]:
    """Place every buffer.

    Parameters
    ----------
    graph
        The operator graph.
    devices
        How many devices the machine has.
    steps
        Launches and copies in a topological order, each with its device (a copy: that of its
        destination).
    before
        For each step, the bit set of the steps that happen before it.

    Returns
    -------
    tuple of DeviceMemory
        One per device.

    Notes
    -----
    O(n²) bit-set operations for n buffers of a device.
    """
    lives = lifetimes(graph, devices, steps, before)
    weights: list[set[TensorId]] = [set() for _ in range(devices)]
    for what, device in steps:
        if isinstance(what, Launch):
            reads = {graph.root(t) for t in graph.operators[what.op].inputs}
            weights[device].update(t for t in reads if graph.is_weight(t))
    weights[FIRST_DEVICE].update(graph.root(t) for t in graph.outputs if graph.is_weight(t))
    memory = []
    for device in map(DeviceId, range(devices)):
        offsets, arena_bytes = _pack(lives[device])
        placed = []
        weight_bytes = 0
        for tensor in sorted(weights[device]):
            placed.append(Buffer(tensor, weight_bytes, graph.tensors[tensor].bytes))
            weight_bytes += align(graph.tensors[tensor].bytes)
        memory.append(
            DeviceMemory(
                device=device,
                arena_bytes=arena_bytes,
                buffers=tuple(
                    Buffer(life.tensor, offsets[life.tensor], life.bytes)
                    for life in sorted(lives[device], key=lambda life: life.tensor)
                ),
                weight_bytes=weight_bytes,
                weights=tuple(placed),
                lower_bound_bytes=_lower_bound(lives[device], before),
            )
        )
    return tuple(memory)


def lifetimes(
    graph: OpGraph,
    devices: int,
    steps: Sequence[tuple[Launch | Copy, DeviceId]],
    before: Sequence[int],
) -> list[list[Lifetime]]:
    """Return the lifetime of every buffer of every device, by order of their writers."""
    writer: list[dict[TensorId, int]] = [{} for _ in range(devices)]
    uses: list[dict[TensorId, int]] = [{} for _ in range(devices)]

    def use(device: DeviceId, tensor: TensorId, step: int) -> None:
        uses[device][tensor] = uses[device].get(tensor, 0) | 1 << step

    outputs = {graph.root(t) for t in graph.outputs}
    for tensor in graph.inputs:
        writer[FIRST_DEVICE][tensor] = -1
        uses[FIRST_DEVICE][tensor] = 0
    for step, (what, device) in enumerate(steps):
        if isinstance(what, Copy):
            writer[what.dst][what.tensor] = step
            use(what.dst, what.tensor, step)
            use(what.src, what.tensor, step)
            continue
        operator = graph.operators[what.op]
        for tensor in operator.outputs:
            writer[device][tensor] = step
            use(device, tensor, step)
        for tensor in {graph.root(t) for t in operator.inputs}:
            if not graph.is_weight(tensor):
                use(device, tensor, step)
    return [
        sorted(
            (
                Lifetime(
                    tensor=tensor,
                    bytes=graph.tensors[tensor].bytes,
                    uses=uses[device][tensor],
                    before_writer=0 if step < 0 else before[step],
                    is_kept=device == FIRST_DEVICE and tensor in outputs,
                    order=step,
                )
                for tensor, step in writer[device].items()
            ),
            key=lambda life: (life.order, life.tensor),
        )
        for device in range(devices)
    ]


def _pack(lives: Sequence[Lifetime]) -> tuple[dict[TensorId, int], int]:
    """Return the offsets and the arena size of the best greedy packing."""
    conflicts: list[list[int]] = [[] for _ in lives]
    for i, first in enumerate(lives):
        for j in range(i):
            if not (first.ends_before(lives[j]) or lives[j].ends_before(first)):
                conflicts[i].append(j)
                conflicts[j].append(i)
    sizes = [align(life.bytes) for life in lives]
    orders: list[Callable[[int], tuple[int, ...]]] = [
        lambda i: (-sizes[i], lives[i].order, i),
        lambda i: (-sizes[i] * len(conflicts[i]), lives[i].order, i),
        lambda i: (lives[i].order, -sizes[i], i),
        lambda i: (-len(conflicts[i]), -sizes[i], i),
    ]
    best: list[int] = []
    best_bytes = -1
    for key in orders:
        for best_fit in (False, True):
            offsets = _place(sizes, conflicts, sorted(range(len(lives)), key=key), best_fit)
            total = max((o + s for o, s in zip(offsets, sizes, strict=True)), default=0)
            if best_bytes < 0 or total < best_bytes:
                best, best_bytes = offsets, total
    return {life.tensor: best[i] for i, life in enumerate(lives)}, max(0, best_bytes)


def _place(
    sizes: Sequence[int], conflicts: Sequence[Sequence[int]], order: Sequence[int], best_fit: bool
) -> list[int]:
    """Place buffers one by one in the lowest, or the tightest, gap between those in conflict."""
    offsets = [-1] * len(sizes)
    for i in order:
        taken = sorted((offsets[j], offsets[j] + sizes[j]) for j in conflicts[i] if offsets[j] >= 0)
        end = 0
        chosen = -1
        tightest = 0
        for start, stop in taken:
            gap = start - end
            if gap >= sizes[i] and (chosen < 0 or gap < tightest):
                chosen, tightest = end, gap
                if not best_fit:
                    break
            end = max(end, stop)
        offsets[i] = end if chosen < 0 else chosen
    return offsets


def _lower_bound(lives: Sequence[Lifetime], before: Sequence[int]) -> int:
    """Return the largest sum of buffers that must all exist during one step.

    A buffer exists during a step if its writer happens before (or is) that step, and the step
    happens before (or is) one of its uses. Any two such buffers conflict.
    """
    base = sum(align(life.bytes) for life in lives if life.order < 0)
    total = max(base, sum(align(life.bytes) for life in lives if life.is_kept))
    # what must still come after a step: for each buffer, the union of what its uses need.
    needed = []
    for life in lives:
        mask = life.uses
        rest = life.uses
        while rest:
            low = rest & -rest
            mask |= before[low.bit_length() - 1]
            rest ^= low
        needed.append(mask)
    for step in range(len(before)):
        alive = 0
        for life, mask in zip(lives, needed, strict=True):
            written = life.order < 0 or life.order == step or before[step] >> life.order & 1
            if written and (life.is_kept or mask >> step & 1):
                alive += align(life.bytes)
        total = max(total, alive)
    return total
