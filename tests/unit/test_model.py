"""A model opens one executor, whoever asks first, and stays closed once it is."""

import os
import threading
import time

import numpy as np
import pytest
from small_kernels import build_kernels, cpu_machine, random_compiled, random_cpu_schedule

import hios_tvm.model as model_module
from graph_executor.executor import GraphExecutor, random_inputs
from hios.errors import ExecutionError
from hios_tvm.model import Model

CORES = sorted(os.sched_getaffinity(0))
MACHINE = cpu_machine([(CORES[0],)], 1)


@pytest.fixture(scope="module")
def compiled():
    return random_compiled(3, build_kernels())


@pytest.fixture
def model(compiled):
    made = Model(compiled, MACHINE, random_cpu_schedule(3, compiled.graph, MACHINE))
    yield made
    made.close()


def test_first_runs_at_the_same_time_share_one_executor(model, monkeypatch):
    opened = []

    def slowly(*arguments):
        time.sleep(0.05)  # every thread gets here before the first one is through
        opened.append(GraphExecutor(*arguments))
        return opened[-1]

    monkeypatch.setattr(model_module, "GraphExecutor", slowly)
    inputs = random_inputs(model.graph)
    found = [None] * 8

    def run(i):
        found[i] = model.run(inputs)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(opened) == 1
    for outputs in found:
        for name, value in found[0].items():
            np.testing.assert_array_equal(outputs[name], value)


@pytest.mark.parametrize("is_opened", [True, False])
def test_a_closed_model_runs_no_more_and_can_be_saved(model, is_opened, tmp_path):
    if is_opened:
        model.run(random_inputs(model.graph))
    model.close()
    model.close()
    for use in (model.run, lambda inputs: model.benchmark(1, 0), lambda inputs: model.profile(1)):
        with pytest.raises(ExecutionError, match=r"is closed; build or load it again"):
            use(random_inputs(model.graph))
    model.save(tmp_path / "m.hios")


def test_a_model_that_cannot_close_stays_open(model, monkeypatch):
    executor = model.executor

    def refuse():
        raise ExecutionError("during a run")

    with monkeypatch.context() as patched:
        patched.setattr(executor, "close", refuse)
        with pytest.raises(ExecutionError, match="during a run"):
            model.close()
    assert model.executor is executor
