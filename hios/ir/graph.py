"""The operator graph: what there is to run, and which value flows where.

An operator is one kernel call. A tensor is one value: produced by one operator, or by nobody
(a graph input, or a weight). A view (`Tensor.alias_of`) shares the buffer of another tensor
under another shape; it has no producer of its own, and whoever reads it depends on the
producer of its root. Ids are positions: ``graph.operators[op.id] is op``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hios.errors import CyclicGraph, InvalidGraph
from hios.ir.ids import OpId, TensorId
from hios.ir.order import topological_prefix
from hios.ir.serial import decode_json, encode_json

if TYPE_CHECKING:
    # Imported where it is used: it takes longer to load than a small graph to schedule.
    import networkx as nx

__all__ = ["Alternative", "OpGraph", "Operator", "Tensor"]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One value of the graph.

    Attributes
    ----------
    id
        Position in `OpGraph.tensors`.
    name
        As the model calls it; for people only.
    shape, dtype
        Static shape and numpy dtype name.
    bytes
        Size of the packed value.
    producer
        The operator that writes it; None for inputs, weights and views.
    consumers
        Operators that read it, ascending, each once.
    alias_of
        The tensor whose buffer this one is a view of, or None.
    """

    id: TensorId
    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    producer: OpId | None = None
    consumers: tuple[OpId, ...] = ()
    alias_of: TensorId | None = None


