"""Compare engines on one network: open those that can run, check their answers, time, judge."""

import importlib.metadata
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

import hios
from graph_executor.host import cpu_name, host_features
from hios.errors import ExecutionError, InvalidOption
from hios.statistics import ratio_of_medians
from hios_tvm.comparison import Row, compare_engines
from hios_tvm.comparison_result import (
    ComparisonResult,
    EngineRow,
    HostFacts,
    InputFacts,
    Verdict,
)
from hios_tvm.energy import find_meter
from hios_tvm.engines.protocol import TOLERANCES, Arrays, Contender, Engine
from hios_tvm.engines.subject import Subject
from hios_tvm.settling import settle

__all__ = ["ContestOptions", "hold_contest", "relative_error"]

Progress = Callable[[str, float], None]

_OPENING = 0.5
"""Share of the progress bar for opening; compiling takes most of a comparison's time."""

_PACKAGES = ("apache-tvm", "onnxruntime", "torch", "tensorrt", "openvino", "numpy")


@dataclass(frozen=True, slots=True)
class ContestOptions:
    """How engines are compared.

    Attributes
    ----------
    repeat
        Counted runs of each engine; None: 30, or as many as the budget allows.
    budget_s
        Seconds for the timing (not for compiling); None: no limit.
    burst, warmup
        See `hios_tvm.comparison.compare_engines`.
    slow_s
        An engine that needs longer for a run takes few turns.
    baseline
        Key of the engine that the speed-ups are over; None: the first one that runs.
    """

    repeat: int | None = None
    budget_s: float | None = None
    burst: int = 3
    warmup: int = 2
    slow_s: float = 0.5
    baseline: str | None = None


def hold_contest(
    subject: Subject,
    contenders: Sequence[Contender],
    options: ContestOptions | None = None,
    *,
    command: str = "",
    progress: Progress | None = None,
) -> ComparisonResult:
    """Compare engines on one network in one interleaved run.

    Parameters
    ----------
    subject
        The network and the devices.
    contenders
        In the order of the table. One that cannot run here is a row that says what is missing.
    options
        See there.
    command
        What made the comparison, for the record.
    progress
        Told what is being done and the fraction done.

    Raises
    ------
    HiosError
        When the network cannot be compiled, or no engine at all can run.
    """
    chosen = options or ContestOptions()
    report = progress or (lambda _what, _done: None)
    report(f"compile {subject.name}", 0.0)
    inputs = subject.inputs  # compiles: a mistake of the user's ends here, not as absent rows
    absent: dict[str, str] = {}
    opened: list[tuple[Contender, Engine]] = []
    with ExitStack() as stack:
        for index, contender in enumerate(contenders):
            report(f"open {contender.label}", _OPENING * index / len(contenders))
            engine = _open(contender, subject, inputs, absent)
            if engine is not None:
                stack.callback(engine.close)
                opened.append((contender, engine))
        if not opened:
            reasons = "; ".join(f"{key}: {reason}" for key, reason in absent.items())
            raise ExecutionError(f"no engine can run {subject.name}: {reasons}")
        reference = _reference([contender for contender, _ in opened])
        errors = _errors([engine for _, engine in opened], reference, inputs)
        keys = [contender.key for contender, _ in opened]
        baseline = _baseline(keys, chosen.baseline, absent)
        meter = find_meter(subject.machine.devices[0].kind)
        repeat = chosen.repeat or (30 if chosen.budget_s is None else 30_000)
        started = time.perf_counter()

        def told(done: int, total: int) -> None:
            spent = time.perf_counter() - started
            by_time = 0.0 if chosen.budget_s is None else spent / chosen.budget_s
            fraction = min(1.0, max(done / total, by_time))
            report(f"round {done}", _OPENING + (1 - _OPENING) * fraction)

        comparison = compare_engines(
            [engine for _, engine in opened],
            inputs,
            warmup=chosen.warmup,
            repeat=repeat,
            burst=chosen.burst,
            budget_s=chosen.budget_s,
            baseline=baseline,
            slow_s=chosen.slow_s,
            settle=settle,
            meter=meter,
            progress=told,
        )
    measured = {
        contender.key: _measured(contender, row, error)
        for (contender, _), row, error in zip(opened, comparison.rows, errors, strict=True)
    }
    graph = subject.compiled.graph
    rows = tuple(
        measured[c.key] if c.key in measured else _absent(c, absent[c.key]) for c in contenders
    )
    return ComparisonResult(
        model=subject.name,
        operators=len(graph.operators),
        devices=tuple(device.name for device in subject.machine.devices),
        streams=max(device.streams for device in subject.machine.devices),
        inputs=tuple(
            InputFacts(name, tuple(array.shape), str(array.dtype)) for name, array in inputs.items()
        ),
        seed=subject.seed,
        host=_host(subject),
        date=datetime.now(UTC).date().isoformat(),
        command=command,
        baseline=keys[baseline],
        reference=keys[reference],
        energy_source=None if meter is None else meter.source,
        rows=rows,
        verdicts=tuple(_verdicts(rows)),
        hios_tvm=hios.__version__,
    )


