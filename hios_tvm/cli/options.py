"""Options that several verbs share, each group packed into one small value.

`@machine_options` above a verb adds ``--devices``, ``--machine`` and ``--streams`` and hands
them over as one argument ``machine``; the other groups work alike. Only what is said on the
command line stands here; `hios_tvm.cli.problem` makes graphs and machines of it.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hios.defaults import DEFAULT_SCHEDULER
from hios.errors import InvalidOption
from hios_tvm.cli.complete import complete_costs, complete_schedulers

if TYPE_CHECKING:
    from hios_tvm.caching import CacheChoice

__all__ = [
    "MachineChoice",
    "ModelChoice",
    "OutputChoice",
    "SchedulerChoice",
    "machine_options",
    "model_options",
    "output_options",
    "parse_devices",
    "parse_duration",
    "parse_settings",
    "parse_shapes",
    "parse_tracker",
    "scheduler_options",
]

Verb = TypeVar("Verb", bound=Callable[..., Any])

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_LONGEST_S = 1e9


@dataclass(frozen=True, slots=True)
class MachineChoice:
    """Where to run: a count or list of devices, a preset or description, streams per device."""

    devices: str | None
    machine: str | None
    streams: int | None


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """How to read and compile a model; `shapes` as written, see `parse_shapes`.

    Both `cache_dir` and `no_cache` are as given; `cache` is what they mean.
    """

    shapes: tuple[str, ...]
    target: str | None
    allow_tf32: bool
    seed: int
    database: Path | None
    cache_dir: Path | None
    no_cache: bool

    @property
    def cache(self) -> "CacheChoice":
        """Where kernels, builds and measured times are kept.

        Raises
        ------
        InvalidOption
            When a folder is given, and none wanted.
        """
        if self.no_cache and self.cache_dir is not None:
            raise InvalidOption(f"--cache {self.cache_dir} beside --no-cache: give one of them")
        return False if self.no_cache else self.cache_dir


@dataclass(frozen=True, slots=True)
class SchedulerChoice:
    """How to decide: the algorithm and its options, its costs, or a schedule decided before.

    `cost_model` is the file of a learned model.
    `merge` asks for merged convolutions; None leaves it to the scheduler.
    """

    scheduler: str | None
    window: int | None
    budget: float | None
    option: tuple[str, ...]
    costs: str | None
    cost_model: Path | None
    merge: bool | None
    load_schedule: Path | None
    save_schedule: Path | None


@dataclass(frozen=True, slots=True)
class OutputChoice:
    """How to tell: one JSON object instead of tables, no progress."""

    json: bool
    quiet: bool


def _packed(name: str, kind: type[Any], *options: Callable[[Any], Any]) -> Callable[[Verb], Verb]:
    """Return a decorator that adds `options` and hands their values over as one `kind`."""
    names = [field.name for field in fields(kind)]

    def decorate(verb: Verb) -> Verb:
        @functools.wraps(verb)
        def pack(**values: Any) -> Any:
            values[name] = kind(**{key: values.pop(key) for key in names})
            return verb(**values)

        decorated: Any = pack
        for option in reversed(options):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


machine_options = _packed(
    "machine",
    MachineChoice,
    click.option(
        "--devices",
        metavar="N|LIST",
        help="How many devices, or which: 2, or cpu:0,cpu:1 (one core each), or cuda:0,cuda:1.",
    ),
    click.option(
        "--machine",
        metavar="PRESET|FILE",
        help="A described machine: a preset such as 2xA40-NVLink, or a JSON file.",
    ),
    click.option(
        "--streams",
        type=click.IntRange(min=1),
        help="Operators that may run at once on one device.  [default: as the machine says]",
    ),
)

model_options = _packed(
    "model",
    ModelChoice,
    click.option(
        "--shapes",
        multiple=True,
        metavar="NAME:DIMS",
        help="Shape of an input with dynamic dimensions, as data:1x3x224x224. Repeatable.",
    ),
    click.option(
        "--target",
        metavar="TARGET",
        help="Target to compile for: llvm, cuda, cuda:sm_90, or TVM's JSON.  "
        "[default: as the devices say]",
    ),
    click.option(
        "--allow-tf32",
        is_flag=True,
        help="Let a GPU's tensor cores take float32 convolutions and products, rounded to TF32.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Seed of random inputs and of weights drawn anew.",
    ),
    click.option(
        "--database",
        type=click.Path(path_type=Path),
        help="Folder of tuned kernels, from `hios tune`; each is taken where it measured faster.",
    ),
    click.option(
        "--cache",
        "cache_dir",
        type=click.Path(path_type=Path, file_okay=False),
        help="Folder where compiled kernels, whole builds and measured times are kept.  "
        "[default: the user's cache folder, see `hios doctor`]",
    ),
    click.option("--no-cache", is_flag=True, help="Compile and measure everything now."),
)

scheduler_options = _packed(
    "deciding",
    SchedulerChoice,
    click.option(
        "--scheduler",
        metavar="NAME",
        shell_complete=complete_schedulers,
        help="The algorithm that decides; `hios schedule --list` names them all.  "
        f"[default: {DEFAULT_SCHEDULER}]",
    ),
    click.option(
        "--window",
        type=click.IntRange(min=1),
        help="Operators that a sliding window looks at (schedulers that have one).",
    ),
    click.option(
        "--budget",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="Let the scheduler search for up to this long (schedulers that search).",
    ),
    click.option(
        "--option",
        multiple=True,
        metavar="NAME=VALUE",
        help="Any other option of the scheduler, as seed=1; `hios schedule --list --json` names "
        "them. Repeatable.",
    ),
    click.option(
        "--costs",
        metavar="KIND|FILE",
        shell_complete=complete_costs,
        help="Where times come from: profile (measure here), learned (measure operators alone, "
        "predict the rest), analytic (estimate), or a JSON file.  [default: profile on this host, "
        "analytic for --machine; learned with --model]",
    ),
    click.option(
        "--model",
        "cost_model",
        type=click.Path(path_type=Path),
        metavar="FILE.ubj",
        help="The learned cost model, as `hios train` writes it.  [default: the one that comes "
        "with hios-tvm for this kind of device]",
    ),
    click.option(
        "--merge/--no-merge",
        default=None,
        help="Merge convolutions of one input where it pays (verbs that run a model).  "
        "[default: with ios only]",
    ),
    click.option(
        "--load-schedule",
        type=click.Path(path_type=Path),
        help="Take this schedule instead of deciding.",
    ),
    click.option(
        "--save-schedule",
        type=click.Path(path_type=Path),
        help="Write the schedule as JSON.",
    ),
)

output_options = _packed(
    "output",
    OutputChoice,
    click.option("--json", is_flag=True, help="Print one JSON object instead of tables."),
    click.option("--quiet", is_flag=True, help="No progress on standard error."),
)


def parse_devices(choice: MachineChoice) -> int | str | None:
    """Return ``--devices`` as a count, a list of names, or None.

    Raises
    ------
    InvalidOption
        When the count is beyond what is supported.
    """
    from hios.ir.presets import MAX_DEVICES

    text = choice.devices
    if text is None or not (text.isascii() and text.isdigit()):
        return text
    if len(text) > 4 or int(text) > MAX_DEVICES:
        raise InvalidOption(f"--devices {text}: at most {MAX_DEVICES} are supported")
    return int(text)


def parse_shapes(texts: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Parse ``name:1x3x224x224``.

    Parameters
    ----------
    texts
        One per input. The name may hold colons itself; a scalar is ``name:``.

    Returns
    -------
    dict
        Shape by input name.

    Raises
    ------
    InvalidOption
        On a malformed text, an extent below 1, or a name given twice.

    Examples
    --------
    >>> parse_shapes(("data:1x3x224x224", "mask:8"))
    {'data': (1, 3, 224, 224), 'mask': (8,)}
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, colon, extents = text.rpartition(":")
        numbers = extents.split("x") if extents else []
        if not colon or not name or not all(n.isascii() and n.isdigit() for n in numbers):
            raise InvalidOption(f"--shapes {text!r} is not NAME:DIMS, for example x:1x3x224x224")
        shape = tuple(int(n) for n in numbers)
        if min(shape, default=1) < 1:
            raise InvalidOption(f"--shapes {text!r} has an extent of 0; every extent must be ≥ 1")
        if name in shapes:
            raise InvalidOption(f"--shapes gives input {name!r} twice")
        shapes[name] = shape
    return shapes


def parse_duration(text: str, option: str = "--budget") -> float:
    """Return the seconds of ``90``, ``90s``, ``10m`` (or ``10min``) or ``1.5h``.

    Raises
    ------
    InvalidOption
        When it is none of these, or not above 0.

    Examples
    --------
    >>> parse_duration("90"), parse_duration("10m"), parse_duration("1.5h")
    (90.0, 600.0, 5400.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|min|h|)", text)
    seconds = 0.0 if found is None else float(found[1]) * _SECONDS[found[2]]
    if not 0.0 < seconds < _LONGEST_S:
        raise InvalidOption(f"{option} {text!r} is no duration; use 90s, 10m or 2h")
    return seconds


