"""A small graph that holds some operators of a large one several times, to measure them.

What the operators read from outside becomes constant data of the small graph: nothing has to be
placed before a run, and no operator waits for another one but those of its own chain.

On one device, in one run::

    stage 0   lead, serial     the smallest operator (not counted), then all in order
    stage 1   the groups       one stream each
    stage 2   lead, solo       the same as stage 0

All stages but the middle one have one group and so the whole device. What the middle stage costs
is the time from the end of the last serial launch to the start of the next lead: with waking the
other threads, sharing out the cores and taking them back. The leads are not counted because they
find the threads of a kernel asleep.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from graph_executor.backend import Array
from graph_executor.dtypes import numpy_dtype
from hios.costs.protocol import Stage
from hios.ir.graph import Operator, OpGraph, Tensor
from hios.ir.ids import DeviceId, OpId, StageId, StreamId, TensorId
from hios.ir.kernels import CompiledGraph
from hios.ir.schedule import Placement, Schedule

__all__ = ["GroupGraph", "InputPool", "chain_graph", "group_graph"]


@dataclass(frozen=True, slots=True)
class GroupGraph:
    """A graph to measure, and where in it the operators stand.

    Attributes
    ----------
    compiled
        Its outputs are the results of the serial launches, then those of the grouped ones, in
        the same order.
    schedule
        For one device.
    serial, group, solo
        The launches of the operators in each part, in the order of the groups.
    after
        The launch that follows the groups.
    """

    compiled: CompiledGraph
    schedule: Schedule
    serial: tuple[OpId, ...]
    group: tuple[OpId, ...]
    solo: tuple[OpId, ...]
    after: OpId


class InputPool:
    """Random data for what operators read from outside; drawn once, cut as needed.

    Parameters
    ----------
    seed
        Of the data.
    """

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._floats = self._rng.standard_normal(1 << 20, dtype=np.float32)

    def array(self, tensor: Tensor) -> Array:
        """Return data for a tensor: normal floats; zeros for integers, which may be indices."""
        dtype = numpy_dtype(tensor.dtype)
        if dtype.kind in "iub":
            return np.zeros(tensor.shape, dtype)
        size = int(np.prod(tensor.shape, dtype=np.int64))
        while size > self._floats.size:
            more = self._rng.standard_normal(self._floats.size, dtype=np.float32)
            self._floats = np.concatenate([self._floats, more])
        return self._floats[:size].astype(dtype, copy=False).reshape(tensor.shape)


def group_graph(compiled: CompiledGraph, groups: Stage, inputs: InputPool) -> GroupGraph:
    """Return the graph of the module's docstring.

    Parameters
    ----------
    compiled
        The large graph.
    groups
        Independent of each other; each a chain in order.
    inputs
        Data for what is read from outside.
    """
    builder = _Builder(compiled, [op for group in groups for op in group], inputs)
    least = [_least(compiled, builder.members)]
    lead = builder.add(least, "lead")
    serial = builder.add(builder.members, "serial")
    group = builder.add(builder.members, "group")
    after = builder.add(least, "after")
    solo = builder.add(builder.members, "solo")
    placements = [_placement(op, 0, 0) for op in (*lead, *serial)]
    position = 0
    for stream, chain in enumerate(groups):
        for _ in chain:
            placements.append(_placement(group[position], stream, 1))
            position += 1
    placements += [_placement(op, 0, 2) for op in (*after, *solo)]
    return GroupGraph(
        builder.finish((*serial, *group)),
        Schedule("group", tuple(placements)),
        tuple(serial),
        tuple(group),
        tuple(solo),
        after[0],
    )


def chain_graph(
    compiled: CompiledGraph, ops: Sequence[OpId], inputs: InputPool
) -> tuple[CompiledGraph, Schedule]:
    """Return a graph of just these operators, one after another on one device.

    The first launch is a repetition that does not count.
    """
    builder = _Builder(compiled, ops, inputs)
    lead = builder.add([_least(compiled, builder.members)], "lead")
    chain = builder.add(builder.members, "solo")
    placements = tuple(_placement(op, 0, 0) for op in (*lead, *chain))
    return builder.finish(chain), Schedule("chain", placements)


def _least(compiled: CompiledGraph, ops: Sequence[OpId]) -> OpId:
    """Return the operator with the least work: it wakes threads as well as any other."""
    operators = compiled.graph.operators
    return min(ops, key=lambda op: operators[op].flops + operators[op].bytes_read)


def _placement(op: OpId, stream: int, stage: int) -> Placement:
    return Placement(op, DeviceId(0), StreamId(stream), StageId(stage))


class _Builder:
    """Grows a graph of repeated operators."""

    def __init__(self, compiled: CompiledGraph, members: Sequence[OpId], inputs: InputPool) -> None:
        self.members = list(members)
        self._large = compiled
        self._inputs = inputs
        self._tensors: list[Tensor] = []
        self._operators: list[Operator] = []
        self._params: dict[TensorId, Array] = {}
        self._outside: dict[TensorId, TensorId] = {}

    def add(self, ops: Sequence[OpId], part: str) -> list[OpId]:
        """Repeat operators; they read each other's results where they do in the large graph."""
        graph = self._large.graph
        inside: dict[TensorId, TensorId] = {}
        added = []
        repeated = set(ops)
        for op in ops:
            operator = graph.operators[op]
            new = OpId(len(self._operators))
            outputs = []
            for tensor in operator.outputs:
                inside[tensor] = self._tensor(graph.tensors[tensor], f"{part}.", producer=new)
                outputs.append(inside[tensor])
            inputs = [self._read(t, inside, repeated, part) for t in operator.inputs]
            for tensor in dict.fromkeys(inputs):
                old = self._tensors[tensor]
                self._tensors[tensor] = replace(old, consumers=(*old.consumers, new))
            self._operators.append(
                replace(
                    operator,
                    id=new,
                    name=f"{part}.{new}.{operator.name}",
                    inputs=tuple(inputs),
                    outputs=tuple(outputs),
                )
            )
            added.append(new)
        return added

    def finish(self, results: Sequence[OpId]) -> CompiledGraph:
        """Return the graph; what `results` write, but for scratch memory, are its outputs."""
        outputs: list[TensorId] = []
        for op in results:
            operator = self._operators[op]
            scratch = int(operator.attrs.get("workspaces", 0))
            outputs += operator.outputs[: len(operator.outputs) - scratch]
        graph = OpGraph(
            self._large.graph.name, tuple(self._operators), tuple(self._tensors), (), tuple(outputs)
        )
        return CompiledGraph(graph, self._large.library, self._params)

    def _read(
        self,
        tensor: TensorId,
        inside: dict[TensorId, TensorId],
        repeated: set[OpId],
        part: str,
    ) -> TensorId:
        graph = self._large.graph
        if tensor in inside:
            return inside[tensor]
        if graph.producer(tensor) not in repeated:
            return self._constant(tensor)
        base = graph.tensors[tensor].alias_of
        if base is None:
            raise ValueError(f"operators in the wrong order: tensor {tensor} is not written yet")
        root = self._read(base, inside, repeated, part)
        inside[tensor] = self._tensor(graph.tensors[tensor], f"{part}.", alias_of=root)
        return inside[tensor]

    def _constant(self, tensor: TensorId) -> TensorId:
        """Return what is read from outside, the same for all parts."""
        if tensor not in self._outside:
            graph = self._large.graph
            value = graph.tensors[tensor]
            new = self._outside[tensor] = self._tensor(value, "outside.")
            data = self._large.params.get(graph.root(tensor))
            if data is None or data.nbytes != value.bytes:
                data = self._inputs.array(value)
            self._params[new] = data.reshape(value.shape)
        return self._outside[tensor]

    def _tensor(
        self,
        like: Tensor,
        prefix: str,
        producer: OpId | None = None,
        alias_of: TensorId | None = None,
    ) -> TensorId:
        new = TensorId(len(self._tensors))
        self._tensors.append(
            replace(
                like,
                id=new,
                name=f"{prefix}{new}.{like.name}",
                producer=producer,
                consumers=(),
                alias_of=alias_of,
            )
        )
        return new