@dataclass(frozen=True, slots=True)
class Operator:
    """One kernel call.

    Attributes
    ----------
    id
        Position in `OpGraph.operators`.
    name
        Unique, for people.
    kind
        Family of the operator: ``conv2d``, ``depthwise``, ``dense``, ``pool``, ...
    kernel
        Name of the function in the kernel library; empty where there is none (graph files).
    inputs, outputs
        Tensors in the order in which the kernel takes them (inputs first, then outputs).
    flops, bytes_read, bytes_written
        Static work: arithmetic operations (a multiply-add counts two) and compulsory bytes.
    launch
        Static launch facts: ``grid``, ``block``, ``shared_bytes``, ``registers`` on CUDA,
        ``parallel_extent`` on a CPU.
    attrs
        Anything else; ``key`` is the structural hash of the kernel with its shapes.
    """

    id: OpId
    name: str
    kind: str
    kernel: str
    inputs: tuple[TensorId, ...]
    outputs: tuple[TensorId, ...]
    flops: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    launch: Mapping[str, int] = field(default_factory=dict)
    attrs: Mapping[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another way to compute some operators: one merged operator in place of its members.

    Attributes
    ----------
    name
        Unique among the alternatives of a graph.
    members
        The operators that it replaces.
    kind
        ``merge`` for convolutions stacked along their output channels.
    kernel
        Name of the merged kernel in the library.
    attrs
        Anything else.
    """

    name: str
    members: tuple[OpId, ...]
    kind: str
    kernel: str
    attrs: Mapping[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OpGraph:
    """A directed acyclic graph of operators and the tensors between them.

    Attributes
    ----------
    name
        For people and file names.
    operators, tensors
        Indexed by id.
    inputs, outputs
        Tensors that a run takes and returns, in the order of the model's signature. An
        output may also be an input, a weight or a view, and may appear twice. Tensors
        without producer that are neither inputs nor views are weights.
    alternatives
        Merged operators on offer.
    """

    name: str
    operators: tuple[Operator, ...]
    tensors: tuple[Tensor, ...]
    inputs: tuple[TensorId, ...] = ()
    outputs: tuple[TensorId, ...] = ()
    alternatives: tuple[Alternative, ...] = ()

    def root(self, tensor: TensorId) -> TensorId:
        """Return the tensor that owns the buffer: follow views to their end."""
        while (base := self.tensors[tensor].alias_of) is not None:
            tensor = base
        return tensor

    def producer(self, tensor: TensorId) -> OpId | None:
        """Return the operator that writes the buffer of `tensor` (through views), or None."""
        return self.tensors[self.root(tensor)].producer

    def is_weight(self, tensor: TensorId) -> bool:
        """Return whether the buffer of `tensor` is constant: no producer and no graph input."""
        root = self.root(tensor)
        return self.tensors[root].producer is None and root not in self.inputs

    def edges(self) -> dict[tuple[OpId, OpId], tuple[TensorId, ...]]:
        """Return every dependency with the (root) tensors that carry it.

        Returns
        -------
        dict
            ``(producer, consumer) -> tensors``; sorted by key, each tensor once.
        """
        found: dict[tuple[OpId, OpId], list[TensorId]] = {}
        for op in self.operators:
            for tensor in dict.fromkeys(self.root(t) for t in op.inputs):
                source = self.tensors[tensor].producer
                if source is not None:
                    found.setdefault((source, op.id), []).append(tensor)
        return {edge: tuple(found[edge]) for edge in sorted(found)}

    def to_networkx(self) -> "nx.DiGraph[OpId]":
        """Return the dependencies as a networkx graph over operator ids."""
        import networkx as nx

        graph: nx.DiGraph[OpId] = nx.DiGraph()
        graph.add_nodes_from(op.id for op in self.operators)
        graph.add_edges_from(self.edges())
        return graph

    def topological_order(self) -> tuple[OpId, ...]:
        """Return the operators in the topological order that prefers small ids.

        Raises
        ------
        CyclicGraph
            When there is none.
        """
        edges = self.edges()
        order = topological_prefix(len(self.operators), edges)
        if len(order) == len(self.operators):
            return tuple(order)
        import networkx as nx

        circle = [edge[0] for edge in nx.find_cycle(self.to_networkx())]
        names = " -> ".join(self.operators[op].name for op in [*circle, circle[0]])
        raise CyclicGraph(f"graph {self.name!r} has a cycle: {names}; remove one of these edges")

    def validate(self) -> None:
        """Check ids, references, producers, consumers, views, and the absence of cycles.

        Raises
        ------
        InvalidGraph
            On the first rule broken.
        CyclicGraph
            When operators depend on each other in a circle.
        """
        self._validate_ids()
        for op in self.operators:
            for tensor in (*op.inputs, *op.outputs):
                if not 0 <= tensor < len(self.tensors):
                    raise InvalidGraph(
                        f"operator {op.name!r} names tensor {tensor}: no such tensor"
                    )
            for out in op.outputs:
                if self.tensors[out].producer != op.id:
                    raise InvalidGraph(
                        f"operator {op.name!r} lists output {out}, whose producer is "
                        f"{self.tensors[out].producer}, not {op.id}"
                    )
            if op.flops < 0 or op.bytes_read < 0 or op.bytes_written < 0:
                raise InvalidGraph(f"operator {op.name!r} has negative work")
        self._validate_tensors()
        self.topological_order()

    def _validate_ids(self) -> None:
        for index, op in enumerate(self.operators):
            if op.id != index:
                raise InvalidGraph(f"operator {op.name!r} at position {index} has id {op.id}")
        for index, tensor in enumerate(self.tensors):
            if tensor.id != index:
                raise InvalidGraph(f"tensor {tensor.name!r} at position {index} has id {tensor.id}")
        for where, tensors in (("input", self.inputs), ("output", self.outputs)):
            for value in tensors:
                if not 0 <= value < len(self.tensors):
                    raise InvalidGraph(f"graph {where} {value}: no such tensor")
        names = {op.name for op in self.operators}
        if len(names) != len(self.operators):
            raise InvalidGraph(f"graph {self.name!r} has two operators of one name")

    def _validate_tensors(self) -> None:
        readers: dict[TensorId, set[OpId]] = {}
        for op in self.operators:
            for used in op.inputs:
                readers.setdefault(used, set()).add(op.id)
        for tensor in self.tensors:
            if tensor.bytes < 0 or any(extent < 0 for extent in tensor.shape):
                raise InvalidGraph(f"tensor {tensor.name!r} has a negative size")
            if tensor.producer is not None and (
                not 0 <= tensor.producer < len(self.operators)
                or tensor.id not in self.operators[tensor.producer].outputs
            ):
                raise InvalidGraph(f"tensor {tensor.name!r} is not an output of its producer")
            if tensor.alias_of is not None and (
                tensor.producer is not None or not 0 <= tensor.alias_of < tensor.id
            ):
                raise InvalidGraph(
                    f"view {tensor.name!r} must come after the tensor it views and have no producer"
                )
            if tensor.consumers != tuple(sorted(readers.get(tensor.id, ()))):
                raise InvalidGraph(f"tensor {tensor.name!r} does not list just its consumers")
        for given in self.inputs:
            if self.tensors[given].producer is not None or self.tensors[given].alias_of is not None:
                raise InvalidGraph(f"graph input {self.tensors[given].name!r} has a producer")

    def to_json(self) -> bytes:
        """Encode as JSON; `from_json` gives an equal graph."""
        return encode_json(self)

    @staticmethod
    def from_json(data: bytes | str, what: str = "graph") -> "OpGraph":
        """Decode and validate.

        Raises
        ------
        InvalidGraph
            When `data` is no operator graph or a wrong one.
        """
        graph = decode_json(data, OpGraph, InvalidGraph, what)
        graph.validate()
        return graph
