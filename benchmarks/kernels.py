"""Our kernels against ONNX Runtime's and TVM's own, network by network, on the CPU.

``python benchmarks/kernels.py`` builds every network once and runs, interleaved in bursts: our
executor with all operators one after another, and ONNX Runtime, each on one core and on all
cores. TVM's virtual machine with its default kernels, tens of times slower, runs a few times
besides. No schedule is compared here: what shows is how good the kernels are.

``--operators NETWORK`` tells which operators are behind: both engines' own profiles, grouped by
kind.
"""

import math
import platform
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a file, outside an installation

from benchmarks.operator_times import compare_operators, operator_table
from graph_executor.executor import random_inputs
from graph_executor.host import cpu_name
from hios.ir.ids import DeviceId
from hios.ir.kernels import CompiledGraph
from hios.ir.presets import available_cores, cpu_machine
from hios.ir.schedule import Placement, Schedule
from hios.ir.serial import encode_json, write_bytes
from hios.statistics import Samples, ratio_of_medians
from hios_tvm.cli.terminal import console, print_json, progress_bar
from hios_tvm.comparison import compare_engines
from hios_tvm.contest import relative_error
from hios_tvm.engines import Arrays, Engine
from hios_tvm.engines.hios_executor import HiosExecutor
from hios_tvm.engines.onnx_runtime import OnnxRuntime
from hios_tvm.engines.tvm_vm import TvmVirtualMachine
from hios_tvm.model import Model
from hios_tvm.models.light import LIGHT_NETWORKS
from hios_tvm.settling import settle
from hios_tvm.sources import Progress, compile_model, resolve_model

ZOO = (
    "inception_v3",
    "nasnet_mobile",
    "randwire_small",
    "squeezenet",
    "squeezenet_bypass",
    "resnet50",
    "vgg16",
    "alexnet",
    "retinanet@256",
)
DEFAULT_MODELS = ",".join([f"light:{n}" for n in LIGHT_NETWORKS] + [f"zoo:{n}" for n in ZOO])
MOST_MEAN, MOST_ONE, LEAST_OVER_DEFAULT = 1.0, 1.3, 20.0


@click.command()
@click.option("--models", default=DEFAULT_MODELS, show_default=True, help="Comma-separated.")
@click.option("--repeat", default=30, show_default=True, help="Counted runs of each engine.")
@click.option("--budget", default=12.0, show_default=True, help="Seconds for a network's runs.")
@click.option(
    "--default-runs",
    default=1,
    show_default=True,
    help="Runs of TVM's virtual machine with its default kernels; 0 leaves it out.",
)
@click.option("--operators", metavar="NETWORK", help="Only say where the time of one network goes.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the raw figures as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--check", is_flag=True, help="Exit with 1 when a target is missed.")
def main(
    models: str,
    repeat: int,
    budget: float,
    default_runs: int,
    operators: str | None,
    out: Path | None,
    as_json: bool,
    check: bool,
) -> None:
    """Compare our kernels with ONNX Runtime's and TVM's own."""
    cores = available_cores()
    if operators is not None:
        compiled, network = _build(operators)
        found = compare_operators(compiled, network, sequential(compiled, cores[:1]), runs=repeat)
        if as_json:
            print_json({"model": operators, "kinds": found})
        else:
            console().print(operator_table(operators, found))
        return
    rows: list[dict[str, Any]] = []
    names = models.split(",")
    with progress_bar("kernels", is_quiet=as_json) as progress:
        for index, name in enumerate(names):

            def step(what: str, done: float, index: int = index, name: str = name) -> None:
                progress(f"{name}: {what}", (index + done) / len(names))

            rows.append(measure_network(name, cores, repeat, budget, default_runs, step))
            if out is not None:  # a run that is cut short keeps what it has
                write_bytes(out, encode_json(_result(rows, cores), indent=2))
            if not as_json:
                print(_line(rows[-1]), flush=True)
    result = _result(rows, cores)
    if as_json:
        print_json(result)
    else:
        for count, mean in result["geometric_means"].items():
            print(f"geometric mean, {count}: {mean:.3f}× ONNX Runtime's time")
    if check and (missed := missed_targets(rows)):
        for line in missed:
            print(f"missed: {line}", file=sys.stderr)
        sys.exit(1)


