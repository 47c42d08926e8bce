"""Graphs, machines, costs and schedules to test with: named topologies, and random ones.

Everything random takes a `random.Random`, so that plain tests seed it and Hypothesis may steer
(and shrink) it: the strategies hand in its own kind. Hypothesis is imported only when a strategy
is asked for. Times are multiples of a quarter microsecond: their sums are exact in floating
point, and ties are common.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from typing import TYPE_CHECKING, Any

import networkx as nx

from hios.costs.table import TableCosts
from hios.errors import CyclicGraph
from hios.ir.graph import Operator, OpGraph, Tensor
from hios.ir.ids import DeviceId, OpId, StageId, StreamId, TensorId
from hios.ir.machine import Device, Link, Machine
from hios.ir.schedule import Placement, Schedule
from hios.ir.validation import validate_schedule
from hios.simulator import complete_links

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = [
    "TOPOLOGIES",
    "Case",
    "cases",
    "chain",
    "diamond",
    "fan_out",
    "graph_from_edges",
    "grid",
    "inception_block",
    "layered_random",
    "machines",
    "op_graphs",
    "random_costs",
    "random_graph",
    "random_machine",
    "random_schedule",
    "uniform_costs",
]


@dataclass(frozen=True, slots=True)
class Case:
    """A problem with one of its schedules, valid and with links decided."""

    graph: OpGraph
    machine: Machine
    costs: TableCosts
    schedule: Schedule


def graph_from_edges(
    n_operators: int,
    edges: Iterable[tuple[int, int]],
    name: str = "graph",
    *,
    has_inputs_and_outputs: bool = False,
    elements: int = 256,
) -> OpGraph:
    """Return a graph in which every operator writes one tensor.

    Parameters
    ----------
    n_operators
        Operators are called ``op0``, ``op1``, ...
    edges
        ``(producer, consumer)``; repeated ones count once.
    name
        Of the graph.
    has_inputs_and_outputs
        Whether operators without predecessors read a graph input, and those without
        successors write graph outputs.
    elements
        float32 elements of each tensor.
    """
    preds: list[set[int]] = [set() for _ in range(n_operators)]
    succs: list[set[int]] = [set() for _ in range(n_operators)]
    for u, v in edges:
        preds[v].add(u)
        succs[u].add(v)
    tensors = [
        Tensor(
            TensorId(op),
            f"t{op}",
            (elements,),
            "float32",
            4 * elements,
            OpId(op),
            tuple(OpId(v) for v in sorted(succs[op])),
        )
        for op in range(n_operators)
    ]
    given: tuple[TensorId, ...] = ()
    sources = [op for op in range(n_operators) if not preds[op]]
    if has_inputs_and_outputs and sources:
        given = (TensorId(n_operators),)
        readers = tuple(OpId(op) for op in sources)
        tensors.append(
            Tensor(given[0], "data", (elements,), "float32", 4 * elements, consumers=readers)
        )
    operators = [
        Operator(
            OpId(op),
            f"op{op}",
            "opaque",
            f"kernel{op}",
            tuple(TensorId(u) for u in sorted(preds[op])) or given,
            (TensorId(op),),
        )
        for op in range(n_operators)
    ]
    returned = tuple(TensorId(op) for op in range(n_operators) if not succs[op])
    graph = OpGraph(
        name,
        tuple(operators),
        tuple(tensors),
        given,
        returned if has_inputs_and_outputs else (),
    )
    graph.validate()
    return graph


def chain(length: int = 6) -> OpGraph:
    """Return operators one after another."""
    return graph_from_edges(
        length,
        [(i, i + 1) for i in range(length - 1)],
        f"chain_{length}",
        has_inputs_and_outputs=True,
    )


def fan_out(width: int = 5) -> OpGraph:
    """Return one operator that `width` others read."""
    return graph_from_edges(
        width + 1,
        [(0, i + 1) for i in range(width)],
        f"fan_out_{width}",
        has_inputs_and_outputs=True,
    )


def diamond(width: int = 3) -> OpGraph:
    """Return one operator, `width` beside each other, and one that joins them."""
    last = width + 1
    edges = [(0, i) for i in range(1, last)] + [(i, last) for i in range(1, last)]
    return graph_from_edges(last + 1, edges, f"diamond_{width}", has_inputs_and_outputs=True)


def grid(rows: int = 3, columns: int = 4) -> OpGraph:
    """Return operators that wait for their upper and their left neighbour."""
    edges = []
    for r in range(rows):
        for c in range(columns):
            here = r * columns + c
            if c + 1 < columns:
                edges.append((here, here + 1))
            if r + 1 < rows:
                edges.append((here, here + columns))
    return graph_from_edges(
        rows * columns, edges, f"grid_{rows}x{columns}", has_inputs_and_outputs=True
    )


def inception_block() -> OpGraph:
    """Return the branches of an Inception block: 1×1, 1×1–3×3, 1×1–5×5, pool–1×1, concat."""
    edges = [(0, 1), (0, 2), (2, 3), (0, 4), (4, 5), (0, 6), (6, 7)]
    edges += [(branch, 8) for branch in (1, 3, 5, 7)]
    return graph_from_edges(9, edges, "inception_block", has_inputs_and_outputs=True)


def layered_random(
    n_operators: int = 40, n_edges: int = 80, n_layers: int = 6, seed: int = 0
) -> OpGraph:
    """Return a random graph of layers; each operator has an input from the layer before.

    Parameters
    ----------
    n_operators, n_edges, n_layers
        Sizes; at least one operator a layer. Fewer edges where there is no room for more.
    seed
        Same seed, same graph.
    """
    rng = random.Random(seed)
    layers: list[list[int]] = [[] for _ in range(max(1, min(n_layers, n_operators)))]
    for op in range(n_operators):
        layers[op if op < len(layers) else rng.randrange(len(layers))].append(op)
    order = [op for layer in layers for op in layer]
    number = {op: index for index, op in enumerate(order)}
    numbered = [[number[op] for op in layer] for layer in layers]
    edges = {(rng.choice(before), op) for before, layer in pairwise(numbered) for op in layer}
    for _ in range(20 * n_edges):
        if len(edges) >= n_edges or len(numbered) < 2:
            break
        first = rng.randrange(len(numbered) - 1)
        second = rng.randrange(first + 1, len(numbered))
        edges.add((rng.choice(numbered[first]), rng.choice(numbered[second])))
    return graph_from_edges(
        n_operators, edges, f"layered_{n_operators}_{seed}", has_inputs_and_outputs=True
    )


TOPOLOGIES: dict[str, Callable[[], OpGraph]] = {
    "chain": chain,
    "diamond": diamond,
    "fan_out": fan_out,
    "grid": grid,
    "inception_block": inception_block,
    "layered_random": layered_random,
}
"""The named topologies at their default sizes."""


def uniform_costs(
    graph: OpGraph,
    machine: Machine,
    time_us: float = 10.0,
    transfer_us: float = 1.0,
    utilization: float = 0.5,
) -> TableCosts:
    """Return costs that are the same for every operator and every tensor."""
    return TableCosts(
        graph,
        machine,
        [(time_us,) * len(machine.devices) for _ in graph.operators],
        utilization=[utilization] * len(graph.operators),
        transfers_us={tensor.id: transfer_us for tensor in graph.tensors},
    )


def random_graph(rng: random.Random, n_operators: int) -> OpGraph:
    """Return a graph with everything a graph may have.

    Several inputs, weights, views, operators with several outputs, several tensors between two
    operators, outputs that are inputs, weights or views, or that appear twice; or no inputs
    and outputs at all.
    """
    has_signature = rng.random() < 0.7
    shapes: list[tuple[int, ...]] = []
    producers: list[OpId | None] = []
    aliases: list[TensorId | None] = []
    readers: list[set[OpId]] = []

    def tensor(
        shape: tuple[int, ...], producer: OpId | None = None, alias: TensorId | None = None
    ) -> TensorId:
        shapes.append(shape)
        producers.append(producer)
        aliases.append(alias)
        readers.append(set())
        return TensorId(len(shapes) - 1)

    def shape() -> tuple[int, ...]:
        return (rng.randint(1, 8), 64)

    inputs = [tensor(shape()) for _ in range(rng.randint(1, 2))] if has_signature else []
    weights = [tensor(shape()) for _ in range(rng.randint(0, 2))]
    values = list(inputs)
    operators = []
    for number in range(n_operators):
        op = OpId(number)
        taken: list[TensorId] = []
        for _ in range(rng.randint(0, 3) if values else 0):
            # Late values more often, for graphs that are deep as well as wide.
            value = values[max(rng.randrange(len(values)), rng.randrange(len(values)))]
            if rng.random() < 0.15:
                value = tensor((shapes[value][0] * 64,), alias=value)
            taken.append(value)
        if weights and rng.random() < 0.4:
            taken.append(rng.choice(weights))
        made = [tensor(shape(), op) for _ in range(2 if rng.random() < 0.2 else 1)]
        for value in taken:
            readers[value].add(op)
        values.extend(made)
        operators.append(
            Operator(op, f"op{number}", "opaque", f"kernel{number}", tuple(taken), tuple(made))
        )
    outputs: list[TensorId] = []
    if has_signature:
        made_values = [t for t in values if producers[t] is not None and not readers[t]]
        outputs = made_values[-3:] or inputs[:1]
        if rng.random() < 0.2:
            outputs.append(rng.choice([*values, *weights]))
        if rng.random() < 0.2:
            view = outputs[0]
            outputs.append(tensor((shapes[view][0] * shapes[view][-1],), alias=view))
    graph = OpGraph(
        "random",
        tuple(operators),
        tuple(
            Tensor(
                TensorId(index),
                f"t{index}",
                shapes[index],
                "float32",
                4 * _product(shapes[index]),
                producers[index],
                tuple(sorted(readers[index])),
                aliases[index],
            )
            for index in range(len(shapes))
        ),
        tuple(inputs),
        tuple(outputs),
    )
    graph.validate()
    return graph


def random_machine(rng: random.Random, max_devices: int = 3, max_streams: int = 3) -> Machine:
    """Return CPU devices, GPUs with links that contend, or abstract ones without contention."""
    kind = rng.choice(("cpu", "cuda", "abstract"))
    count = rng.randint(1, max_devices)
    cores = rng.randint(1, 3)
    devices = tuple(
        Device(
            f"{kind}:{index}",
            kind,
            rng.randint(1, max_streams),
            compute_units=cores,
            cores=tuple(range(index * cores, (index + 1) * cores)) if kind == "cpu" else (),
        )
        for index in range(count)
    )
    links = tuple(
        Link(DeviceId(src), DeviceId(dst), 1.024, rng.randint(0, 4) / 4)
        for src, dst in permutations(range(count), 2)
    )
    machine = Machine(f"random_{kind}", devices, links, is_contended=kind != "abstract")
    machine.validate()
    return machine


def random_costs(rng: random.Random, graph: OpGraph, machine: Machine) -> TableCosts:
    """Return times that differ between operators and (sometimes) devices; some are zero."""
    n_devices = len(machine.devices)
    is_uniform = rng.random() < 0.7
    times = []
    for _ in graph.operators:
        row = [_quarters(rng, 40) for _ in range(1 if is_uniform else n_devices)]
        times.append(tuple(row * n_devices if is_uniform else row))
    transfers = None
    if rng.random() < 0.7:
        transfers = {tensor.id: _quarters(rng, 20) for tensor in graph.tensors}
    if any(device.kind == "cpu" for device in machine.devices):
        cores = len(machine.devices[0].cores)
        narrow = [[time * rng.randint(4, 4 * cores) / 4 for time in row] for row in times]
        return TableCosts(graph, machine, times, narrow_us=narrow, transfers_us=transfers)
    utilization = [rng.randint(0, 8) / 8 for _ in graph.operators]
    return TableCosts(graph, machine, times, utilization=utilization, transfers_us=transfers)


def random_schedule(
    rng: random.Random, graph: OpGraph, machine: Machine, costs: TableCosts
) -> Schedule:
    """Return a valid schedule with links decided, staged on some devices and not on others."""
    order = _random_order(rng, graph)
    device_of = {op: DeviceId(rng.randrange(len(machine.devices))) for op in order}
    staged = [rng.random() < 0.5 for _ in machine.devices]
    joining = rng.random()
    for attempt in (joining, 0.0):
        placements = _random_placements(rng, graph, machine, order, device_of, staged, attempt)
        schedule = Schedule("random", tuple(placements))
        try:
            validate_schedule(graph, machine, schedule)
        except CyclicGraph:
            # Stages that met through other devices; with single operators they cannot.
            continue
        return complete_links(graph, machine, costs, schedule)
    raise CyclicGraph("stages of one operator each, in a topological order, wait in a circle")


def op_graphs(max_operators: int = 10) -> "SearchStrategy[OpGraph]":
    """Return a Hypothesis strategy for `random_graph`."""
    from hypothesis import strategies as st

    return st.builds(random_graph, st.randoms(use_true_random=False), st.integers(0, max_operators))


def machines(max_devices: int = 3, max_streams: int = 3) -> "SearchStrategy[Machine]":
    """Return a Hypothesis strategy for `random_machine`."""
    from hypothesis import strategies as st

    return st.builds(
        random_machine,
        st.randoms(use_true_random=False),
        st.just(max_devices),
        st.just(max_streams),
    )


def cases(
    max_operators: int = 10, max_devices: int = 3, max_streams: int = 3
) -> "SearchStrategy[Case]":
    """Return a Hypothesis strategy for whole cases: graph, machine, costs and a schedule."""
    from hypothesis import strategies as st

    def build(rng: random.Random, n_operators: int) -> Case:
        graph = random_graph(rng, n_operators)
        machine = random_machine(rng, max_devices, max_streams)
        costs = random_costs(rng, graph, machine)
        return Case(graph, machine, costs, random_schedule(rng, graph, machine, costs))

    strategy: SearchStrategy[Any] = st.builds(
        build, st.randoms(use_true_random=False), st.integers(0, max_operators)
    )
    return strategy


def _random_order(rng: random.Random, graph: OpGraph) -> list[OpId]:
    waits = {op.id: 0 for op in graph.operators}
    follows: dict[OpId, list[OpId]] = {op.id: [] for op in graph.operators}
    for u, v in graph.edges():
        waits[v] += 1
        follows[u].append(v)
    ready = [op for op, count in waits.items() if count == 0]
    order = []
    while ready:
        op = ready.pop(rng.randrange(len(ready)))
        order.append(op)
        for v in follows[op]:
            waits[v] -= 1
            if waits[v] == 0:
                ready.append(v)
    return order


def _random_placements(
    rng: random.Random,
    graph: OpGraph,
    machine: Machine,
    order: Sequence[OpId],
    device_of: dict[OpId, DeviceId],
    staged: Sequence[bool],
    joining: float,
) -> list[Placement]:
    """Place operators one by one; each may join the open stage of its device."""
    preds: dict[OpId, list[OpId]] = {op: [] for op in order}
    for u, v in graph.edges():
        preds[v].append(u)
    waits: nx.DiGraph[tuple[int, int, int]] = nx.DiGraph()
    node_of: dict[OpId, tuple[int, int, int]] = {}
    placed: dict[OpId, Placement] = {}
    last_stage = [-1] * len(machine.devices)
    last_node: dict[tuple[int, int], tuple[int, int, int]] = {}
    for op in order:
        device = device_of[op]
        streams = machine.devices[device].streams
        if not staged[device]:
            stream = rng.randrange(streams)
            node, lane = (int(device), int(op), stream), stream
            placed[op] = Placement(op, device, StreamId(stream))
        else:
            lane = -1
            stage = last_stage[device]
            node = (int(device), -1, stage)
            stream = rng.randrange(streams)
            inside = {placed[u].stream for u in preds[op] if node_of[u] == node}
            if inside:
                stream = min(inside)
            sources = {node_of[u] for u in preds[op]} - {node}
            can_join = (
                stage >= 0
                and len(inside) < 2
                and not any(nx.has_path(waits, node, source) for source in sources)
            )
            if not can_join or rng.random() >= joining:
                last_stage[device] += 1
                stage = last_stage[device]
                node = (int(device), -1, stage)
            placed[op] = Placement(op, device, StreamId(stream), StageId(stage))
        node_of[op] = node
        waits.add_node(node)
        before = last_node.get((device, lane), node)
        waits.add_edges_from((source, node) for source in {before, *map(node_of.get, preds[op])})
        waits.remove_edges_from([(node, node)])
        last_node[device, lane] = node
    return _in_issue_order(placed, node_of, waits, order)


def _in_issue_order(
    placed: dict[OpId, Placement],
    node_of: dict[OpId, tuple[int, int, int]],
    waits: "nx.DiGraph[tuple[int, int, int]]",
    order: Sequence[OpId],
) -> list[Placement]:
    """Order placements so that stages stand together; inside one, as they were placed."""
    rank = {node: index for index, node in enumerate(nx.topological_sort(waits))}
    place = {op: index for index, op in enumerate(order)}
    return [placed[op] for op in sorted(order, key=lambda op: (rank[node_of[op]], place[op]))]


def _quarters(rng: random.Random, most: int) -> float:
    """Return 0 now and then, else up to `most` quarters of a microsecond."""
    return 0.0 if rng.random() < 0.1 else rng.randint(0, most) / 4


def _product(extents: Sequence[int]) -> int:
    total = 1
    for extent in extents:
        total *= extent
    return total
