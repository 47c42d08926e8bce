"""Relay networks: TVM's graph executor against ours, on the same kernels of one factory.

``tools/relay_env.sh .venv-relay python -m benchmarks.relay_latency`` builds each network with the
stock ``relay.build`` in our pass context (for this host's CPU), measures every operator, decides,
and runs interleaved, in one process:

* TVM's graph executor on one core (the baseline of every ratio) and on two,
* ours in TVM's order on one device of one core: the ratio is our executor's own overhead,
* ours in order on one device with both cores,
* ours on two devices of one core each, as the scheduler says.

It also tells what the pass added to ``relay.build``. Outputs are compared bit by bit.
"""

import os
import platform
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np

from graph_executor.executor import random_inputs
from hios.ir.presets import available_cores, cpu_machine
from hios.ir.serial import encode_json, write_bytes
from hios_tvm.cli.terminal import console, print_json, progress_bar
from hios_tvm.comparison import compare_engines
from hios_tvm.costing import resolve_costs
from hios_tvm.deciding import decide
from hios_tvm.engines.hios_executor import HiosExecutor
from hios_tvm.engines.protocol import Engine
from hios_tvm.engines.tvm_graph_executor import TvmGraphExecutorEngine
from hios_tvm.models.light import LIGHT_NETWORKS, load_light
from hios_tvm.settling import settle
from hios_tvm.sources import compile_model

BASELINE = "TVM graph executor, 1 core"


@click.command()
@click.option("--networks", default=",".join(LIGHT_NETWORKS), show_default=True)
@click.option("--scheduler", default="hios-lp", show_default=True, help="Who decides.")
@click.option("--repeat", default=60, show_default=True, help="Counted runs of each engine.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the raw figures as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(networks: str, scheduler: str, repeat: int, out: Path | None, as_json: bool) -> None:
    """Compare TVM's graph executor with ours on Relay networks."""
    results: list[dict[str, Any]] = []
    names = networks.split(",")
    with progress_bar("relay latency", is_quiet=as_json) as progress:
        for index, name in enumerate(names):
            progress(f"{name}", index / len(names))
            results.append(measure_network(name, scheduler, repeat))
            if not as_json:
                _print(results[-1])
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {len(available_cores())} cores",
        "scheduler": scheduler,
        "networks": results,
    }
    if out is not None:
        write_bytes(out, encode_json(result, indent=2))
    if as_json:
        print_json(result)


def measure_network(name: str, scheduler: str, repeat: int) -> dict[str, Any]:
    """Return the figures of one network.

    Parameters
    ----------
    name
        A light network.
    scheduler
        For the two devices; it decides with measured times.
    repeat
        Counted runs of each engine, interleaved in bursts.
    """
    everywhere = os.sched_getaffinity(0)
    cores = available_cores()[:2]
    factory, build_s, added_s = build(name, scheduler)
    compiled = compile_model(factory)
    graph = compiled.graph
    two = cpu_machine([f"cpu:{i}" for i in range(len(cores))], cores)
    known = resolve_costs("profile", compiled, two, is_cached=False)
    one = cpu_machine(["cpu:0"], cores[:1])
    wide = cpu_machine(["cpu:0"], cores)

    def ours(label: str, machine: Any, how: str) -> HiosExecutor:
        costs = known.costs if machine is known.machine else None
        if costs is None:
            costs = resolve_costs("analytic", compiled, machine).costs
        model = decide(compiled, machine, costs, scheduler=how, select=False)
        engine = HiosExecutor(label, model)
        # Opened before the baseline pins this thread, from which workers inherit their cores.
        _ = model.executor
        return engine

    scheduled = ours(f"hios-tvm, {scheduler}, two 1-core devices", known.machine, scheduler)
    engines: list[Engine] = [
        TvmGraphExecutorEngine(BASELINE, factory, cores[:1]),
        TvmGraphExecutorEngine(f"TVM graph executor, {len(cores)} cores", factory, cores),
        ours("hios-tvm, sequential, one 1-core device", one, "sequential"),
        ours(f"hios-tvm, sequential, one {len(cores)}-core device", wide, "sequential"),
        scheduled,
    ]
    try:
        inputs = random_inputs(graph)
        # The pool of this thread takes its size from the first run: the widest goes first.
        reference = engines[1].run(inputs)
        agree = [
            all(
                np.array_equal(own, other)
                for own, other in zip(engine.run(inputs), reference, strict=True)
            )
            for engine in engines
        ]
        comparison = compare_engines(engines, inputs, repeat=repeat, settle=settle)
        predicted = scheduled.model.predict()
    finally:
        for engine in engines:
            engine.close()
        os.sched_setaffinity(0, everywhere)
    base_us = comparison.rows[0].samples.median_us
    overhead_us = comparison.rows[2].samples.median_us - base_us
    return {
        "network": name,
        "operators": len(graph.operators),
        "build_s": build_s,
        "added_to_build_s": added_s,
        "predicted_two_devices_us": None if predicted is None else predicted.makespan_us,
        "overhead_percent": 100 * overhead_us / base_us,
        "overhead_us_a_call": overhead_us / max(1, len(graph.operators)),
        "engines": [
            {
                "name": row.name,
                "median_us": row.samples.median_us,
                "p10_us": row.samples.p10_us,
                "p90_us": row.samples.p90_us,
                "ratio": row.ratio.value,
                "ratio_low": row.ratio.low,
                "ratio_high": row.ratio.high,
                "is_bit_identical": same,
                "samples": len(row.samples.times_us),
            }
            for row, same in zip(comparison.rows, agree, strict=True)
        ],
    }


