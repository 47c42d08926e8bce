"""A decision is made once for the same question, and anew for any other."""

from dataclasses import replace

import pytest

import hios_tvm.kept_schedules as module
from hios.cache_folder import schedule_store
from hios.costs.table import TableCosts
from hios.ir.presets import abstract_machine
from hios.testing import TOPOLOGIES
from hios_tvm.kept_schedules import schedule_once

MACHINE = abstract_machine(2)


@pytest.fixture
def question():
    graph = next(iter(TOPOLOGIES.values()))()
    times = tuple((10.0 + op, 12.0 + op) for op in range(len(graph.operators)))
    return graph, MACHINE, TableCosts(graph, MACHINE, times)


@pytest.fixture
def decided(monkeypatch):
    """How often a scheduler really ran."""
    calls = []
    real = module.run_scheduler

    def run(name, *given, **options):
        calls.append(name)
        return real(name, *given, **options)

    monkeypatch.setattr(module, "run_scheduler", run)
    return calls


def test_the_same_question_is_answered_from_the_cache(question, decided, tmp_path):
    first = schedule_once("heft", *question, {}, tmp_path)
    second = schedule_once("heft", *question, {"progress": lambda *_: None}, tmp_path)
    assert first == second
    assert decided == ["heft"]


def test_any_other_question_is_decided(question, decided, tmp_path):
    graph, machine, costs = question
    slower = replace(costs, times_us=tuple((2 * a, b) for a, b in costs.times_us))
    schedule_once("heft", graph, machine, costs, {}, tmp_path)
    schedule_once("heft", graph, machine, slower, {}, tmp_path)
    schedule_once("hios-lp", graph, machine, costs, {}, tmp_path)
    schedule_once("hios-lp", graph, machine, costs, {"window": 2}, tmp_path)
    assert len(decided) == 4
    assert schedule_store(tmp_path).usage().entries == 4


def test_what_a_budget_cut_short_is_not_kept(question, decided, tmp_path):
    for _ in range(2):
        schedule_once("auto", *question, {"budget": 5.0}, tmp_path)
    assert decided == ["auto", "auto"]
    assert schedule_store(tmp_path).usage().entries == 0


def test_without_a_folder_nothing_is_kept(question, decided):
    for _ in range(2):
        schedule_once("heft", *question, {}, None)
    assert decided == ["heft", "heft"]
