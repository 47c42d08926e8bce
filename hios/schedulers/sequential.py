"""Everything on the first device, one after another: the baseline and the guard."""

from hios.costs.protocol import Costs
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId
from hios.ir.machine import Machine
from hios.ir.schedule import Placement, Schedule
from hios.schedulers.registry import register

__all__ = ["sequential"]


@register("sequential")
def sequential(graph: OpGraph, machine: Machine, costs: Costs) -> Schedule:
    """Run all operators in topological order on one stream of the first device.

    Raises
    ------
    CyclicGraph
        When the graph is no DAG.

    Notes
    -----
    O(V log V + E).
    """
    first = DeviceId(0)
    return Schedule("sequential", tuple(Placement(op, first) for op in graph.topological_order()))
