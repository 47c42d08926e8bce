"""HIOS-MR: the recurrence as it is written, and the window behind it."""

from pathlib import Path

import pytest
from hypothesis import given, settings

from hios.errors import InvalidOption
from hios.graph_file import read_graph_file
from hios.ir.presets import abstract_machine
from hios.problem import Problem
from hios.schedulers import schedule
from hios.schedulers.list_schedule import list_schedule
from hios.schedulers.mapping_recording import record_mapping
from hios.simulator import makespan
from hios.testing import Case, cases, chain, uniform_costs

DAGS = Path(__file__).parents[1] / "data" / "dags"


def recorded_makespan_us(problem: Problem, order: list[int]) -> float:
    """Evaluate f(i, j) by timing whole partial list schedules again and again."""
    records: list[dict[int, int]] = [{}]

    def timed(device: dict[int, int]) -> tuple[float, float]:
        """Return the finish of the last operator, and the makespan."""
        partial = [v for v in order if v in device]
        finish: dict[int, float] = {}
        free = [0.0] * problem.n_devices
        for v in partial:
            d = device[v]
            start = max(
                [free[d]]
                + [finish[u] + problem.transfer_us(e, device[u], d) for u, e in problem.preds[v]]
            )
            finish[v] = free[d] = start + problem.time[v][d]
        return finish[partial[-1]], max(finish.values())

    for v in order:
        pin = problem.pinned[v]
        extended = []
        for d in range(problem.n_devices) if pin is None else (int(pin),):
            tried = [(*_begin_first(timed, record, v, d), k) for k, record in enumerate(records)]
            extended.append({**records[min(tried)[-1]], v: d})
        records = extended
    return min(timed(record)[1] for record in records) if order else 0.0


def _begin_first(timed, record, v, d):  # type: ignore[no-untyped-def]
    before = timed(record)[1] if record else 0.0
    return timed({**record, v: d})[0], before


@given(case=cases(max_operators=8))
@settings(max_examples=60, deadline=None)
def test_recording_is_the_recurrence(case: Case) -> None:
    problem = Problem(case.graph, case.machine, case.costs)
    mapping = record_mapping(problem)
    timed = list_schedule(problem, mapping.order, mapping.device)
    # What was recorded is what the list schedule of the mapping takes, copies on CPUs included.
    assert timed.makespan_us == pytest.approx(mapping.makespan_us)
    if not any(map(case.machine.copies_occupy, range(problem.n_devices))):
        expected = recorded_makespan_us(problem, mapping.order)
        assert mapping.makespan_us == pytest.approx(expected)


def test_a_chain_stays_on_one_device() -> None:
    graph = chain(20)
    machine = abstract_machine(4)
    costs = uniform_costs(graph, machine, transfer_us=5.0)
    decided = schedule("hios-mr-inter", graph, machine, costs)
    assert len(decided.devices_used()) == 1


@pytest.mark.parametrize("path", sorted(DAGS.glob("*.json")), ids=lambda path: path.stem)
@pytest.mark.parametrize("n_devices", [2, 4])
def test_the_window_never_makes_it_slower(path: Path, n_devices: int) -> None:
    file = read_graph_file(path)
    machine = abstract_machine(n_devices, streams=2)
    costs = file.costs(machine)
    first = schedule("hios-mr-inter", file.graph, machine, costs)
    second = schedule("hios-mr", file.graph, machine, costs)
    step1 = makespan(file.graph, machine, costs, first)
    assert makespan(file.graph, machine, costs, second) <= step1
    assert step1 == pytest.approx(first.notes["list_makespan_us"])
    assert step1 < sum(file.times_us)


def test_a_window_out_of_range_is_refused() -> None:
    graph = chain(2)
    machine = abstract_machine(2)
    with pytest.raises(InvalidOption, match="hios-mr: window is 0"):
        schedule("hios-mr", graph, machine, uniform_costs(graph, machine), window=0)
