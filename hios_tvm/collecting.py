"""From names of models and devices to a file of measured groups."""

import hashlib
import itertools
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from cost_model.candidates import (
    Chains,
    Identity,
    Uncertainty,
    candidate_groups,
    identity_of,
    most_uncertain,
    take_turns,
)
from cost_model.collect import Collected, CollectOptions, collect
from cost_model.known_groups import KnownGroups
from cost_model.lane import Job, Lane
from cost_model.noise import Noise, noise_floor
from cost_model.repeats import repeat_some
from cost_model.store import RecordFile, RecordStore, read_records
from graph_executor.measure_service import MeasureService
from hios.errors import InvalidOption
from hios.ir.graph import OpGraph
from hios.ir.ids import DeviceId
from hios.ir.kernels import CompiledGraph
from hios.ir.machine import Device, Machine
from hios.ir.schedule import Placement, Schedule
from hios.ir.serial import read_bytes
from hios_tvm.sources import Progress, compile_model

__all__ = ["CollectResult", "ModelShelf", "collect_groups", "measured_devices", "parse_models"]

_POOL = 20
"""Candidates that a model looks at for each group that it may choose."""


def parse_models(text: str) -> tuple[str, ...]:
    """Split ``zoo:squeezenet@224,light:inception_v1,x.onnx``.

    Raises
    ------
    InvalidOption
        When there is no name, or one is given twice.

    Examples
    --------
    >>> parse_models("zoo:squeezenet@224, a.onnx")
    ('zoo:squeezenet@224', 'a.onnx')
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise InvalidOption("--models names none; give for example zoo:squeezenet@224")
    for name in names:
        if names.count(name) > 1:
            raise InvalidOption(f"--models names {name!r} twice")
    return names


def measured_devices(machine: Machine) -> tuple[Device, ...]:
    """Return one device of each kind and size: equal devices take equal times."""
    found: dict[tuple[str, str, int], Device] = {}
    for device in machine.devices:
        found.setdefault((device.kind, device.hardware or "", len(device.cores)), device)
    return tuple(found.values())


class ModelShelf:
    """Compiled models as artifacts in a folder, each made when first asked for.

    Parameters
    ----------
    models
        As on the command line; an artifact (``NAME.hios``) is taken as it is.
    target
        To compile for.
    device
        That groups are measured on.
    folder
        Where artifacts are kept for the next time; None: only as long as the shelf is open.
    seed
        Of weights drawn anew.
    progress
        Told what is compiled.
    compiled
        Returns the kernels of a model where they are compiled already; None: they are not.
    """

    def __init__(
        self,
        models: Sequence[str],
        target: str | None,
        device: Device,
        folder: Path | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        compiled: Callable[[str], CompiledGraph] | None = None,
    ) -> None:
        self.models = tuple(models)
        self._target = target
        self._machine = Machine("collect", (device,))
        self._seed = seed
        self._progress = progress
        self._compiled = compiled
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="hios-collect-")
            folder = Path(self._temporary.name)
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._graphs: dict[int, OpGraph] = {}

    def artifact(self, model: int) -> Path:
        """Return the artifact of a model, by its number."""
        name = self.models[model]
        if name.rstrip("/").endswith(".hios") or Path(name).is_dir():
            return Path(name)
        told = f"{name} {self._target} {self._seed}"
        digest = hashlib.sha256(told.encode()).hexdigest()[:8]
        stem = name.rpartition("/")[2].replace(":", "_").replace("@", "_")
        path = self._folder / f"{stem}-{digest}.hios"
        if not path.exists():
            self._compile(model, path)
        return path

    def graph(self, model: int) -> OpGraph:
        """Return the operators of a model."""
        if model not in self._graphs:
            path = self.artifact(model) / "graph.json"
            self._graphs[model] = OpGraph.from_json(read_bytes(path), str(path))
        return self._graphs[model]

    def graphs(self) -> list[OpGraph]:
        """Return the operators of all models; compiles those that are not yet."""
        return [self.graph(model) for model in range(len(self.models))]

    def _compile(self, model: int, path: Path) -> None:
        from graph_executor.artifact import save_artifact

        name = self.models[model]
        count = len(self.models)
        tell: Progress | None = None
        if self._progress is not None:
            report = self._progress

            def tell(phase: str, fraction: float) -> None:
                report(f"compile {name}: {phase}", (model + fraction) / count)

        if self._compiled is not None:
            compiled = self._compiled(name)
        else:
            compiled = compile_model(
                name, self._target, machine=self._machine, seed=self._seed, progress=tell
            )
        order = compiled.graph.topological_order()
        schedule = Schedule("sequential", tuple(Placement(op, DeviceId(0)) for op in order))
        save_artifact(path, compiled, self._machine, schedule)

    def uncertainty(self, path: Path, device: Device) -> Callable[[int], Uncertainty]:
        """Return, for the number of a model, how unsure a cost model is about groups of it.

        Every operator is measured alone first, or its time is read from the cache.

        Parameters
        ----------
        path
            Of the cost model.
        device
            That groups are measured on.

        Raises
        ------
        HiosError
            When the model cannot be read or is for something else.
        """
        from cost_model.learned import LearnedCosts
        from cost_model.model_file import load_model
        from graph_executor.artifact import load_artifact
        from graph_executor.host import cpu_name
        from graph_executor.measure import measure_costs

        learned = load_model(path)

        def of_model(number: int) -> Uncertainty:
            compiled = load_artifact(self.artifact(number)).compiled
            measured = measure_costs(compiled, self._machine)
            costs = LearnedCosts(measured.costs, learned, [cpu_name()], compiled.library.target)

            def widths(groups: Sequence[Chains]) -> list[float]:
                ranges = [costs.interval(chains, DeviceId(0)) for chains in groups]
                return [math.log(found.high_us / found.low_us) for found in ranges]

            return widths

        return of_model

    def close(self) -> None:
        """Remove what is not to be kept; may be called twice."""
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class CollectResult:
    """What a collection brought.

    Attributes
    ----------
    collected
        Counts of this time.
    repeated
        Groups measured again in another process this time.
    noise
        Of the whole file; None where nothing was repeated.
    damage
        One line about damaged lines that the file had; empty for none.
    file
        The whole file as it is now.
    """

    collected: Collected
    repeated: int
    noise: Noise | None
    damage: str
    file: RecordFile


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be collected.

    Attributes
    ----------
    out
        The file.
    options
        How much.
    seed
        Of the choice of groups.
    tracker, key
        Of servers to measure on; None: on this machine.
    is_repeated
        Whether some groups are measured again in another process.
    visits
        How often each group is measured: once all are, they are measured again.
    """

    out: Path
    options: CollectOptions = field(default_factory=CollectOptions)
    seed: int = 0
    tracker: tuple[str, int] | None = None
    key: str = "hios"
    is_repeated: bool = True
    visits: int = 1