def parse_tracker(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``.

    Raises
    ------
    InvalidOption
        When it is not of that form.

    Examples
    --------
    >>> parse_tracker("127.0.0.1:9190")
    ('127.0.0.1', 9190)
    """
    host, colon, port = text.rpartition(":")
    is_number = port.isascii() and port.isdigit()
    if not colon or not host or not is_number or not 0 < int(port) < 65536:
        raise InvalidOption(f"--tracker {text!r} is not HOST:PORT, for example 10.0.0.7:9190")
    return host, int(port)


def parse_settings(choice: SchedulerChoice) -> dict[str, object]:
    """Return the scheduler's options by name: ``--window``, ``--budget`` and each ``--option``.

    A value is a number, ``true``, ``false`` or ``none`` where it reads like one, else text.

    Raises
    ------
    InvalidOption
        When a text is not NAME=VALUE, or an option is given twice.
    """
    settings: dict[str, object] = {}
    if choice.window is not None:
        settings["window"] = choice.window
    if choice.budget is not None:
        settings["budget"] = choice.budget
    for text in choice.option:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise InvalidOption(f"--option {text!r} is not NAME=VALUE, for example seed=1")
        if name in settings:
            raise InvalidOption(f"option {name!r} of the scheduler is given twice")
        settings[name] = _value(value)
    return settings


def _value(text: str) -> object:
    words: dict[str, object] = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
