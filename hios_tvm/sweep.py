"""A comparison at many points: image sizes, batches, numbers of devices and streams.

A sweep can be stopped at any time: what is done is in its state file, and the same command goes
on from there. At most the point that was running is lost.
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from graph_executor.host import cpu_name
from hios.errors import InvalidOption, StorageError
from hios.ir.serial import decode_json, encode_json, read_bytes, write_bytes
from hios_tvm.comparison_result import ComparisonResult

__all__ = [
    "AXES",
    "Axis",
    "Point",
    "Setting",
    "SpecialisationRow",
    "SweepPoint",
    "SweepResult",
    "SweepState",
    "describe",
    "parse_axis",
    "points_of",
    "run_sweep",
    "setting_at",
]

AXES = ("size", "batch", "devices", "streams")

Point = tuple[tuple[str, int], ...]
"""One value for each axis, in the order of the axes."""


@dataclass(frozen=True, slots=True)
class Axis:
    """What is varied, and its values."""

    name: str
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """What is compared at a point: the model, shapes of its inputs, devices and streams."""

    source: str
    shapes: Mapping[str, tuple[int, ...]]
    devices: int | str | None
    streams: int | None


@dataclass(frozen=True, slots=True)
class SpecialisationRow:
    """A schedule that was decided for one point and ran at another.

    ``slowdown`` is its median over that of the point's own schedule (90 % interval), all run
    interleaved. Without times, ``reason`` says why it cannot run there.
    """

    decided_for: Mapping[str, int]
    run_at: Mapping[str, int]
    scheduler: str
    median_us: float | None = None
    p10_us: float | None = None
    p90_us: float | None = None
    slowdown: float | None = None
    slowdown_low: float | None = None
    slowdown_high: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """A point that is done, with the schedule decided there as JSON text ('' where none was)."""

    point: Mapping[str, int]
    result: ComparisonResult
    schedule: str = ""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """All points, in the order of the axes."""

    model: str
    axes: tuple[Axis, ...]
    points: tuple[SweepPoint, ...]
    specialisation: tuple[SpecialisationRow, ...] = ()


@dataclass(frozen=True, slots=True)
class SweepState:
    """What is on disk: whose sweep it is, and what is done."""

    of: Mapping[str, str]
    points: tuple[SweepPoint, ...] = ()
    specialisation: tuple[SpecialisationRow, ...] = field(default=())


def parse_axis(text: str) -> Axis:
    """Parse ``size=224,299``.

    Raises
    ------
    InvalidOption
        When it is not an axis and a list of positive numbers.

    Examples
    --------
    >>> parse_axis("batch=1,2,4")
    Axis(name='batch', values=(1, 2, 4))
    """
    name, _, values = text.partition("=")
    numbers = values.split(",")
    if name not in AXES or not all(n.isascii() and n.isdigit() and int(n) for n in numbers):
        raise InvalidOption(
            f"--sweep {text!r} is not AXIS=LIST, for example size=224,299; axes are "
            + ", ".join(AXES)
        )
    if len(set(numbers)) < len(numbers):
        raise InvalidOption(f"--sweep {text!r} has a value twice")
    return Axis(name, tuple(map(int, numbers)))


def points_of(axes: Sequence[Axis]) -> list[Point]:
    """Return all points, the last axis fastest.

    Raises
    ------
    InvalidOption
        When there is no axis, or one is given twice.
    """
    names = [axis.name for axis in axes]
    if not names or len(set(names)) < len(names):
        raise InvalidOption(f"a sweep over {', '.join(names) or 'nothing'}: name each axis once")
    return [
        tuple(zip(names, values, strict=True))
        for values in itertools.product(*(axis.values for axis in axes))
    ]


def setting_at(base: Setting, point: Point) -> Setting:
    """Return what is compared at a point.

    Parameters
    ----------
    base
        Without the point.
    point
        ``devices`` are CPU devices that share this host's cores; ``size`` and ``batch`` are for
        networks of the zoo, or for ONNX files whose inputs leave these dimensions open.

    Raises
    ------
    InvalidOption
        When the model's shapes are fixed, or the reference already fixes the size or batch.
    """
    values = dict(point)
    setting = replace(
        base,
        devices=values.get("devices", base.devices),
        streams=values.get("streams", base.streams),
    )
    if "size" not in values and "batch" not in values:
        return setting
    if base.source.startswith("zoo:"):
        return replace(setting, source=_zoo(base.source, values.get("size"), values.get("batch")))
    if base.source.lower().endswith(".onnx"):
        shapes = _onnx_shapes(base.source, values.get("size"), values.get("batch"))
        return replace(setting, shapes={**base.shapes, **shapes})
    raise InvalidOption(
        f"a sweep over size or batch needs zoo:NAME or an ONNX file with open dimensions; "
        f"{base.source!r} is neither"
    )


def run_sweep(
    points: Sequence[Point],
    identity: Mapping[str, str],
    state: Path | None,
    compare: Callable[[Point], SweepPoint],
    *,
    specialise: Callable[[Sequence[SweepPoint], Point], Sequence[SpecialisationRow]] | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> SweepState:
    """Do all points that the state file does not hold, saving it after each.

    Parameters
    ----------
    points
        All of them.
    identity
        What must be the same for a state file to be continued, by name.
    state
        The file; None keeps nothing.
    compare
        Does one point.
    specialise
        Given all points, runs their schedules at one of them.
    progress
        Told what is being done and the fraction done.

    Raises
    ------
    InvalidOption
        When the state file belongs to another sweep.
    StorageError
        When it is damaged or cannot be written.
    """
    report = progress or (lambda _what, _done: None)
    current = _open_state({**identity, "cpu": cpu_name()}, state)
    steps = len(points) * (1 if specialise is None else 2)
    for index, point in enumerate(points):
        if _find(current, point) is None:
            report(describe(point), index / steps)
            current = replace(current, points=(*current.points, compare(point)))
            _save(current, state)
    ordered = tuple(done for point in points if (done := _find(current, point)) is not None)
    current = replace(current, points=ordered)
    for index, point in enumerate(points if specialise is not None else ()):
        if specialise is not None and not any(
            row.run_at == dict(point) for row in current.specialisation
        ):
            report(f"schedules at {describe(point)}", (len(points) + index) / steps)
            rows = tuple(specialise(ordered, point))
            current = replace(current, specialisation=(*current.specialisation, *rows))
            _save(current, state)
    return current


def describe(point: Point | Mapping[str, int]) -> str:
    """Write a point for people.

    Examples
    --------
    >>> describe((("size", 224), ("batch", 4)))
    'size 224, batch 4'
    """
    return ", ".join(f"{name} {value}" for name, value in dict(point).items())


def _find(state: SweepState, point: Point) -> SweepPoint | None:
    return next((done for done in state.points if done.point == dict(point)), None)


def _open_state(identity: Mapping[str, str], path: Path | None) -> SweepState:
    if path is None or not path.exists():
        return SweepState(dict(identity))
    state = decode_json(read_bytes(path), SweepState, StorageError, str(path))
    for name, value in identity.items():
        if state.of.get(name) != value:
            raise InvalidOption(
                f"{path} holds a sweep with {name} {state.of.get(name)!r}, not {value!r}; name "
                "another file with --state, or delete this one"
            )
    return state


def _save(state: SweepState, path: Path | None) -> None:
    if path is not None:
        write_bytes(path, encode_json(state))


def _zoo(source: str, size: int | None, batch: int | None) -> str:
    match = re.fullmatch(r"(zoo:\w+)(?:@(\d+)(?:x(\d+))?)?", source)
    if match is None or (size is not None and match[2] and match[2] != str(size)):
        raise InvalidOption(f"{source!r} fixes its size; sweep over {source.partition('@')[0]!r}")
    fixed = size if size is not None else match[2]
    if batch is None:
        batch = int(match[3] or 1)
    if fixed is None:
        from hios_tvm.models import zoo

        name = match[1].removeprefix("zoo:")
        if name not in zoo.NETWORKS:
            return source  # named as unknown when it is built
        fixed = zoo.NETWORKS[name].image_size
    return f"{match[1]}@{fixed}x{batch}"


def _onnx_shapes(path: str, size: int | None, batch: int | None) -> dict[str, tuple[int, ...]]:
    import onnx

    read_bytes(path)  # a missing file as one of our errors
    graph = onnx.load(path, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    shapes = {}
    for given in graph.input:
        if given.name in weights:
            continue
        found: list[Any] = []
        for axis, dim in enumerate(given.type.tensor_type.shape.dim):
            wanted = batch if axis == 0 else size if axis in (2, 3) else None
            is_open = not dim.HasField("dim_value")
            if wanted is not None and not is_open and dim.dim_value != wanted:
                what = "batch" if axis == 0 else "size"
                raise InvalidOption(
                    f"input {given.name!r} of {path} fixes dimension {axis} to {dim.dim_value}; "
                    f"export it with that dimension open to sweep over {what}"
                )
            found.append(wanted if is_open and wanted is not None else dim.dim_value)
        shapes[given.name] = tuple(found)
    return shapes
