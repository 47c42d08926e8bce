"""HIOS-LP: longest paths to devices, then a sliding window of stages on each device.

"HIOS: hierarchical inter-operator scheduler for real-time inference of DAG-structured deep
learning models on multiple GPUs", IEEE CLUSTER 2023. Step 1 is `hios.schedulers.longest_path`,
step 2 `hios.schedulers.sliding_window`. This is the published algorithm, also where others win.
"""

from hios.costs.protocol import Costs
from hios.ir.graph import OpGraph
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.problem import Problem
from hios.schedulers.longest_path import map_paths
from hios.schedulers.registry import register
from hios.schedulers.sliding_window import check_window_options, slide_window

__all__ = ["hios_lp"]


@register("hios-lp", source="HIOS, IEEE CLUSTER 2023")
def hios_lp(
    graph: OpGraph,
    machine: Machine,
    costs: Costs,
    *,
    window: int = 2,
    streams: int | None = None,
) -> Schedule:
    """Map longest paths to devices, then gather operators into stages.

    Parameters
    ----------
    graph, machine, costs
        What to run, where, and how long it takes.
    window
        Operators that step 2 looks at together; 1 leaves it out.
    streams
        Largest number of groups in a stage; by default (and at most) the device's streams.

    Returns
    -------
    Schedule
        One stream a device where nothing was gathered, stages elsewhere.

    Raises
    ------
    InvalidOption
        When an option is out of range.
    """
    check_window_options(window, streams, "hios-lp")
    problem = Problem(graph, machine, costs)
    mapped = map_paths(problem).schedule(problem, "hios-lp")
    return slide_window(problem, mapped, window, streams)
