"""From what the command line says to a graph, a machine and costs, and on to a decision.

A file that ends in ``.json`` is a graph file and needs neither TVM nor XGBoost.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from hios.bounds import lower_bound
from hios.costs.protocol import Costs
from hios.costs.table import TableCosts
from hios.errors import InvalidOption
from hios.graph_file import read_graph_file
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId
from hios.ir.machine import Machine
from hios.ir.presets import abstract_machine
from hios.ir.schedule import Schedule
from hios.ir.serial import read_bytes, write_bytes
from hios.ir.validation import validate_schedule
from hios.schedulers import schedule as run_scheduler
from hios.simulator import complete_links, simulate
from hios_tvm.cli.options import MachineChoice, ModelChoice, OutputChoice, SchedulerChoice
from hios_tvm.machines import resolve_machine
from hios_tvm.report.summary import ScheduleSummary

__all__ = ["Problem", "chosen_machine", "decide", "load_schedule", "read_problem"]

_GRAPH_FILE_DEVICES = 2
# Links grow with the square: beyond this a slip of the finger would fill the memory.
_MAX_DEVICES = 1024


@dataclass(frozen=True, slots=True)
class Problem:
    """What a scheduler is asked."""

    graph: OpGraph
    machine: Machine
    costs: Costs


def read_problem(
    source: str,
    machine: MachineChoice,
    model: ModelChoice,
    costs: str | None,
    output: OutputChoice,
) -> Problem:
    """Read a graph file, compile a model or open an artifact, and get its costs.

    Raises
    ------
    HiosError
        When the source, the machine or the costs are wrong.
    """
    if source.endswith(".json"):
        return _graph_file_problem(source, machine, costs)
    raise InvalidOption(f"{source} {model} {output}")


def chosen_machine(choice: MachineChoice) -> Machine:
    """Return the machine that the options describe; by default this host's cores.

    Raises
    ------
    HiosError
        When there is no such machine.
    """
    return resolve_machine(_devices(choice), choice.machine, choice.streams)


def decide(problem: Problem, choice: SchedulerChoice) -> ScheduleSummary:
    """Decide (or load) a schedule, save it if asked to, and predict its timeline.

    Raises
    ------
    HiosError
        When the scheduler is unknown, an option is not its own, or a loaded schedule does not
        fit.
    """
    graph, machine, costs = problem.graph, problem.machine, problem.costs
    if choice.load_schedule is not None:
        schedule = load_schedule(choice.load_schedule, graph, machine)
        seconds = 0.0
    else:
        options = {} if choice.window is None else {"window": choice.window}
        started = time.perf_counter()
        schedule = run_scheduler(choice.scheduler, graph, machine, costs, **options)
        seconds = time.perf_counter() - started
    if not schedule.links:
        schedule = complete_links(graph, machine, costs, schedule)
    timeline = simulate(graph, machine, costs, schedule)
    if choice.save_schedule is not None:
        write_bytes(choice.save_schedule, schedule.to_json())
    return ScheduleSummary(
        graph=graph,
        machine=machine,
        schedule=schedule,
        timeline=timeline,
        sequential_us=sum(costs.operator_us(op.id, DeviceId(0)) for op in graph.operators),
        lower_bound_us=lower_bound(graph, machine, costs),
        seconds=seconds,
    )


def load_schedule(path: Path, graph: OpGraph, machine: Machine) -> Schedule:
    """Read a schedule and check it against a graph and a machine.

    Raises
    ------
    MissingFile, InfeasibleSchedule
        When it cannot be read or does not fit.
    """
    schedule = Schedule.from_json(read_bytes(path), what=str(path))
    validate_schedule(graph, machine, schedule)
    return schedule


def _graph_file_problem(source: str, choice: MachineChoice, costs: str | None) -> Problem:
    file = read_graph_file(source)
    devices = _devices(choice)
    if choice.machine is None and not isinstance(devices, str):
        count = _GRAPH_FILE_DEVICES if devices is None else devices
        machine = abstract_machine(count, choice.streams or 1)
    else:
        machine = resolve_machine(devices, choice.machine, choice.streams)
    if costs is None:
        return Problem(file.graph, machine, file.costs(machine))
    if not costs.endswith(".json"):
        raise InvalidOption(
            f"--costs {costs} needs a model; a graph file brings its own times, which only a "
            "JSON file of costs can replace"
        )
    table = TableCosts.from_json(read_bytes(costs), file.graph, machine, what=costs)
    return Problem(file.graph, machine, table)


def _devices(choice: MachineChoice) -> int | str | None:
    """Return ``--devices`` as a count, a list of names, or None."""
    text = choice.devices
    if text is None or not (text.isascii() and text.isdigit()):
        return text
    if len(text) > 4 or int(text) > _MAX_DEVICES:
        raise InvalidOption(f"--devices {text}: at most {_MAX_DEVICES} are supported")
    return int(text)
