"""Latency on one GPU, all ways in turn: ours, TVM's virtual machine, PyTorch.

Every way runs from inputs on the device to outputs on the device; they take turns in short bursts,
and each is compared with our kernels in a row on one stream. The virtual machine runs the same
kernels, so what differs is the executor. PyTorch runs its own, where it and the ``onnx`` package
are installed.

    python -m benchmarks.gpu.latency --networks networks
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.gpu.networks import find_networks, load_network, reference_of
from benchmarks.gpu.torch_ways import MODES, TorchWay
from benchmarks.gpu.virtual_machine import VirtualMachine
from graph_executor.cuda.detect import require_machine
from graph_executor.cuda.open import open_driver
from graph_executor.executor import ExecutorOptions, GraphExecutor, random_inputs
from graph_executor.measure import MeasureOptions, measure_costs
from hios.errors import HiosError
from hios.ir import CompiledGraph
from hios.schedulers import schedule
from hios.simulator import makespan
from hios.statistics import Samples

__all__ = ["BASELINE", "latency_rows"]

BASELINE = "ours, one stream, graph"

_STREAMS = 4
_SCHEDULERS = (
    "ios",
    "nimble",
    "opara",
    "graphi",
    "wavefront",
    "multi-tenant",
    "lios",
    "autograph",
    "heft",
    "hios-lp",
    "hios-mr",
    "auto",
)
_WAYS = (
    (BASELINE, 1, "sequential", "graph"),
    ("ours, one stream, eager", 1, "sequential", "eager"),
    *((f"ours, {name}, {_STREAMS} streams", _STREAMS, name, "graph") for name in _SCHEDULERS),
)
_BURST = 10

Run = Callable[[], list[float]]
"""Runs a burst and returns its times in µs."""


def latency_rows(path: Path, repeat: int, torch_modes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Measure every way of one network.

    Raises
    ------
    DeviceUnavailable
        When there is no GPU.
    """
    require_machine(["cuda:0"], 1)
    compiled = load_network(path)
    inputs = random_inputs(compiled.graph)
    runs: dict[str, Run] = {}
    predicted: dict[str, float] = {}
    with ExitStack() as stack:
        runs |= _ours(compiled, inputs, stack, predicted)
        for label, file in (
            ("TVM VM, same kernels", "virtual_machine.so"),
            ("TVM VM, same kernels, CUDA graph", "virtual_machine_graph.so"),
        ):
            if (path / file).is_file():
                machine = VirtualMachine(path / file)
                machine.place(list(inputs.values()))
                runs[label] = lambda own=machine: _burst(own)
        runs |= _torch(path, inputs, torch_modes)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for run in runs.values():
            run()
        everyone = list(runs)
        for turn in range(-(-repeat // _BURST)):
            for place_in_turn in range(len(everyone)):
                name = everyone[(place_in_turn + turn) % len(everyone)]
                times[name] += runs[name]()
    base = Samples.of(times[BASELINE]).median_us
    rows = []
    for name, own in times.items():
        samples = Samples.of(own)
        rows.append(
            {
                "network": path.name,
                "way": name,
                "predicted_us": predicted.get(name),
                "median_us": samples.median_us,
                "p10_us": samples.p10_us,
                "p90_us": samples.p90_us,
                "p99_us": samples.p99_us,
                "runs": len(own),
                "speedup": base / samples.median_us,
            }
        )
    return rows


def _ours(
    compiled: CompiledGraph,
    inputs: Mapping[str, Any],
    stack: ExitStack,
    predicted: dict[str, float],
) -> dict[str, Run]:
    """Return our executor with several schedules, and what `build` chooses; note predictions."""
    from hios_tvm import build

    runs: dict[str, Run] = {}
    known = {}
    for streams in sorted({streams for _, streams, _, _ in _WAYS}):
        place = require_machine(["cuda:0"], streams)
        known[streams] = measure_costs(compiled, place, MeasureOptions())
    for name, streams, scheduler, mode in _WAYS:
        machine, costs = known[streams].machine, known[streams].costs
        decided = schedule(scheduler, compiled.graph, machine, costs)
        if mode == "graph":
            predicted[name] = makespan(compiled.graph, machine, costs, decided)
        options = ExecutorOptions(mode=mode)  # type: ignore[arg-type]
        executor = stack.enter_context(GraphExecutor(compiled, machine, decided, options))
        runs[name] = lambda own=executor: list(own.benchmark(_BURST, 1, inputs).times_us)
    built = stack.enter_context(build(compiled, devices="cuda:0"))
    name = f"ours, build ({built.schedule.scheduler})"
    if (timeline := built.predict()) is not None:
        predicted[name] = timeline.makespan_us
    runs[name] = lambda: list(built.benchmark(_BURST, 1, inputs).times_us)
    return runs


def _torch(path: Path, inputs: Mapping[str, Any], modes: tuple[str, ...]) -> dict[str, Run]:
    reference = reference_of(path)
    if not modes or not reference or find_spec("torch") is None or find_spec("onnx") is None:
        return {}
    from hios_tvm.sources import resolve_model

    model = resolve_model(reference)
    is_tf32 = path.name.endswith("_tf32")
    runs: dict[str, Run] = {}
    for mode in MODES:
        for is_last in (False, True) if mode == "cuda graph" else (False,):
            if mode not in modes:
                continue
            label = f"PyTorch, {mode}" + (", channels last" if is_last else "")
            try:
                way = TorchWay(model, mode, list(inputs.values()), is_tf32, is_last)
            except Exception as problem:  # noqa: BLE001 - theirs may fail in any way
                print(f"latency: {path.name}: {label}: {problem!r}"[:300], file=sys.stderr)
                continue
            runs[label] = lambda own=way: own.times_us(_BURST)
    return runs


def _burst(machine: VirtualMachine) -> list[float]:
    times = []
    for turn in range(_BURST + 1):
        begin = time.perf_counter_ns()
        machine.run()
        if turn:
            times.append((time.perf_counter_ns() - begin) / 1e3)
    return times


def main() -> None:
    """Measure all networks and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--networks", type=Path, default=os.environ.get("HIOS_NETWORKS"))
    parser.add_argument("--repeat", type=int, default=300)
    parser.add_argument("--torch", nargs="*", default=MODES, metavar="MODE", help=", ".join(MODES))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.networks is None:
        parser.error("--networks FOLDER: make gpu-bundle packs some")
    rows: list[dict[str, Any]] = []
    try:
        require_machine(["cuda:0"], 1)
        facts = open_driver().facts(0)
        for path in find_networks(Path(options.networks), options.names):
            if path.name.startswith("pair_"):
                continue
            own = latency_rows(path, options.repeat, tuple(options.torch))
            rows += own
            for row in own:
                told_us = row["predicted_us"]
                print(
                    f"{row['network']:<22}{row['way']:<36}{row['median_us']:>9.1f} µs"
                    f"  p10–p90 {row['p10_us']:.1f}–{row['p90_us']:.1f}  p99 {row['p99_us']:.1f}"
                    f"  {row['speedup']:.2f}×" + (f"  predicted {told_us:.1f}" if told_us else ""),
                    flush=True,
                )
            if options.json is not None:
                told = {"device": facts.name, "architecture": facts.architecture, "rows": rows}
                options.json.write_text(json.dumps(told, indent=1))
    except HiosError as problem:
        print(f"latency: error: {problem}", file=sys.stderr)
        sys.exit(2)
    print(f"{facts.name}, {facts.architecture}; {options.repeat} interleaved runs of each")


if __name__ == "__main__":
    main()