def collect_groups(
    shelf: ModelShelf,
    device: Device,
    wanted: Wanted,
    uncertainty: Callable[[int], Uncertainty] | None = None,
    progress: Progress | None = None,
) -> CollectResult:
    """Measure groups of the models of a shelf and write them to a file.

    Parameters
    ----------
    shelf
        The models.
    device
        Where groups are measured, when no tracker is named.
    wanted
        See `Wanted`.
    uncertainty
        For the number of a model, how unsure a cost model is about groups of it; the least sure
        ones are measured first. None: those that schedulers are likely to form.
    progress
        Told what is being done.

    Raises
    ------
    HiosError
        When a model, the device, a server or the file cannot be used.
    """
    with RecordStore(wanted.out) as store:
        graphs = shelf.graphs()
        with ExitStack() as stack:
            lanes, again = _lanes(shelf, device, wanted, stack)
            rounds: list[Collected] = []
            left: CollectOptions | None = wanted.options
            while left is not None and len(rounds) < wanted.visits:
                visit = len(rounds) + 1
                made = collect(
                    graphs,
                    shelf.models,
                    _jobs(graphs, wanted, uncertainty),
                    lanes,
                    store,
                    left,
                    _of_visit(progress, visit, wanted.visits),
                    KnownGroups(read_records(wanted.out).records, visit),
                )
                rounds.append(made)
                left = _left(wanted.options, sum(each.seconds for each in rounds))
                if not made.is_complete:
                    break
            repeated = 0
            if wanted.is_repeated and left is not None:
                records = read_records(wanted.out).records
                repeated = repeat_some(
                    graphs, shelf.models, records, again(), store, left, progress
                )
        damage = store.found.report()
    file = read_records(wanted.out)
    return CollectResult(_together(rounds), repeated, noise_floor(file.records), damage, file)


