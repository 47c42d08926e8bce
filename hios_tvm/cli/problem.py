"""From what the command line says to a graph, a machine and costs, and on to a decision.

A file that ends in ``.json`` is a graph file: it has times and no kernels, and needs neither TVM
nor XGBoost. A folder is an artifact, everything else is a model to compile.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hios.bounds import lower_bound
from hios.costs.protocol import Costs
from hios.costs.table import TableCosts
from hios.defaults import DEFAULT_SCHEDULER
from hios.errors import InvalidOption
from hios.graph_file import read_graph_file
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId
from hios.ir.machine import Machine
from hios.ir.presets import abstract_machine
from hios.ir.schedule import Schedule
from hios.ir.serial import read_bytes, write_bytes
from hios.ir.validation import validate_schedule
from hios.schedulers import get_scheduler
from hios.schedulers import schedule as run_scheduler
from hios.simulator import complete_links, simulate
from hios_tvm.cli.options import (
    MachineChoice,
    ModelChoice,
    OutputChoice,
    SchedulerChoice,
    parse_devices,
    parse_settings,
    parse_shapes,
)
from hios_tvm.cli.terminal import progress_bar
from hios_tvm.machines import resolve_machine
from hios_tvm.report.summary import ScheduleSummary

if TYPE_CHECKING:
    from hios.ir.kernels import CompiledGraph
    from hios_tvm.caching import CacheChoice
    from hios_tvm.costing import KnownCosts
    from hios_tvm.model import Model

__all__ = [
    "Problem",
    "cost_kind",
    "decide",
    "measured_costs",
    "open_model",
    "read_problem",
    "summarise",
]

_GRAPH_FILE_DEVICES = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """What a scheduler is asked; `schedule` is the one that an artifact came with."""

    graph: OpGraph
    machine: Machine
    costs: Costs
    schedule: Schedule | None = None


@dataclass(frozen=True, slots=True)
class _Kernels:
    """A model that is compiled, the devices and target for it, and the schedule it came with."""

    compiled: "CompiledGraph"
    machine: Machine
    schedule: Schedule | None
    target: Any = None


def read_problem(
    source: str,
    machine: MachineChoice,
    model: ModelChoice,
    deciding: SchedulerChoice,
    output: OutputChoice,
) -> Problem:
    """Read a graph file, compile a model or open an artifact, and get its costs.

    Raises
    ------
    HiosError
        When the source, the machine or the costs are wrong.
    """
    if deciding.merge:
        raise InvalidOption(
            "--merge compiles the model again and needs a verb that runs it: compile, run, "
            "bench or trace"
        )
    if source.endswith(".json"):
        if model.shapes or model.target is not None or model.allow_tf32:
            raise InvalidOption(
                f"--shapes, --target and --allow-tf32 are for models; {source!r} is a graph file, "
                "which has no kernels"
            )
        if deciding.cost_model is not None:
            raise InvalidOption(
                f"--model is for models; {source!r} is a graph file, which brings its own times"
            )
        return _graph_file_problem(source, machine, deciding.costs)
    kernels = _load_kernels(source, machine, model, output)
    place, costs = measured_costs(kernels.compiled, kernels.machine, deciding, output, model.cache)
    return Problem(kernels.compiled.graph, place, costs, kernels.schedule)


def decide(problem: Problem, choice: SchedulerChoice, output: OutputChoice) -> ScheduleSummary:
    """Decide (or load) a schedule, save it if asked to, and predict its timeline.

    Raises
    ------
    HiosError
        When the scheduler is unknown, an option is not its own, or a loaded schedule does not
        fit.
    """
    graph, machine, costs = problem.graph, problem.machine, problem.costs
    seconds = 0.0
    if choice.load_schedule is not None:
        _refuse_both(choice)
        schedule = _load_schedule(choice.load_schedule, graph, machine)
    elif problem.schedule is not None and choice.scheduler is None:
        schedule = problem.schedule
    else:
        name = choice.scheduler or DEFAULT_SCHEDULER
        options = parse_settings(choice)
        with progress_bar("decide", output.quiet or output.json) as progress:
            if get_scheduler(name).has_option("progress"):
                options["progress"] = progress
            started = time.perf_counter()
            schedule = run_scheduler(name, graph, machine, costs, **options)
        seconds = time.perf_counter() - started
    if not schedule.links:
        schedule = complete_links(graph, machine, costs, schedule)
    if choice.save_schedule is not None:
        write_bytes(choice.save_schedule, schedule.to_json())
    return summarise(graph, machine, costs, schedule, seconds)


def summarise(
    graph: OpGraph, machine: Machine, costs: Costs, schedule: Schedule, seconds: float = 0.0
) -> ScheduleSummary:
    """Predict a schedule's timeline and put its figures together."""
    return ScheduleSummary(
        graph=graph,
        machine=machine,
        schedule=schedule,
        timeline=simulate(graph, machine, costs, schedule),
        sequential_us=sum(costs.operator_us(op.id, DeviceId(0)) for op in graph.operators),
        lower_bound_us=lower_bound(graph, machine, costs),
        seconds=seconds,
    )


