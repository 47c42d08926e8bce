"""`optimize` and `dump_results`: the two calls with which HIOS users study a network.

`optimize` compiles a network, measures its operators, and decides twice: with the first step
of the algorithm alone (which device) and with both (stages on each device too). Both schedules
go to the working folder under the names that HIOS gives them, and the compiled network beside
them. `dump_results` runs both, writes their latencies, and moves everything to ``outputs``.

Both need the same network name, size, algorithm, batch and device label: these make the names.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from hios.errors import InvalidOption, MissingFile, StorageError
from hios.ir.schedule import Schedule
from hios.ir.serial import read_bytes, write_bytes
from hios.schedulers import get_scheduler, list_schedulers, schedule
from hios_tvm.models.graph import Graph
from hios_tvm.models.node_options import is_count

__all__ = ["GPU_LABELS", "StudyResult", "dump_results", "optimize"]

GPU_LABELS = ("cuda", "A40", "A5500", "v100", "titanxp", "2080ti", "k80", "H200")
"""What `device` may be besides ``cpu``; all run on this host's CUDA devices."""

OUTPUTS = Path("outputs")

# HIOS gathers at most two operators, on two streams of each GPU.
_STREAMS = 2


@dataclass(frozen=True, slots=True)
class StudyResult:
    """Measured latencies of one network.

    Attributes
    ----------
    inter_ms
        Mean latency with operators spread over devices only, or None where the algorithm has no
        such step of its own.
    both_ms
        Mean latency with stages on each device too.
    optimization_s
        As handed in.
    path
        The result file.
    """

    inter_ms: float | None
    both_ms: float
    optimization_s: float
    path: Path


@dataclass(frozen=True, slots=True)
class _Study:
    """What names the files of one study."""

    device: str
    opt_type: str
    name: str
    batch_size: int
    height: int
    width: int

    def path(self, kind: str) -> Path:
        size = f"{self.batch_size}_{self.height}_{self.width}"
        return Path(f"{self.device}_{self.opt_type}_{self.name}_{kind}_{size}")

    @property
    def inter(self) -> Path:
        """Schedule without parallelism inside of a device."""
        return self.path("nonpar")

    @property
    def both(self) -> Path:
        """Schedule with it."""
        return self.path("par")

    @property
    def artifact(self) -> Path:
        """The compiled network."""
        return self.both.with_name(f"{self.both.name}.hios")


def optimize(
    height: int,
    width: int,
    graph: Graph,
    opt_type: str,
    batch_size: int = 1,
    warmup: int = 2,
    number: int = 6,
    repeat: int = 6,
    ngpu: int = 2,
    device: str = "cpu",
) -> Graph:
    """Compile a network, decide where each operator runs, and write both schedules.

    Parameters
    ----------
    height, width : int
        Size of the image, which the network must take.
    graph : Graph
        The network.
    opt_type : str
        ``hios_lp``, ``hios_mr`` or any other scheduler, with ``_`` or ``-``.
    batch_size : int
        Images in one run.
    warmup, number, repeat : int
        Operators are measured in ``number * repeat`` runs of the network after `warmup` others,
        unless they were measured before on this machine.
    ngpu : int
        Number of devices.
    device : str
        ``cpu`` for shares of this host's cores, or one of `GPU_LABELS`.

    Returns
    -------
    Graph
        The network as it was given.

    Raises
    ------
    InvalidOption
        When a number is out of range, the device is unknown or the size is not the network's.
    UnknownScheduler
        When there is no such scheduler.
    HiosError
        Whatever compiling and measuring may raise.

    Notes
    -----
    Writes ``DEVICE_OPT_NAME_nonpar_B_H_W`` and ``…_par_…`` (schedules as JSON) and
    ``…_par_….hios`` (the compiled network) to the working folder. The first of them only where
    the algorithm has a first step of its own, as ``hios_lp`` and ``hios_mr`` have.
    """
    scheduler = opt_type.replace("_", "-")
    get_scheduler(scheduler)
    _check_counts(batch_size=batch_size, number=number, repeat=repeat, ngpu=ngpu)
    _check_counts(0, warmup=warmup)
    if (height, width) != graph.input_shape[1:]:
        raise InvalidOption(
            f"optimize for {height}×{width}, but network {graph.name!r} takes images of "
            f"{graph.input_shape[1]}×{graph.input_shape[2]}; give its own size"
        )
    target, devices = _devices(device, ngpu)
    study = _Study(device, opt_type, graph.name, batch_size, height, width)

    # Only who optimises waits for TVM.
    from graph_executor.measure import MeasureOptions, measure_costs
    from hios_tvm.machines import resolve_machine
    from hios_tvm.model import Model
    from hios_tvm.sources import compile_model

    compiled = compile_model(graph.to_onnx(batch_size), target)
    known = measure_costs(
        compiled,
        resolve_machine(devices, streams=_STREAMS),
        MeasureOptions(runs=number * repeat, warmup=warmup),
    )
    if f"{scheduler}-inter" in list_schedulers():
        first = schedule(f"{scheduler}-inter", compiled.graph, known.machine, known.costs)
        write_bytes(study.inter, first.to_json())
    both = schedule(scheduler, compiled.graph, known.machine, known.costs)
    write_bytes(study.both, both.to_json())
    Model(compiled, known.machine, both, known.costs).save(study.artifact)
    return graph


