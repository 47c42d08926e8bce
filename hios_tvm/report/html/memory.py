"""What each device has to hold, from the plan that the executor would run."""

from graph_executor.planner import make_plan
from hios.ir.graph import OpGraph
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios_tvm.report.html.data import MemoryRow

__all__ = ["memory_of"]


def memory_of(graph: OpGraph, machine: Machine, schedule: Schedule) -> tuple[MemoryRow, ...]:
    """Return the weights and the arena of each device.

    Returns
    -------
    tuple of MemoryRow
        One per device; empty where the graph has no sizes (graph files), or where the schedule
        chooses merged operators, for which there is no plan.
    """
    if schedule.alternatives or not any(tensor.bytes for tensor in graph.tensors):
        return ()
    plan = make_plan(graph, machine, schedule)
    return tuple(
        MemoryRow(
            memory.weight_bytes,
            memory.arena_bytes,
            memory.lower_bound_bytes,
            machine.devices[memory.device].memory_bytes,
        )
        for memory in plan.memory
    )