def measure_network(
    name: str,
    cores: Sequence[int],
    repeat: int,
    budget_s: float,
    default_runs: int,
    step: Progress,
) -> dict[str, Any]:
    """Return the figures of one network.

    Parameters
    ----------
    name
        As `hios_tvm.build` takes it.
    cores
        All that may be used; the first one is the one of the runs on one core.
    repeat
        Counted runs of each engine.
    budget_s
        Seconds after which no further round starts.
    default_runs
        Runs of TVM's default, after the others.
    step
        Told the progress.
    """
    step("compile", 0.0)
    compiled, network = _build(name)
    inputs = random_inputs(compiled.graph)
    counts = sorted({1, len(cores)})
    engines: list[Engine] = []
    for count in counts:
        engines.append(HiosExecutor(f"ours, {count}", sequential(compiled, cores[:count])))
        engines.append(OnnxRuntime(network, count))
    first_us = _time_us(engines[0], inputs)
    error = relative_error(engines[0].run(inputs), engines[1].run(inputs))
    step("run", 0.4)
    compared = compare_engines(
        engines,
        inputs,
        warmup=1,
        settle=settle,
        repeat=repeat,
        budget_s=budget_s,
        progress=lambda done, total: step("run", 0.4 + 0.3 * done / total),
    )
    row: dict[str, Any] = {
        "model": name,
        "operators": len(compiled.graph.operators),
        "relative_error": error,
        "first_run_us": first_us,
        "threads": [],
    }
    for index, count in enumerate(counts):
        ours, theirs = compared.rows[2 * index].samples, compared.rows[2 * index + 1].samples
        ratio = ratio_of_medians(ours.times_us, theirs.times_us)
        row["threads"].append(
            {
                "threads": count,
                "ours": _figures(ours),
                "onnxruntime": _figures(theirs),
                "ratio": ratio.value,
                "ratio_low": ratio.low,
                "ratio_high": ratio.high,
            }
        )
    for engine in engines:
        engine.close()
    if default_runs:
        step("TVM's default kernels", 0.7)
        row["tvm_default_us"] = _default_us(network, inputs, default_runs)
        row["over_default"] = row["tvm_default_us"] / row["threads"][0]["ours"]["median_us"]
    return row


def sequential(compiled: CompiledGraph, cores: Sequence[int]) -> Model:
    """Return a model that runs its operators in order on one device with these cores."""
    order = compiled.graph.topological_order()
    schedule = Schedule("sequential", tuple(Placement(op, DeviceId(0)) for op in order))
    return Model(compiled, cpu_machine(["cpu:0"], cores), schedule)


def geometric_means(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the geometric mean of the ratios, by number of threads."""
    ratios: dict[str, list[float]] = {}
    for row in rows:
        for part in row["threads"]:
            plural = "" if part["threads"] == 1 else "s"
            ratios.setdefault(f"{part['threads']} thread{plural}", []).append(part["ratio"])
    return {
        count: math.exp(math.fsum(map(math.log, values)) / len(values))
        for count, values in ratios.items()
    }


def missed_targets(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return what these rows miss: means, single networks, and the gain over TVM's default."""
    found = [
        f"geometric mean on {count} is {mean:.2f}× ONNX Runtime's, at most {MOST_MEAN} wanted"
        for count, mean in geometric_means(rows).items()
        if mean > MOST_MEAN
    ]
    for row in rows:
        found += [
            f"{row['model']} takes {part['ratio']:.2f}× ONNX Runtime's time on "
            f"{part['threads']} thread(s), at most {MOST_ONE} wanted"
            for part in row["threads"]
            if part["ratio_low"] > MOST_ONE
        ]
        if row.get("over_default", math.inf) < LEAST_OVER_DEFAULT:
            found.append(
                f"{row['model']} is {row['over_default']:.0f}× as fast as TVM's default, at least "
                f"{LEAST_OVER_DEFAULT:.0f}× wanted"
            )
    return found


def _result(rows: list[dict[str, Any]], cores: Sequence[int]) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{cpu_name()} ({platform.machine()}), {len(cores)} cores",
        "rows": rows,
        "geometric_means": geometric_means(rows),
    }


def _build(name: str) -> tuple[CompiledGraph, Any]:
    network = resolve_model(name)
    return compile_model(network, cache=None), network


def _default_us(network: Any, inputs: Arrays, runs: int) -> float:
    from relay_passes.virtual_machine import compile_executable

    machine = TvmVirtualMachine("TVM's default", compile_executable(network))
    times = [_time_us(machine, inputs) for _ in range(runs)]
    machine.close()
    return Samples.of(times).median_us


def _time_us(engine: Engine, inputs: Arrays) -> float:
    begin = time.perf_counter_ns()
    engine.run(inputs)
    return (time.perf_counter_ns() - begin) / 1e3


def _figures(samples: Samples) -> dict[str, Any]:
    return {
        "median_us": samples.median_us,
        "p10_us": samples.p10_us,
        "p90_us": samples.p90_us,
        "samples": len(samples.times_us),
    }


def _line(row: dict[str, Any]) -> str:
    parts = [f"{row['model']:24}"]
    for part in row["threads"]:
        parts.append(
            f"{part['threads']} thread(s): {part['ours']['median_us'] / 1e3:7.2f} ms, ONNX Runtime "
            f"{part['onnxruntime']['median_us'] / 1e3:7.2f} ms, {part['ratio']:.2f} "
            f"({part['ratio_low']:.2f}–{part['ratio_high']:.2f})"
        )
    if "over_default" in row:
        parts.append(f"TVM's default {row['over_default']:.0f}× slower")
    parts.append(f"error {row['relative_error']:.0e}")
    return " | ".join(parts)


if __name__ == "__main__":
    main()
