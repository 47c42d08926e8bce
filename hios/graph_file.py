"""Graph files: operators with times, and edges with transfer times, as JSON.

``{"name", "operators": [{"id", "time_us", "utilization"}], "edges": [{"src", "dst",
"transfer_us"}]}``; unknown keys are ignored. Ids are any distinct integers; here operators are
renumbered in the order of the file and keep their id as their name. ``transfer_us`` is paid per
edge between different devices, so each edge becomes a tensor of its own. Inputs and outputs are
not pinned: the graph has none. `hios.ir.presets.abstract_machine` is the machine that goes with
such a file.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hios.costs.table import TableCosts
from hios.errors import InvalidCosts, InvalidGraph
from hios.ir.graph import Operator, OpGraph, Tensor
from hios.ir.ids import OpId, TensorId
from hios.ir.machine import Machine
from hios.ir.serial import encode_json, read_bytes, write_bytes

__all__ = [
    "GraphFile",
    "encode_graph_file",
    "parse_graph_file",
    "read_graph_file",
    "write_graph_file",
]


@dataclass(frozen=True, slots=True)
class GraphFile:
    """What a graph file says.

    Attributes
    ----------
    graph
        Without kernels, inputs and outputs.
    times_us, utilization
        Of each operator, by id.
    transfers_us
        Of each tensor (edge), by id.
    """

    graph: OpGraph
    times_us: tuple[float, ...]
    utilization: tuple[float, ...]
    transfers_us: tuple[float, ...]

    def costs(self, machine: Machine) -> TableCosts:
        """Return the costs on a machine whose devices are all alike."""
        n_devices = len(machine.devices)
        return TableCosts(
            self.graph,
            machine,
            [(time,) * n_devices for time in self.times_us],
            utilization=self.utilization,
            transfers_us={TensorId(i): us for i, us in enumerate(self.transfers_us)},
        )


def read_graph_file(path: str | os.PathLike[str]) -> GraphFile:
    """Read a graph file.

    Raises
    ------
    MissingFile
        When it cannot be read.
    InvalidGraph, CyclicGraph, InvalidCosts
        When it is no graph, has a cycle, or a time is wrong; one line with the path.
    """
    return parse_graph_file(read_bytes(path), what=os.fspath(path))


def parse_graph_file(data: bytes | str, what: str = "graph file") -> GraphFile:
    """Build the graph that a graph file describes.

    Parameters
    ----------
    data
        JSON.
    what
        How messages name it.

    Raises
    ------
    InvalidGraph
        No JSON, a missing or wrongly typed field, an id or an edge given twice, an edge to
        nowhere.
    CyclicGraph
        Edges in a circle.
    InvalidCosts
        A time that is NaN, infinite or negative, or a utilisation outside of [0, 1].
    """
    document = _load(data, what)
    operators = _entries(document, "operators", what)
    edges = _entries(document, "edges", what)
    name = document.get("name", "graph")
    if not isinstance(name, str):
        raise InvalidGraph(f"{what}: name is {name!r}; need a text")

    position: dict[int, OpId] = {}
    times, utilization = [], []
    for index, entry in enumerate(operators):
        where = f"{what}: operator {index}"
        key = _integer(entry, "id", where)
        if key in position:
            raise InvalidGraph(f"{what}: two operators have id {key}; ids must be distinct")
        position[key] = OpId(index)
        where = f"{what}: operator {key}"
        times.append(_number(entry, "time_us", where))
        fraction = _number(entry, "utilization", where, default=1.0)
        if fraction > 1.0:
            raise InvalidCosts(f"{where}: utilization is {fraction}; need 0 ≤ utilization ≤ 1")
        utilization.append(fraction)

    inputs: list[list[TensorId]] = [[] for _ in operators]
    outputs: list[list[TensorId]] = [[] for _ in operators]
    tensors, transfers = [], []
    seen: set[tuple[int, int]] = set()
    for index, entry in enumerate(edges):
        where = f"{what}: edge {index}"
        src, dst = _integer(entry, "src", where), _integer(entry, "dst", where)
        for end in (src, dst):
            if end not in position:
                raise InvalidGraph(f"{where} ({src} -> {dst}): there is no operator {end}")
        if src == dst:
            raise InvalidGraph(f"{where}: operator {src} depends on itself; remove this edge")
        if (src, dst) in seen:
            raise InvalidGraph(f"{where}: {src} -> {dst} is given twice; merge the two edges")
        seen.add((src, dst))
        transfers.append(_number(entry, "transfer_us", f"{where} ({src} -> {dst})", default=0.0))
        tensor = TensorId(index)
        tensors.append(
            Tensor(tensor, f"{src}->{dst}", (), "float32", 0, position[src], (position[dst],))
        )
        outputs[position[src]].append(tensor)
        inputs[position[dst]].append(tensor)

    graph = OpGraph(
        name,
        tuple(
            Operator(op, str(key), "opaque", "", tuple(inputs[op]), tuple(outputs[op]))
            for key, op in position.items()
        ),
        tuple(tensors),
    )
    graph.validate()
    return GraphFile(graph, tuple(times), tuple(utilization), tuple(transfers))


def encode_graph_file(
    graph: OpGraph,
    times_us: Sequence[float],
    transfers_us: Sequence[float],
    utilization: Sequence[float] | None = None,
) -> bytes:
    """Write a graph as a graph file.

    An edge that several tensors carry costs the sum of their transfers, and a tensor with
    several readers is paid by each of them: a graph file knows only edges. Graph inputs,
    outputs and weights are left out.

    Parameters
    ----------
    graph
        Any operator graph.
    times_us, utilization
        By operator.
    transfers_us
        By tensor.

    Returns
    -------
    bytes
        JSON that `parse_graph_file` reads.
    """
    fractions = [1.0] * len(graph.operators) if utilization is None else utilization
    document = {
        "name": graph.name,
        "operators": [
            {"id": op.id, "time_us": times_us[op.id], "utilization": fractions[op.id]}
            for op in graph.operators
        ],
        "edges": [
            {"src": src, "dst": dst, "transfer_us": sum(transfers_us[t] for t in tensors)}
            for (src, dst), tensors in graph.edges().items()
        ],
    }
    return encode_json(document, indent=1)


def write_graph_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write the bytes of `encode_graph_file`; never leaves a half-written file.

    Raises
    ------
    StorageError
        When it cannot be written.
    """
    write_bytes(path, data)


