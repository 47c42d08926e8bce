"""Random graphs, machines and schedules for the tests of plans, and an interpreter of plans.

The interpreter executes a plan on real byte arenas in a random order that its events allow,
reading inputs when an instruction starts and writing outputs when it ends, so a race shows as
a wrong value. It shares no code with planner or race detector.
"""

import itertools
import random
import zlib
from dataclasses import dataclass

import networkx as nx
import numpy as np

from graph_executor.plan import Copy, Launch, LinkQueue, Plan, Record, Wait
from hios.ir import (
    Device,
    DeviceId,
    Link,
    Machine,
    Operator,
    OpGraph,
    OpId,
    Placement,
    Schedule,
    StageId,
    StreamId,
    Tensor,
    TensorId,
)


@dataclass(frozen=True)
class Case:
    graph: OpGraph
    machine: Machine
    schedule: Schedule


def machine_of(kind: str, devices: int, streams: int) -> Machine:
    machine = Machine(
        "test",
        tuple(Device(f"{kind}:{i}", kind, streams) for i in range(devices)),
        tuple(
            Link(DeviceId(a), DeviceId(b), 10.0, 1.0)
            for a in range(devices)
            for b in range(devices)
            if a != b
        ),
    )
    machine.validate()
    return machine


def random_graph(rng: random.Random, operators: int) -> OpGraph:
    """Several inputs, weights, views, multi-output operators, outputs of every sort."""
    tensors: list[dict] = []
    readers: dict[int, set[int]] = {}

    def tensor(producer=None, alias_of=None) -> int:
        size = rng.choice((1, 40, 256, 300, 1024)) * 4
        if alias_of is not None:
            size = tensors[alias_of]["bytes"]
        tensors.append(
            {
                "id": len(tensors),
                "name": f"t{len(tensors)}",
                "shape": (size // 4,),
                "dtype": "float32",
                "bytes": size,
                "producer": producer,
                "alias_of": alias_of,
            }
        )
        return len(tensors) - 1

    inputs = [tensor() for _ in range(rng.randint(1, 2))]
    weights = [tensor() for _ in range(rng.randint(1, 3))]
    values = list(inputs)
    made = []
    for op in range(operators):
        recent = values[-6:] if rng.random() < 0.7 else values
        reads = rng.sample(recent, min(len(recent), rng.choice((1, 1, 2, 3))))
        if rng.random() < 0.4:
            reads.append(rng.choice(weights))
        if rng.random() < 0.05:
            reads = [rng.choice(weights)]
        for used in reads:
            readers.setdefault(used, set()).add(op)
        writes = [tensor(producer=op) for _ in range(rng.choice((1, 1, 1, 2)))]
        values += writes
        if rng.random() < 0.2:
            values.append(tensor(alias_of=rng.choice(writes)))
        made.append((reads, writes))
    unread = [v for v in values if v not in readers and v not in inputs]
    outputs = unread[-2:] or [values[-1]]
    if rng.random() < 0.2:
        outputs.append(rng.choice(inputs + weights + values))
    graph = OpGraph(
        "random",
        tuple(
            Operator(OpId(i), f"op{i}", "test", f"k{i}", tuple(reads), tuple(writes))
            for i, (reads, writes) in enumerate(made)
        ),
        tuple(Tensor(**t, consumers=tuple(sorted(readers.get(t["id"], ())))) for t in tensors),
        tuple(TensorId(t) for t in inputs),
        tuple(TensorId(t) for t in outputs),
    )
    graph.validate()
    return graph


def random_schedule(rng: random.Random, graph: OpGraph, machine: Machine) -> Schedule:
    """Every device staged or not, by chance; stages of chains, without circles of stages."""
    dag = graph.to_networkx()
    closure = nx.transitive_closure_dag(dag)
    sticky = rng.random()
    order = list(nx.topological_sort(dag))
    device_of: dict[int, int] = {}
    for op in order:
        before = [device_of[p] for p in dag.predecessors(op)]
        near = before and rng.random() < sticky
        device_of[op] = rng.choice(before) if near else rng.randrange(len(machine.devices))
    staged = {d for d in range(len(machine.devices)) if rng.random() < 0.6}
    stages: dict[int, list[dict[int, list[int]]]] = {d: [] for d in staged}
    node: dict[int, tuple[int, int]] = {}

    def circular() -> bool:
        found = nx.DiGraph()
        found.add_nodes_from(node.get(op, op) for op in order)
        for a, b in dag.edges:
            a_node, b_node = node.get(a, a), node.get(b, b)
            if a_node != b_node:
                found.add_edge(a_node, b_node)
        for device, list_ in stages.items():
            for i in range(len(list_) - 1):
                found.add_edge((device, i), (device, i + 1))
        for device in set(range(len(machine.devices))) - staged:
            # streams are drawn later; one chain over all is the strictest of them
            chain = [op for op in order if device_of[op] == device]
            found.add_edges_from(itertools.pairwise(chain))
        return not nx.is_directed_acyclic_graph(found)

    stream_of: dict[int, int] = {}
    for op in order:
        device = device_of[op]
        streams = machine.devices[device].streams
        if device not in staged:
            stream_of[op] = rng.randrange(streams)
            continue
        list_ = stages[device]
        if list_ and rng.random() < 0.7:
            stage = list_[-1]
            stream = rng.randrange(streams)
            others = [o for s, group in stage.items() if s != stream for o in group]
            if not any(closure.has_edge(o, op) for o in others):
                stage.setdefault(stream, []).append(op)
                node[op] = (device, len(list_) - 1)
                if not circular():
                    stream_of[op] = stream
                    continue
                stage[stream].pop()
                if not stage[stream]:
                    del stage[stream]
        stream_of[op] = rng.randrange(streams)
        list_.append({stream_of[op]: [op]})
        node[op] = (device, len(list_) - 1)
    return Schedule(
        "random",
        tuple(
            Placement(
                OpId(op),
                DeviceId(device_of[op]),
                StreamId(stream_of[op]),
                StageId(node[op][1]) if op in node else None,
            )
            for op in order
        ),
    )


def random_case(
    seed: int, operators: int = 14, kinds=("cpu", "cuda"), most_devices: int = 3
) -> Case:
    rng = random.Random(seed)
    machine = machine_of(rng.choice(kinds), rng.randint(1, most_devices), rng.randint(1, 3))
    graph = random_graph(rng, rng.randint(1, operators))
    return Case(graph, machine, random_schedule(rng, graph, machine))


def _digest(parts: list[bytes], salt: int, size: int) -> bytes:
    seed = salt
    for part in parts:
        seed = zlib.crc32(part, seed)
    return np.random.default_rng(seed).bytes(size)


def source_values(graph: OpGraph) -> dict[int, bytes]:
    """Bytes of the graph inputs and weights."""
    return {
        t.id: _digest([], 1000 + t.id, t.bytes)
        for t in graph.tensors
        if t.producer is None and t.alias_of is None
    }


def operate(graph: OpGraph, op: int, inputs: list[bytes]) -> list[bytes]:
    """What operator `op` of every graph computes here."""
    return [
        _digest(inputs, 7 * op + k, graph.tensors[t].bytes)
        for k, t in enumerate(graph.operators[op].outputs)
    ]


def reference(graph: OpGraph) -> list[bytes]:
    """The outputs of a graph, computed one operator after the other."""
    values = source_values(graph)
    for op in graph.topological_order():
        reads = [values[graph.root(t)] for t in graph.operators[op].inputs]
        for tensor, value in zip(
            graph.operators[op].outputs, operate(graph, op, reads), strict=True
        ):
            values[tensor] = value
    return [values[graph.root(t)] for t in graph.outputs]


def interpret(plan: Plan, graph: OpGraph, seed: int) -> list[bytes]:
    """Run a plan in one random order; return the outputs found on the first device."""
    rng = random.Random(seed)
    arenas = [bytearray(b"\xff" * m.arena_bytes) for m in plan.memory]
    regions = [bytearray(b"\xff" * m.weight_bytes) for m in plan.memory]
    where = {}
    for m in plan.memory:
        where |= {(m.device, b.tensor): (arenas[m.device], b) for b in m.buffers}
        where |= {(m.device, b.tensor): (regions[m.device], b) for b in m.weights}

    def read(device: int, tensor: int) -> bytes:
        memory, b = where[device, graph.root(TensorId(tensor))]
        return bytes(memory[b.offset : b.end])

    def write(device: int, tensor: int, value: bytes) -> None:
        memory, b = where[device, tensor]
        memory[b.offset : b.end] = value

    sources = source_values(graph)
    for m in plan.memory:
        for b in m.weights:
            write(m.device, b.tensor, sources[b.tensor])
    for tensor in graph.inputs:
        write(0, tensor, sources[tensor])
    position = [0] * len(plan.queues)
    pending: list = [None] * len(plan.queues)
    recorded: set[int] = set()
    while True:
        able = []
        for i, queue in enumerate(plan.queues):
            if pending[i] is not None:
                able.append(i)
            elif position[i] < len(queue.instructions):
                head = queue.instructions[position[i]]
                if not isinstance(head, Wait) or head.event in recorded:
                    able.append(i)
        if not able:
            break
        i = rng.choice(able)
        queue = plan.queues[i]
        if pending[i] is not None:
            for device, tensor, value in pending[i]:
                write(device, tensor, value)
            pending[i] = None
            position[i] += 1
            continue
        head = queue.instructions[position[i]]
        if isinstance(head, Launch):
            assert not isinstance(queue, LinkQueue)
            operator = graph.operators[head.op]
            values = operate(graph, head.op, [read(queue.device, t) for t in operator.inputs])
            pending[i] = [
                (queue.device, t, v) for t, v in zip(operator.outputs, values, strict=True)
            ]
        elif isinstance(head, Copy):
            pending[i] = [(head.dst, head.tensor, read(head.src, head.tensor))]
        else:
            if isinstance(head, Record):
                recorded.add(head.event)
            position[i] += 1
    assert all(p == len(q.instructions) for p, q in zip(position, plan.queues, strict=True))
    return [read(0, t) for t in graph.outputs]
