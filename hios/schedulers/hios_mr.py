"""HIOS-MR: recorded mappings to devices, then a sliding window of stages on each device.

"HIOS: hierarchical inter-operator scheduler for real-time inference of DAG-structured deep
learning models on multiple GPUs", IEEE CLUSTER 2023. Step 1 is
`hios.schedulers.mapping_recording`, step 2 `hios.schedulers.sliding_window`, as for hios-lp.
"""

from hios.costs.protocol import Costs
from hios.ir.graph import OpGraph
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.problem import Problem
from hios.schedulers.mapping_recording import record_mapping, recorded_schedule
from hios.schedulers.registry import register
from hios.schedulers.sliding_window import check_window_options, slide_window

__all__ = ["hios_mr"]


@register("hios-mr", source="HIOS, IEEE CLUSTER 2023")
def hios_mr(
    graph: OpGraph,
    machine: Machine,
    costs: Costs,
    *,
    window: int = 2,
    streams: int | None = None,
) -> Schedule:
    """Map operators to devices by recording, then gather them into stages.

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
    check_window_options(window, streams, "hios-mr")
    problem = Problem(graph, machine, costs)
    mapped = recorded_schedule(problem, record_mapping(problem), "hios-mr")
    return slide_window(problem, mapped, window, streams)
