"""The exact scheduler against brute force, and against what is known of the reference graphs."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hios.bounds import lower_bound
from hios.errors import InvalidOption, MissingDependency
from hios.graph_file import read_graph_file
from hios.ir.presets import abstract_machine, cpu_machine, preset
from hios.ir.validation import validate_schedule
from hios.problem import Problem
from hios.schedulers import schedule
from hios.schedulers.assembly import assemble
from hios.schedulers.search.annealing import links_by_reader
from hios.schedulers.search.portfolio import judge
from hios.simulator import makespan
from hios.testing import chain, graph_from_edges, random_costs, random_graph, uniform_costs

pytest.importorskip("ortools")

DAGS = Path(__file__).parent.parent / "data" / "dags"


def brute_force(problem: Problem) -> float:
    """Return the least makespan over all topological orders and devices, by the simulator.

    Each is tried with both link orders that `judge` knows.
    """
    best = float("inf")
    n_nodes = problem.n_nodes
    device = [0] * n_nodes

    def extend(order: list[int], left: frozenset[int]) -> None:
        nonlocal best
        if not left:
            decided = assemble(problem, "brute", order, device)
            candidate = judge(problem, "brute", decided, links_by_reader(problem, order, device))
            assert candidate is not None
            best = min(best, candidate.makespan_us)
            return
        for v in sorted(left):
            if any(u in left for u, _ in problem.preds[v]):
                continue
            pin = problem.pinned[v]
            for d in range(problem.n_devices) if pin is None else (int(pin),):
                device[v] = d
                extend([*order, v], left - {v})

    extend([], frozenset(range(n_nodes)))
    return best


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32), n_operators=st.integers(1, 5))
def test_equals_brute_force(seed: int, n_operators: int) -> None:
    rng = random.Random(seed)
    graph = random_graph(rng, n_operators)
    machine = abstract_machine(2)
    costs = random_costs(rng, graph, machine)
    decided = schedule("exact", graph, machine, costs, workers=2)
    validate_schedule(graph, machine, decided)
    found = makespan(graph, machine, costs, decided)
    assert found == decided.notes["makespan_us"]
    assert decided.notes["proven"] == 1
    assert found == pytest.approx(brute_force(Problem(graph, machine, costs)), abs=1e-6)


@pytest.mark.parametrize("edges", [[(0, 1), (0, 2), (1, 3), (2, 3), (3, 5), (4, 5)], [(0, 5)]])
def test_equals_brute_force_on_six_operators(edges: list[tuple[int, int]]) -> None:
    graph = graph_from_edges(6, edges)
    machine = abstract_machine(2)
    costs = random_costs(random.Random(3), graph, machine)
    decided = schedule("exact", graph, machine, costs)
    brute = brute_force_orders(Problem(graph, machine, costs))
    assert decided.notes["makespan_us"] == pytest.approx(brute, abs=1e-6)


def brute_force_orders(problem: Problem) -> float:
    """As `brute_force` where links do not contend, fast enough for six operators."""
    best = float("inf")
    finish = [0.0] * problem.n_nodes
    device = [0] * problem.n_nodes

    def extend(left: int, free: tuple[float, ...]) -> None:
        nonlocal best
        if max(free) >= best:
            return
        if not left:
            best = max(free)
            return
        for v in range(problem.n_nodes):
            if not left >> v & 1 or any(left >> u & 1 for u, _ in problem.preds[v]):
                continue
            for d in range(problem.n_devices):
                now = free[d]
                for u, edge in problem.preds[v]:
                    now = max(now, finish[u] + problem.transfer_us(edge, device[u], d))
                device[v], finish[v] = d, now + problem.time[v][d]
                extend(left & ~(1 << v), (*free[:d], finish[v], *free[d + 1 :]))

    extend((1 << problem.n_nodes) - 1, (0.0,) * problem.n_devices)
    return best


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
@settings(max_examples=6)
@given(seed=st.integers(0, 2**32))
def test_real_machines_with_pinned_ends_and_queueing_copies(kind: str, seed: int) -> None:
    """The model may order copies more freely than the orders tried, so it may be better."""
    rng = random.Random(seed)
    graph = random_graph(rng, 4)
    machine = (
        preset("2xA40-NVLink", 1)
        if kind == "cuda"
        else cpu_machine(["cpu:0", "cpu:1"], cores=[0, 1])
    )
    costs = random_costs(rng, graph, machine)
    decided = schedule("exact", graph, machine, costs, workers=2)
    found = float(decided.notes["makespan_us"])
    assert found == makespan(graph, machine, costs, decided)
    assert found <= brute_force(Problem(graph, machine, costs)) + 1e-6
    assert (
        lower_bound(graph, machine, costs)
        <= float(decided.notes["bound_us"]) + 1e-9
        <= found + 2e-9
    )


@pytest.mark.parametrize("stem", ["layered_14_26_5_r0.8_s100", "layered_24_45_6_r0.8_s101"])
def test_reference_graphs_are_proven(stem: str) -> None:
    file = read_graph_file(DAGS / f"{stem}.json")
    for known in json.loads((DAGS / f"{stem}.json").read_text())["reference"]:
        machine = abstract_machine(known["devices"])
        costs = file.costs(machine)
        decided = schedule("exact", file.graph, machine, costs)
        assert decided.notes["proven"] == 1
        assert decided.notes["truncated"] == 0
        # The reference rounds each time to whole microseconds.
        assert decided.notes["makespan_us"] == pytest.approx(
            known["cp_sat"]["best_known_us"], abs=3
        )
        assert decided.notes["bound_us"] == pytest.approx(decided.notes["makespan_us"])


def test_a_short_budget_gives_a_schedule_with_its_bound() -> None:
    stem = "layered_30_60_7_r0.4_s102"
    file = read_graph_file(DAGS / f"{stem}.json")
    machine = abstract_machine(3)
    decided = schedule("exact", file.graph, machine, file.costs(machine), budget=0.5)
    notes = decided.notes
    assert (notes["proven"], notes["truncated"]) == (0, 1)
    assert float(notes["bound_us"]) < float(notes["makespan_us"]) <= 1.005 * 22766
    assert notes["gap"] == pytest.approx(float(notes["makespan_us"]) / float(notes["bound_us"]) - 1)


def test_progress_and_options() -> None:
    graph = graph_from_edges(3, [(0, 1)])
    machine = abstract_machine(2)
    costs = uniform_costs(graph, machine)
    told: list[str] = []
    schedule("exact", graph, machine, costs, progress=lambda what, _: told.append(what))
    assert (told[0], told[-1]) == ("start", "done")
    for option, value in (("budget", 0), ("budget", True), ("workers", 0), ("workers", 1.5)):
        with pytest.raises(InvalidOption, match=option):
            schedule("exact", graph, machine, costs, **{option: value})
    large = chain(201)
    with pytest.raises(InvalidOption, match="at most 200"):
        schedule("exact", large, machine, uniform_costs(large, machine))


def test_without_the_solver_the_message_says_what_to_install() -> None:
    program = (
        "import sys\n"
        "sys.modules['ortools'] = None\n"
        "from hios.errors import MissingDependency\n"
        "from hios.ir.presets import abstract_machine\n"
        "from hios.schedulers import schedule\n"
        "from hios.testing import chain, uniform_costs\n"
        "graph, machine = chain(3), abstract_machine(2)\n"
        "try:\n"
        "    schedule('exact', graph, machine, uniform_costs(graph, machine))\n"
        "except MissingDependency as problem:\n"
        "    print(problem)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "hios-tvm[exact]" in done.stdout
    assert issubclass(MissingDependency, ImportError)
