"""Latency on one GPU, all ways in turn: ours, the same kernels in a row, TVM's virtual machine.

Every way runs the same kernels, from inputs on the device to outputs on the device; they take
turns in short bursts, and each is compared with the same kernels on one stream. Where the packages
are there, `hios compare` adds PyTorch (eager, compiled, CUDA graph), ONNX Runtime and TensorRT.

    python -m benchmarks.gpu.latency --networks networks
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.gpu.networks import find_networks, load_network
from benchmarks.gpu.virtual_machine import VirtualMachine
from graph_executor.cuda.detect import detect_machine
from graph_executor.cuda.open import open_driver
from graph_executor.executor import ExecutorOptions, GraphExecutor, random_inputs
from graph_executor.measure import MeasureOptions, measure_costs
from hios.errors import DeviceUnavailable, HiosError
from hios.schedulers import schedule
from hios.statistics import Samples

__all__ = ["BASELINE", "latency_rows"]

BASELINE = "ours, one stream, graph"

_WAYS = (
    (BASELINE, 1, "sequential", "graph"),
    ("ours, one stream, eager", 1, "sequential", "eager"),
    ("ours, ios, 2 streams", 2, "ios", "graph"),
    ("ours, ios, 4 streams", 4, "ios", "graph"),
    ("ours, nimble, 4 streams", 4, "nimble", "graph"),
    ("ours, auto, 4 streams", 4, "auto", "graph"),
)
_BURST = 10


def latency_rows(path: Path, repeat: int) -> list[dict[str, Any]]:
    """Measure every way of one network.

    Raises
    ------
    DeviceUnavailable
        When there is no GPU.
    """
    if detect_machine(["cuda:0"], 1) is None:
        raise DeviceUnavailable(
            "no CUDA device on this machine; `hios doctor` says what is missing"
        )
    compiled = load_network(path)
    graph = compiled.graph
    inputs = random_inputs(graph)
    runs: dict[str, Callable[[], list[float]]] = {}
    with ExitStack() as stack:
        for name, streams, scheduler, mode in _WAYS:
            place = detect_machine(["cuda:0"], streams)
            assert place is not None
            known = measure_costs(compiled, place, MeasureOptions())
            decided = schedule(scheduler, graph, known.machine, known.costs)
            options = ExecutorOptions(mode=mode)  # type: ignore[arg-type]
            executor = stack.enter_context(GraphExecutor(compiled, known.machine, decided, options))
            runs[name] = lambda own=executor: list(own.benchmark(_BURST, 1, inputs).times_us)
        for label, file in (
            ("TVM VM, same kernels", "virtual_machine.so"),
            ("TVM VM, same kernels, CUDA graph", "virtual_machine_graph.so"),
        ):
            if (path / file).is_file():
                machine = VirtualMachine(path / file)
                machine.place(list(inputs.values()))
                runs[label] = lambda own=machine: _burst(own)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for run in runs.values():
            run()
        turns = -(-repeat // _BURST)
        everyone = list(runs)
        for turn in range(turns):
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
                "median_us": samples.median_us,
                "p10_us": samples.p10_us,
                "p90_us": samples.p90_us,
                "p99_us": samples.p99_us,
                "runs": len(own),
                "speedup": base / samples.median_us,
            }
        )
    return rows


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
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.networks is None:
        parser.error("--networks FOLDER: make gpu-bundle packs some")
    rows: list[dict[str, Any]] = []
    try:
        for path in find_networks(Path(options.networks), options.names):
            if not path.name.startswith("pair_"):
                rows += latency_rows(path, options.repeat)
    except HiosError as problem:
        sys.exit(f"latency: error: {problem}")
    facts = open_driver().facts(0)
    print(f"{facts.name}, {facts.architecture}; {options.repeat} interleaved runs of each")
    for row in rows:
        print(
            f"{row['network']:<22}{row['way']:<34}{row['median_us']:>10.1f} µs"
            f"  p10–p90 {row['p10_us']:.1f}–{row['p90_us']:.1f}  p99 {row['p99_us']:.1f}"
            f"  {row['speedup']:.2f}×"
        )
    if options.json is not None:
        told = {"device": facts.name, "architecture": facts.architecture, "rows": rows}
        options.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