def _of_visit(progress: Progress | None, visit: int, visits: int) -> Progress | None:
    if progress is None or visits == 1:
        return progress
    return lambda text, done: progress(f"visit {visit} of {visits}: {text}", done)


def _together(rounds: Sequence[Collected]) -> Collected:
    """Return the counts of all visits; known are the groups that the file had before the first."""
    reasons: Counter[str] = Counter()
    for made in rounds:
        reasons.update(made.reasons)
    return Collected(
        sum(made.valid for made in rounds),
        sum(made.rejected for made in rounds),
        max(made.left_out for made in rounds),
        rounds[0].known,
        sum(made.seconds for made in rounds),
        rounds[-1].is_complete,
        dict(sorted(reasons.items())),
    )


def _jobs(
    graphs: Sequence[OpGraph],
    wanted: Wanted,
    uncertainty: Callable[[int], Uncertainty] | None,
) -> Iterator[Job]:
    def offers(number: int) -> Iterator[Chains]:
        groups = candidate_groups(graphs[number], wanted.seed)
        if uncertainty is None:
            return groups
        share = -(-wanted.options.groups // len(graphs))
        chosen = most_uncertain(groups, uncertainty(number), share * _POOL, share * 2)
        return itertools.chain(chosen, groups)

    def named(number: int) -> Iterator[tuple[Identity, Chains]]:
        return ((identity_of(graphs[number], chains), chains) for chains in offers(number))

    turns = take_turns([named(number) for number in range(len(graphs))])
    return (Job(number, chains) for number, chains in turns)


def _lanes(
    shelf: ModelShelf, device: Device, wanted: Wanted, stack: ExitStack
) -> tuple[list[Lane], Callable[[], Lane]]:
    """Return where to measure, and what opens another process to measure some groups again."""
    if wanted.tracker is not None:
        from graph_executor.tvm_runtime.rpc import RemoteService, count_servers

        tracker, key = wanted.tracker, wanted.key

        def remote(name: str) -> Lane:
            service = RemoteService(tracker, key)
            stack.callback(service.close)
            return Lane(name, service, shelf.artifact)

        count = max(1, count_servers(tracker, key))
        lanes = [remote(f"{key} {number}") for number in range(count)]

        def remote_again() -> Lane:
            # A session of its own is a process of its own; servers take one session at a time.
            stack.close()
            return remote(f"{key} again")

        return lanes, remote_again
    service = MeasureService(device)
    stack.callback(service.close)

    def again() -> Lane:
        from graph_executor.second_process import SecondProcess

        second = SecondProcess(device)
        stack.callback(second.close)
        return Lane("another process", second, shelf.artifact)

    return [Lane(device.name, service, shelf.artifact)], again


def _left(options: CollectOptions, seconds: float) -> CollectOptions | None:
    """Return the options for what may still be measured; None when no time is left."""
    if options.budget_s is None:
        return options
    left = options.budget_s - seconds
    # A twentieth is measured again, so a twentieth of the time is fair even when all is spent.
    return replace(options, budget_s=max(left, options.budget_s / 20))