def dump_results(
    name: str,
    height: int,
    width: int,
    opt_cost: float,
    opt_type: str,
    batch_size: int = 1,
    warmup: int = 2,
    number: int = 6,
    repeat: int = 6,
    ngpu: int = 2,
    device: str = "cpu",
) -> StudyResult:
    """Measure what `optimize` wrote, and write and print the result file.

    Parameters
    ----------
    name : str
        Name of the network.
    height, width, opt_type, batch_size, ngpu, device
        As handed to `optimize`.
    opt_cost : float
        Seconds that the optimisation took; goes into the file.
    warmup : int
        Runs before those that are timed.
    number, repeat : int
        ``repeat`` times ``number`` runs are timed; the mean is reported.

    Returns
    -------
    StudyResult
        The latencies in milliseconds and the path of the file.

    Raises
    ------
    MissingFile
        When `optimize` was not called with the same arguments in this folder.
    InvalidOption
        When a number is out of range, or `ngpu` is not that of `optimize`.
    StorageError
        When something cannot be written.

    Notes
    -----
    Afterwards schedules, compiled network and results are in the folder ``outputs``; calling
    again measures them again there.
    """
    _check_counts(batch_size=batch_size, number=number, repeat=repeat, ngpu=ngpu)
    _check_counts(0, warmup=warmup)
    _devices(device, ngpu)
    study = _Study(device, opt_type, name, batch_size, height, width)
    folder = Path() if study.artifact.exists() else OUTPUTS
    if not (folder / study.artifact).exists():
        raise MissingFile(
            f"there is no {study.artifact} here or in {OUTPUTS}; call optimize() for network "
            f"{name!r} with the same size, algorithm, batch and device first"
        )

    from hios_tvm.api import load
    from hios_tvm.model import Model

    def latency_ms(file: Path) -> float:
        decided = Schedule.from_json(read_bytes(folder / file), what=str(file))
        with Model(saved.compiled, saved.machine, decided) as model:
            return model.benchmark(number * repeat, warmup).mean_us / 1e3

    with load(folder / study.artifact) as saved:
        if len(saved.machine.devices) != ngpu:
            raise InvalidOption(
                f"{study.artifact} is for {len(saved.machine.devices)} devices, not {ngpu}; "
                "give the ngpu that optimize() was called with"
            )
        inter_ms = latency_ms(study.inter) if (folder / study.inter).exists() else None
        both_ms = latency_ms(study.both)
    lines = ["With Intra Operator latency:", str(both_ms), "Optimization cost:", str(opt_cost)]
    if inter_ms is not None:
        lines = ["Only Inter Operator latency:", str(inter_ms), *lines]
    text = "\n".join(lines) + "\n"
    _move_to_outputs(folder, study.inter, study.both, study.artifact)
    results = OUTPUTS / study.path("results")
    write_bytes(results, text.encode())
    print(text, end="")
    return StudyResult(inter_ms, both_ms, opt_cost, results)


def _devices(device: str, ngpu: int) -> tuple[str, list[str]]:
    """Return the TVM target and the names of the devices that a label stands for."""
    kind = "cpu" if device == "cpu" else "cuda"
    if kind == "cuda" and device.lower() not in [label.lower() for label in GPU_LABELS]:
        raise InvalidOption(
            f"unknown device {device!r}; it must be cpu or one of {', '.join(GPU_LABELS)}"
        )
    target = "llvm" if kind == "cpu" else "cuda"
    return target, [f"{kind}:{index}" for index in range(ngpu)]


def _check_counts(least: int = 1, **counts: int) -> None:
    for what, value in counts.items():
        if not is_count(value, least):
            raise InvalidOption(f"{what} is {value!r}; it must be an integer of at least {least}")


def _move_to_outputs(folder: Path, *files: Path) -> None:
    if folder == OUTPUTS:
        return
    try:
        OUTPUTS.mkdir(exist_ok=True)
        for file in files:
            target = OUTPUTS / file
            if target.is_dir():
                shutil.rmtree(target)
            if (folder / file).exists():
                shutil.move(folder / file, target)
    except OSError as problem:
        raise StorageError(
            f"cannot move results to {OUTPUTS}: {problem.strerror or problem}; check the folder"
        ) from problem
