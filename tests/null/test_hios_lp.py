"""HIOS-LP is the published algorithm: its paths equal an enumeration, its mappings are golden."""

import json
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hios.graph_file import GraphFile, read_graph_file
from hios.ir.presets import abstract_machine, cpu_machine
from hios.problem import Problem
from hios.schedulers import schedule
from hios.schedulers.list_schedule import list_schedule
from hios.schedulers.longest_path import PathFinder, map_paths
from hios.schedulers.path_trial import PathTrial, make_trial
from hios.schedulers.search.path_trial_kernel import CompiledPathTrial
from hios.schedulers.stage_graph import StageGraph
from hios.simulator import complete_links, makespan
from hios.testing import (
    inception_block,
    layered_random,
    random_costs,
    random_graph,
    random_machine,
    uniform_costs,
)

DAGS = Path(__file__).parent.parent / "data" / "dags"

GOLDEN = Path(__file__).parent.parent / "data" / "golden" / "hios_lp.json"


class Oracle:
    """Enumerates every valid path of unmapped nodes, and judges it by the definition."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.mapped = {v for v in problem.nodes() if problem.op_of[v] is None}

    def paths_from(self, v: int) -> list[tuple[int, ...]]:
        found = [(v,)]
        for s, _ in self.problem.succs[v]:
            if s not in self.mapped:
                found += [(v, *rest) for rest in self.paths_from(s)]
        return found

    def is_valid(self, path: tuple[int, ...]) -> bool:
        if len(path) == 1:
            return True
        for index, v in enumerate(path):
            has_before = any(u in self.mapped for u, _ in self.problem.preds[v])
            has_after = any(s in self.mapped for s, _ in self.problem.succs[v])
            if index > 0 and has_before:
                return False
            if index < len(path) - 1 and has_after:
                return False
        return True

    def length(self, path: tuple[int, ...]) -> float:
        problem = self.problem
        arriving = [problem.edge_mean_us[e] for u, e in problem.preds[path[0]] if u in self.mapped]
        leaving = [problem.edge_mean_us[e] for s, e in problem.succs[path[-1]] if s in self.mapped]
        total = problem.mean_time[path[0]] + max(arriving, default=0.0)
        for u, v in pairwise(path):
            edge = next(e for s, e in problem.succs[u] if s == v)
            total += problem.edge_mean_us[edge] + problem.mean_time[v]
        return total + max(leaving, default=0.0)

    def sequence(self) -> list[tuple[int, ...]]:
        chosen = []
        while len(self.mapped) < self.problem.n_nodes:
            valid = [
                path
                for v in self.problem.nodes()
                if v not in self.mapped
                for path in self.paths_from(v)
                if self.is_valid(path)
            ]
            best = min(valid, key=lambda path: (-self.length(path), path[::-1]))
            chosen.append(best)
            self.mapped.update(best)
        return chosen


@settings(max_examples=300)
@given(st.randoms(use_true_random=False), st.integers(0, 10))
def test_the_paths_are_those_of_the_definition(rng: random.Random, n_operators: int) -> None:
    graph, machine = random_graph(rng, n_operators), random_machine(rng, max_devices=2)
    problem = Problem(graph, machine, random_costs(rng, graph, machine))
    assert map_paths(problem).paths == Oracle(problem).sequence()


@pytest.mark.parametrize("seed", range(40))
def test_each_path_goes_where_the_list_schedule_is_shortest(seed: int) -> None:
    """The incremental trial equals a list schedule of everything mapped, from scratch."""
    rng = random.Random(seed)
    graph, machine = random_graph(rng, 14), random_machine(rng)
    problem = Problem(graph, machine, random_costs(rng, graph, machine))
    mapping = map_paths(problem)
    device = [0] * problem.n_nodes
    mapped = {v for v in problem.nodes() if problem.op_of[v] is None}
    for path in mapping.paths:
        mapped.update(path)
        part = restrict(problem, mapped)
        spans = []
        for d in range(problem.n_devices):
            for v in path:
                device[v] = d
            order = [v for v in problem.priority_order() if v in mapped]
            spans.append(list_schedule(part, order, device).makespan_us)
        chosen = {mapping.device[v] for v in path}
        assert chosen == {spans.index(min(spans))}
        for v in path:
            device[v] = mapping.device[v]
    assert mapping.makespan_us == min(spans, default=0.0)


def restrict(problem: Problem, nodes: set[int]) -> Problem:
    """Return the problem without the edges of other nodes."""
    part = Problem(problem.graph, problem.machine, problem.costs)
    kept = [i for i, (u, v) in enumerate(problem.edges) if u in nodes and v in nodes]
    part.edges = [problem.edges[i] for i in kept]
    part.edge_tensors = [problem.edge_tensors[i] for i in kept]
    part.edge_us = [problem.edge_us[i] for i in kept]
    part.preds = [[] for _ in problem.nodes()]
    for edge, (u, v) in enumerate(part.edges):
        part.preds[v].append((u, edge))
    return part


def test_golden_mappings(updates_golden: bool) -> None:
    found: dict[str, Any] = {}
    for path in sorted(DAGS.glob("*.json")):
        file = read_graph_file(path)
        for figure in json.loads(path.read_text())["reference"]:
            for streams in (1, 2):
                machine = abstract_machine(figure["devices"], streams)
                costs = file.costs(machine)
                decided = schedule("hios-lp", file.graph, machine, costs)
                where = decided.placement_of()
                found[f"{file.graph.name} {figure['devices']}x{streams}"] = {
                    "devices": "".join(str(where[op.id].device) for op in file.graph.operators),
                    "makespan_us": round(makespan(file.graph, machine, costs, decided), 3),
                    "stages": sum(len(stages) for stages in decided.stages().values()),
                }
    if updates_golden:
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(GOLDEN.read_text())


def test_on_average_no_worse_than_the_published_mapping() -> None:
    ours, published = [], []
    for path in sorted(DAGS.glob("*.json")):
        file = read_graph_file(path)
        for figure in json.loads(path.read_text())["reference"]:
            if "published_hios_lp_mapping_us" in figure:
                machine = abstract_machine(figure["devices"])
                costs = file.costs(machine)
                decided = schedule("hios-lp", file.graph, machine, costs)
                ours.append(makespan(file.graph, machine, costs, decided))
                published.append(figure["published_hios_lp_mapping_us"])
    assert len(ours) == 8
    assert mean(ours) <= mean(published)
    assert mean(a / b for a, b in zip(ours, published, strict=True)) <= 1.0


def test_reported_unimproved_where_heft_wins() -> None:
    file = read_graph_file(DAGS / "layered_200_400_14_r0.8_s101.json")
    machine = abstract_machine(8)
    costs = file.costs(machine)
    spans = {
        name: makespan(file.graph, machine, costs, schedule(name, file.graph, machine, costs))
        for name in ("heft", "hios-lp", "hios-lp-inter")
    }
    assert spans["hios-lp"] == spans["hios-lp-inter"] > spans["heft"]


@given(st.randoms(use_true_random=False), st.integers(0, 14), st.integers(1, 4))
def test_the_window_never_makes_it_worse(rng: random.Random, n_operators: int, window: int) -> None:
    graph, machine = random_graph(rng, n_operators), random_machine(rng)
    costs = random_costs(rng, graph, machine)
    mapped = schedule("hios-lp-inter", graph, machine, costs)
    slid = schedule("hios-lp", graph, machine, costs, window=window)
    before = makespan(graph, machine, costs, mapped)
    assert makespan(graph, machine, costs, slid) <= before * (1 + 1e-12)
    limit = max(device.streams for device in machine.devices)
    for stages in slid.stages().values():
        assert all(len(stage) <= min(window, limit) for stage in stages)


def test_the_window_gathers_what_pays() -> None:
    graph, machine = inception_block(), abstract_machine(1, 4)
    costs = uniform_costs(graph, machine, utilization=0.25)
    spans = [
        makespan(graph, machine, costs, schedule("hios-lp", graph, machine, costs, window=window))
        for window in (1, 2, 4)
    ]
    assert spans[0] == 90.0
    assert spans[0] > spans[1] > spans[2]


def test_streams_limit_the_stages() -> None:
    graph, machine = layered_random(40, 60, 4, seed=1), abstract_machine(2, 4)
    costs = uniform_costs(graph, machine, utilization=0.25)
    two = schedule("hios-lp", graph, machine, costs, window=4, streams=2)
    four = schedule("hios-lp", graph, machine, costs, window=4)
    assert max(len(s) for stages in two.stages().values() for s in stages) == 2
    assert max(len(s) for stages in four.stages().values() for s in stages) == 4
    one = schedule("hios-lp", graph, machine, costs, window=4, streams=1)
    assert one.stages() == {}


MACHINES = {
    "free links": abstract_machine(3, 2),
    "contended links": replace(abstract_machine(3, 2), is_contended=True),
    "occupying copies": cpu_machine(["cpu:0", "cpu:1", "cpu:2"], cores=[0, 1, 2], streams=2),
}


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("kind", sorted(MACHINES))
def test_incremental_times_are_those_of_the_simulator(seed: int, kind: str) -> None:
    """After random merges, some taken back, the makespan equals a simulation from scratch."""
    rng = random.Random(seed)
    graph, machine = random_graph(rng, 16), MACHINES[kind]
    costs = random_costs(rng, graph, machine)
    decided = schedule("hios-lp-inter", graph, machine, costs)
    counts: dict[int, int] = {}
    singles = []
    for p in decided.placements:
        counts[p.device] = counts.get(p.device, -1) + 1
        singles.append(replace(p, stage=counts[p.device]))
    staged = complete_links(
        graph, machine, costs, replace(decided, placements=tuple(singles), links=())
    )
    stages = StageGraph(graph, machine, costs, staged)
    ancestors = {v: set(_ancestors(graph, v)) for v in range(len(graph.operators))}
    for p, q in pairwise(singles):
        if p.device != q.device or p.op in ancestors[q.op]:
            continue
        first, second = stages.node_of(p.op), stages.node_of(q.op)
        if first == second or len(stages.groups[first]) > 1:
            continue
        if not stages.is_next(first, second) or stages.has_circle([first, second]):
            continue
        before = (list(stages.start), stages.makespan_us)
        undo = stages.merge([first, second], costs.stage_us([[p.op], [q.op]], p.device), 1e9)
        assert undo is not None
        if rng.random() < 0.4:
            stages.undo(undo)
            assert (stages.start, stages.makespan_us) == before
        else:
            stages.correct_tails(undo)
    again = retimed(stages, staged)
    assert stages.makespan_us == pytest.approx(makespan(graph, machine, costs, again))


def _ancestors(graph: Any, op: int) -> set[int]:
    import networkx as nx

    return nx.ancestors(graph.to_networkx(), op)


def retimed(stages: StageGraph, staged: Any) -> Any:
    """The merged stages as a schedule, with the link orders as they were."""
    device_of = {p.op: p.device for p in staged.placements}
    counts: dict[int, int] = {}
    placements = []
    for node in stages.stages_in_order():
        device = device_of[stages.groups[node][0][0]]
        counts[device] = counts.get(device, -1) + 1
        for stream, group in enumerate(stages.groups[node]):
            placements += [
                replace(p, stream=stream, stage=counts[device])
                for op in group
                for p in staged.placements
                if p.op == op
            ]
    return replace(staged, placements=tuple(placements))


def test_reference_graphs_are_fast(
    reference_graph: tuple[GraphFile, list[dict[str, Any]]],
) -> None:
    """A generous guard against a return of whole re-simulations (10 × the usual time)."""
    import time

    file, _ = reference_graph
    machine = abstract_machine(4, 2)
    costs = file.costs(machine)
    started = time.process_time()
    schedule("hios-lp", file.graph, machine, costs)
    assert time.process_time() - started < 0.5


@settings(max_examples=60)
@given(st.randoms(use_true_random=False), st.integers(0, 40), st.integers(1, 5))
def test_compiled_trials_decide_as_plain_ones(
    rng: random.Random, n_operators: int, n_devices: int
) -> None:
    graph = random_graph(rng, n_operators)
    machine = abstract_machine(n_devices)
    problem = Problem(graph, machine, random_costs(rng, graph, machine))
    plain, compiled = PathTrial(problem), CompiledPathTrial(problem)
    finder = PathFinder(problem)
    while (path := finder.longest()) is not None:
        plain.place(path)
        compiled.place(path)
        finder.mark_mapped(path)
        assert compiled.device == plain.device
        assert compiled.sequence == plain.sequence
        assert compiled.finish == plain.finish


def test_large_graphs_are_tried_compiled_where_copies_do_not_occupy() -> None:
    graph = layered_random(1600, 3200, 100)
    kinds = {
        CompiledPathTrial: abstract_machine(2),
        PathTrial: cpu_machine(["cpu:0", "cpu:1"], [0, 1]),
    }
    for kind, machine in kinds.items():
        problem = Problem(graph, machine, uniform_costs(graph, machine))
        assert isinstance(make_trial(problem), kind)