def open_model(
    source: str,
    machine: MachineChoice,
    model: ModelChoice,
    deciding: SchedulerChoice,
    output: OutputChoice,
    *,
    select: bool = True,
) -> "Model":
    """Open an artifact, or compile a model and decide, ready to run.

    An artifact keeps its schedule unless a scheduler, costs or a schedule are given; nothing
    is measured then, and its costs are unknown.

    Raises
    ------
    HiosError
        When the source, the machine or an option is wrong.
    """
    from hios_tvm.deciding import decide as decide_model
    from hios_tvm.merging import merge_by_cost, wants_merges
    from hios_tvm.model import Model

    if source.endswith(".json"):
        raise InvalidOption(
            f"{source!r} is a graph file and has no kernels to run; give a model or an artifact, "
            "or use `hios simulate`"
        )
    kernels = _load_kernels(source, machine, model, output)
    if deciding.load_schedule is not None:
        _refuse_both(deciding)
        schedule = _load_schedule(deciding.load_schedule, kernels.compiled.graph, kernels.machine)
        opened = Model(kernels.compiled, kernels.machine, schedule)
    elif kernels.schedule is not None and not _decides_anew(deciding):
        opened = Model(kernels.compiled, kernels.machine, kernels.schedule)
    else:
        known = _known_costs(kernels.compiled, kernels.machine, deciding, output, model.cache)
        scheduler = deciding.scheduler or DEFAULT_SCHEDULER
        options = parse_settings(deciding)
        merged = None
        again = source if kernels.schedule is None else kernels.compiled
        if wants_merges(deciding.merge, scheduler, again, known):
            with progress_bar("merge", output.quiet or output.json) as progress:
                merged = merge_by_cost(
                    again,
                    kernels.compiled,
                    known,
                    target=kernels.target,
                    shapes=parse_shapes(model.shapes),
                    seed=model.seed,
                    scheduler=scheduler,
                    options=options,
                    cache=model.cache,
                    database=model.database,
                    progress=progress,
                )
        with progress_bar("decide", output.quiet or output.json) as progress:
            opened = decide_model(
                kernels.compiled,
                known.machine,
                known.costs,
                scheduler=scheduler,
                options=options,
                select=select,
                merged=merged,
                progress=progress,
                cache=model.cache,
            )
    if deciding.save_schedule is not None:
        write_bytes(deciding.save_schedule, opened.schedule.to_json())
    return opened


def measured_costs(
    compiled: "CompiledGraph",
    machine: Machine,
    deciding: SchedulerChoice,
    output: OutputChoice,
    cache: "CacheChoice" = None,
) -> tuple[Machine, Costs]:
    """Return the costs that ``--costs`` names, and the machine with the links they used.

    By default they are measured where the devices are on this host, else estimated.

    Raises
    ------
    HiosError
        When they are unknown or cannot be measured.
    """
    known = _known_costs(compiled, machine, deciding, output, cache)
    return known.machine, known.costs


def cost_kind(machine: Machine, deciding: SchedulerChoice) -> str:
    """Return what ``--costs`` stands for: measured on devices of this host, else estimated."""
    from hios_tvm.costing import is_here

    if deciding.costs is None and deciding.cost_model is not None:
        return "learned"
    return deciding.costs or ("profile" if is_here(machine) else "analytic")


def _known_costs(
    compiled: "CompiledGraph",
    machine: Machine,
    deciding: SchedulerChoice,
    output: OutputChoice,
    cache: "CacheChoice",
) -> "KnownCosts":
    from hios_tvm.costing import resolve_costs

    kind = cost_kind(machine, deciding)
    with progress_bar("measure", output.quiet or output.json) as progress:
        return resolve_costs(
            kind,
            compiled,
            machine,
            cost_model=deciding.cost_model,
            cache=cache,
            progress=progress,
        )


def _load_kernels(
    source: str, machine: MachineChoice, model: ModelChoice, output: OutputChoice
) -> _Kernels:
    chosen = (machine.devices, machine.machine, machine.streams)
    if source.rstrip("/").endswith(".hios") or Path(source).is_dir():
        from graph_executor.artifact import load_artifact

        artifact = load_artifact(source)
        place = artifact.machine
        if chosen != (None, None, None):
            place = resolve_machine(parse_devices(machine), machine.machine, machine.streams)
            validate_schedule(artifact.compiled.graph, place, artifact.schedule)
        return _Kernels(artifact.compiled, place, artifact.schedule)
    from hios_tvm.sources import choose_target, compile_model

    place = resolve_machine(parse_devices(machine), machine.machine, machine.streams, model.target)
    target = choose_target(model.target, place, model.allow_tf32)
    shapes = parse_shapes(model.shapes)
    with progress_bar("compile", output.quiet or output.json) as progress:
        compiled = compile_model(
            source,
            target,
            machine=place,
            shapes=shapes,
            seed=model.seed,
            cache=model.cache,
            database=model.database,
            progress=progress,
        )
    return _Kernels(compiled, place, None, target)


def _decides_anew(choice: SchedulerChoice) -> bool:
    return any(given is not None for given in (choice.scheduler, choice.costs, choice.cost_model))


def _refuse_both(choice: SchedulerChoice) -> None:
    if choice.scheduler is not None:
        raise InvalidOption(
            f"--scheduler {choice.scheduler} beside --load-schedule: give one of them"
        )


def _load_schedule(path: Path, graph: OpGraph, machine: Machine) -> Schedule:
    schedule = Schedule.from_json(read_bytes(path), what=str(path))
    validate_schedule(graph, machine, schedule)
    return schedule


def _graph_file_problem(source: str, choice: MachineChoice, costs: str | None) -> Problem:
    file = read_graph_file(source)
    devices = parse_devices(choice)
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