Outputs = Sequence[np.ndarray[Any, np.dtype[Any]]]


def relative_error(found: Outputs, wanted: Outputs) -> float:
    """Return ‖out − ref‖ / ‖ref‖ over all outputs; infinite where shapes differ or NaN is found."""
    ours = [np.asarray(out, np.float64) for out in found]
    theirs = [np.asarray(out, np.float64) for out in wanted]
    if [out.shape for out in ours] != [out.shape for out in theirs]:
        return float("inf")
    flat = np.concatenate([out.ravel() for out in ours])
    reference = np.concatenate([out.ravel() for out in theirs])
    size = float(np.linalg.norm(reference))
    error = float(np.linalg.norm(flat - reference)) / (size or 1.0)
    return error if np.isfinite(error) else float("inf")


def _open(
    contender: Contender, subject: Subject, inputs: Arrays, absent: dict[str, str]
) -> Engine | None:
    """Return the engine after its first run, or None and the reason in `absent`."""
    reason = contender.absence(subject)
    if reason is None:
        try:
            engine = contender.open(subject)
            try:
                engine.run(inputs)
            except BaseException:
                engine.close()
                raise
            return engine
        # Other projects' engines raise what they like; the comparison goes on without them.
        except Exception as problem:  # noqa: BLE001
            first = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
            reason = f"failed: {first}"
    absent[contender.key] = reason
    return None


def _reference(contenders: Sequence[Contender]) -> int:
    """Return whose outputs the others are compared with: another project's, in float32."""
    for family in ("ort", "torch", "tvm"):
        for index, contender in enumerate(contenders):
            if contender.family == family and contender.precision == "fp32":
                return index
    return 0


def _errors(engines: Sequence[Engine], reference: int, inputs: Arrays) -> list[float]:
    wanted = [np.array(out) for out in engines[reference].run(inputs)]
    return [relative_error(engine.run(inputs), wanted) for engine in engines]


def _baseline(keys: Sequence[str], wanted: str | None, absent: dict[str, str]) -> int:
    if wanted is None:
        return 0
    if wanted in absent:
        raise InvalidOption(f"the baseline {wanted} cannot run: {absent[wanted]}")
    if wanted not in keys:
        raise InvalidOption(f"the baseline {wanted} takes no part; there are {', '.join(keys)}")
    return list(keys).index(wanted)


def _measured(contender: Contender, row: Row, error: float) -> EngineRow:
    tolerance = TOLERANCES[contender.precision]
    samples = row.samples
    return EngineRow(
        key=contender.key,
        family=contender.family,
        name=row.name,
        precision=contender.precision,
        settings=contender.settings,
        status="measured" if error <= tolerance else "differs",
        note=contender.note,
        runs=len(samples.times_us),
        median_us=samples.median_us,
        p10_us=samples.p10_us,
        p90_us=samples.p90_us,
        p99_us=samples.p99_us,
        speedup=row.ratio.value,
        speedup_low=row.ratio.low,
        speedup_high=row.ratio.high,
        # JSON has no infinity.
        relative_error=error if np.isfinite(error) else None,
        tolerance=tolerance,
        energy_j=row.energy_j,
        lingering_us=row.lingering_us,
        samples_us=tuple(round(time_us, 2) for time_us in samples.times_us),
    )


def _absent(contender: Contender, reason: str) -> EngineRow:
    return EngineRow(
        key=contender.key,
        family=contender.family,
        name=contender.label,
        precision=contender.precision,
        settings=contender.settings,
        status="absent",
        note=contender.note,
        remedy=reason,
    )


def _verdicts(rows: Sequence[EngineRow]) -> list[Verdict]:
    """Judge what `build` returns (else our fastest) against each rival that can be named."""
    right = [row for row in rows if row.status == "measured"]
    own = [row for row in right if row.family == "hios"]
    ours = next((row for row in own if row.key == "build"), min(own, key=_median, default=None))
    if ours is None:
        return []
    verdicts = []
    rivals = {row.family: row for row in sorted(right, key=_median, reverse=True)}
    del rivals["hios"]
    named = [row for row in right if row.key in _NAMED_RIVALS]
    for rival in [*rivals.values(), *(row for row in named if row not in rivals.values())]:
        ratio = ratio_of_medians(rival.samples_us, ours.samples_us)
        verdicts.append(Verdict(ours.key, rival.key, ratio.value, ratio.low, ratio.high))
    return verdicts


_NAMED_RIVALS = ("ort-parallel", "tvm-default")
"""Judged even where another engine of their family is faster."""


def _median(row: EngineRow) -> float:
    return row.median_us or 0.0


def _host(subject: Subject) -> HostFacts:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return HostFacts(
        cpu=cpu_name(),
        vectors=tuple(sorted(host_features() or ())),
        cores=subject.cores,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        versions=versions,
    )