def build(name: str, scheduler: str) -> tuple[Any, float, float]:
    """Return the factory of a light network, the seconds of its build, and those of the pass."""
    import tvm
    from tvm import relay

    from relay_passes.relay import HIOSInstrument, HIOSPartition

    marks: list[float] = []

    @tvm.instrument.pass_instrument
    class Mark:
        """Notes when the pass before it, in the list of instruments, is done."""

        def run_after_pass(self, _mod: Any, info: Any) -> None:
            if str(info.name) == "LowerTE":
                marks.append(time.perf_counter())

    with warnings.catch_warnings():
        # TVM's importer uses names that onnx is about to drop.
        warnings.simplefilter("ignore", DeprecationWarning)
        mod, params = relay.frontend.from_onnx(load_light(name))
    cpu = str(tvm.target.codegen.llvm_get_system_cpu())
    cores = available_cores()[:2]
    machine = cpu_machine([f"cpu:{i}" for i in range(len(cores))], cores)
    partition: Any = HIOSPartition(machine, scheduler)
    instruments = [Mark(), HIOSInstrument(partition), Mark()]
    begin = time.perf_counter()
    with tvm.transform.PassContext(opt_level=3, instruments=instruments):
        factory = relay.build(mod, target=f"llvm -mcpu={cpu}", params=params)
    return factory, time.perf_counter() - begin, marks[1] - marks[0]


def _print(result: dict[str, Any]) -> None:
    from rich.table import Table

    title = (
        f"{result['network']}: {result['operators']} operators; the pass took "
        f"{result['added_to_build_s']:.2f} s of {result['build_s']:.1f} s of relay.build; own "
        f"overhead {result['overhead_percent']:+.1f} %, "
        f"{result['overhead_us_a_call']:+.1f} µs a call"
    )
    table = Table(title=title, title_justify="left")
    for column in ("engine", "median [ms]", "10–90 % [ms]", "speed-up (90 %)", "outputs"):
        table.add_column(column)
    for row in result["engines"]:
        table.add_row(
            row["name"],
            f"{row['median_us'] / 1e3:.2f}",
            f"{row['p10_us'] / 1e3:.2f}–{row['p90_us'] / 1e3:.2f}",
            f"{row['ratio']:.3f}× ({row['ratio_low']:.3f}–{row['ratio_high']:.3f})",
            "identical" if row["is_bit_identical"] else "DIFFERENT",
        )
    console().print(table)


if __name__ == "__main__":
    main()