def _load(data: bytes | str, what: str) -> dict[str, Any]:
    # The standard parser, unlike strict ones, reads NaN and Infinity: they can then be named
    # with the operator that has them, instead of a column number.
    try:
        document = json.loads(data)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise InvalidGraph(f"{what}: not a JSON file: {problem}") from problem
    if not isinstance(document, dict):
        raise InvalidGraph(f"{what}: not a graph file; need an object with operators and edges")
    return document


def _entries(document: dict[str, Any], key: str, what: str) -> list[dict[str, Any]]:
    entries = document.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InvalidGraph(f"{what}: {key!r} is missing or no list of objects")
    return entries


def _integer(entry: dict[str, Any], key: str, where: str) -> int:
    value = entry.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        shown = "missing" if key not in entry else f"{value!r}"
        raise InvalidGraph(f"{where}: {key!r} is {shown}; need an integer")
    return value


def _number(entry: dict[str, Any], key: str, where: str, default: float | None = None) -> float:
    if key not in entry and default is not None:
        return default
    value = entry.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool):
        shown = "missing" if key not in entry else f"{value!r}"
        raise InvalidGraph(f"{where}: {key!r} is {shown}; need a number")
    # An integer too large for a float would overflow later.
    number = math.inf if isinstance(value, int) and abs(value) > 1e300 else float(value)
    if not 0.0 <= number < math.inf:
        raise InvalidCosts(f"{where}: {key!r} is {value!r}; a time must be finite and not negative")
    return number
