"""The product in four calls: `build`, `load`, `schedule`, `pipeline`."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from hios.costs.analytic import AnalyticCosts
from hios.costs.protocol import Costs
from hios.defaults import DEFAULT_SCHEDULER
from hios.errors import InvalidOption
from hios.ir.graph import OpGraph
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.schedulers import schedule as run_scheduler
from hios_tvm.caching import CacheChoice
from hios_tvm.costing import resolve_costs
from hios_tvm.deciding import decide
from hios_tvm.machines import resolve_machine
from hios_tvm.merging import merge_by_cost, wants_merges
from hios_tvm.model import Model
from hios_tvm.sources import Progress, choose_target, compile_model

__all__ = ["build", "load", "pipeline", "register_pipeline", "schedule"]


def build(
    model: Any,
    target: Any = None,
    devices: int | str | Sequence[str] | None = None,
    *,
    machine: Machine | str | None = None,
    streams: int | None = None,
    scheduler: str = DEFAULT_SCHEDULER,
    options: Mapping[str, object] | None = None,
    costs: str | PathLike[str] | Costs = "profile",
    cost_model: str | PathLike[str] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    select: bool = True,
    merge: bool | None = None,
    cache: CacheChoice = None,
    database: str | PathLike[str] | None = None,
    allow_tf32: bool = False,
    progress: Progress | None = None,
) -> Model:
    """Compile a model, decide where and when each operator runs, and make it ready to run.

    Parameters
    ----------
    model
        Path of an ``.onnx`` or ``.pt2`` file, ``zoo:NAME`` or ``light:NAME``, an
        ``onnx.ModelProto``, a ``torch.export.ExportedProgram`` or a Relax ``IRModule``.
    target
        TVM target (text, dictionary or object), ``llvm``, ``cuda`` or ``cuda:sm_90``; None: as
        the devices say.
    devices, machine, streams
        Where operators may run, see `hios_tvm.machines.resolve_machine`; by default one
        device for each core of this host, or its first GPU for a CUDA target.
    scheduler, options
        Name and options of the algorithm.
    costs
        ``profile`` measures every distinct operator alone (cached on disk), ``learned`` does
        too and predicts what concurrent ones cost, ``analytic`` estimates; or a JSON file of
        costs, or an object.
    cost_model
        File of a trained model for ``learned``; None: the one that comes with hios-tvm for
        this kind of device.
    shapes
        Shapes of inputs with dynamic dimensions, by name.
    select
        Run the decided schedule, the sequential one, and (on a CPU) one device with all the
        cores, interleaved, and keep the fastest: never slower than TVM's own order. For
        devices that are not on this host, the simulated times decide instead.
        Without it the decided schedule stays whatever it costs.
    merge
        Merge convolutions of one input where that is predicted, and with `select` measured,
        to be faster; the numbers stay the same up to rounding. None: only with the scheduler
        ``ios``, of whose algorithm it is a part. Needs costs ``profile``, ``learned`` or
        ``analytic``.
    cache
        Folder of compiled kernels, whole builds and measured times; None: the user's cache
        folder; False: everything is compiled and measured now, and nothing kept.
    database
        Folder of tuned kernels that ``hios tune`` wrote; each is taken where it measured
        faster than the kernel of our rules.
    allow_tf32
        Let the tensor cores of a GPU (compute capability 8.0 and up) take float32 convolutions
        and matrix products, their factors rounded to ten bits of mantissa.
    progress
        Called with (what is being done, fraction done).

    Returns
    -------
    Model
        Ready to `run`, `save`, `benchmark`, `profile`.

    Raises
    ------
    HiosError
        With one line on what is wrong and the next step.
    """
    place = resolve_machine(devices, machine, streams, target)
    target = choose_target(target, place, allow_tf32)
    compiled = compile_model(
        model,
        target,
        machine=place,
        shapes=shapes,
        progress=progress,
        cache=cache,
        database=database,
    )
    known = resolve_costs(
        costs, compiled, place, cost_model=cost_model, cache=cache, progress=progress
    )
    merged = None
    if wants_merges(merge, scheduler, model, known):
        merged = merge_by_cost(
            model,
            compiled,
            known,
            target=target,
            shapes=shapes,
            scheduler=scheduler,
            options=options,
            cache=cache,
            database=database,
            progress=progress,
        )
    return decide(
        compiled,
        known.machine,
        known.costs,
        scheduler=scheduler,
        options=options or {},
        select=select,
        merged=merged,
        progress=progress,
        cache=cache,
    )


def load(
    path: str | PathLike[str],
    devices: int | str | Sequence[str] | None = None,
    *,
    machine: Machine | str | None = None,
) -> Model:
    """Open what `Model.save` wrote.

    Parameters
    ----------
    path
        The folder ``NAME.hios``.
    devices, machine
        Other devices of the same number to run on; None: those of the artifact.

    Raises
    ------
    MissingFile, ArtifactMismatch
        When it is not there, damaged, of another version, or for other devices.
    """
    from graph_executor.artifact import load_artifact

    artifact = load_artifact(Path(path))
    place = artifact.machine
    if devices is not None or machine is not None:
        place = resolve_machine(devices, machine)
    return Model(artifact.compiled, place, artifact.schedule)


def schedule(
    graph: OpGraph,
    machine: Machine,
    costs: Costs,
    scheduler: str = DEFAULT_SCHEDULER,
    **options: object,
) -> Schedule:
    """Decide where and when each operator of a graph runs; see `hios.schedulers.schedule`."""
    return run_scheduler(scheduler, graph, machine, costs, **options)


def pipeline(
    devices: int | str | Sequence[str] | None = None,
    *,
    machine: Machine | str | None = None,
    streams: int | None = None,
    scheduler: str = DEFAULT_SCHEDULER,
    options: Mapping[str, object] | None = None,
    costs: str = "analytic",
) -> Any:
    """Return a pass pipeline for ``tvm.compile(mod, target, relax_pipeline=...)``.

    The executable runs unchanged in TVM's virtual machine and carries the schedule, so that
    ``hios_tvm.GraphExecutor(executable)`` runs it on several devices and streams.

    Parameters
    ----------
    devices, machine, streams, scheduler, options
        As in `build`.
    costs
        ``analytic``; kernels cannot be measured before they are compiled.

    Raises
    ------
    InvalidOption
        For other costs.
    """
    from relay_passes.partition import relax_pipeline

    register_pipeline()
    if costs != "analytic":
        raise InvalidOption(
            f"a pipeline with costs {costs!r}: kernels cannot be measured before they are "
            "compiled; use analytic here, or hios_tvm.build for measured costs"
        )
    place = resolve_machine(devices, machine, streams)

    def decide_graph(graph: OpGraph) -> Schedule:
        estimates = AnalyticCosts(graph, place)
        return run_scheduler(scheduler, graph, place, estimates, **dict(options or {}))

    return relax_pipeline(decide_graph, place)


def register_pipeline() -> None:
    """Make `pipeline` known to TVM as ``relax.get_pipeline("hios", devices=[...])``.

    `pipeline` does it too; this is for who only wants the name.
    """
    from relay_passes.partition import register_pipeline as register

    register(pipeline, "hios")
