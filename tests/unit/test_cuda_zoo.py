"""Every network of the zoo as machine code for a GPU, with plans for one to eight devices."""

import shutil

import pytest

from graph_executor.planner import make_plan
from hios.costs.analytic import AnalyticCosts
from hios.ir.presets import preset
from hios.schedulers import schedule
from hios.simulator import makespan
from hios_tvm.deciding import decide
from hios_tvm.models import zoo
from hios_tvm.sources import compile_model
from relay_passes.cuda.packing import packed_format

SIZES = {"retinanet": 128, "bert_base": 32, "moe_block": 32, "inception_v3": 128}
DEVICES = (1, 2, 4, 8)

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc to compile with")


@pytest.mark.full
@pytest.mark.parametrize("name", sorted(zoo.NETWORKS))
def test_every_network_compiles_to_machine_code_with_plans(name, tmp_path):
    compiled = compile_model(f"zoo:{name}@{SIZES.get(name, 64)}", "cuda:sm_90")
    compiled.library.export(tmp_path / "kernels.so")
    assert packed_format((tmp_path / "kernels.so").read_bytes()) == "cubin"
    graph = compiled.graph
    for devices in DEVICES:
        machine = preset(f"{devices}xH200-NVLink4", 4)
        costs = AnalyticCosts(graph, machine)
        decided = decide(compiled, machine, costs, scheduler="hios-lp").schedule
        plan = make_plan(graph, machine, decided)
        plan.validate(graph)
        assert len(plan.memory) == devices
        assert all(memory.arena_bytes >= memory.lower_bound_bytes for memory in plan.memory)
        in_order = schedule("sequential", graph, machine, costs)
        predicted = makespan(graph, machine, costs, decided)
        assert predicted <= makespan(graph, machine, costs, in_order) * (1 + 1e-9)
