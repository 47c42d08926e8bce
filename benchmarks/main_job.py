"""The main job on a real network: compile, profile, schedule, run, verify, compare.

``python -m benchmarks.main_job`` (``make run``) takes GoogLeNet out of the ``onnx`` package,
gives it seeded weights, and compares, interleaved in one run:

* TVM's virtual machine with TVM's default pipeline,
* TVM's virtual machine with our kernels,
* our executor, all operators in order on one device,
* our executor as HIOS-LP says on two devices of one core each,
* and, for who has both cores anyway, our executor on one device with both, every kernel wide,
  and ONNX Runtime with one and with two threads.

The outputs of all are compared with ONNX Runtime's. Writes the Gantt picture and the trace.
"""

import sys
from pathlib import Path

import click

from graph_executor.executor import random_inputs
from hios.bounds import lower_bound
from hios.costs.analytic import AnalyticCosts
from hios.ir.presets import available_cores, cpu_machine
from hios_tvm.api import pipeline
from hios_tvm.cli.terminal import console, print_json, progress_bar
from hios_tvm.comparison import Comparison, compare_engines
from hios_tvm.contest import relative_error
from hios_tvm.costing import resolve_costs
from hios_tvm.deciding import decide
from hios_tvm.engines.hios_executor import HiosExecutor
from hios_tvm.engines.onnx_runtime import OnnxRuntime
from hios_tvm.engines.protocol import Engine
from hios_tvm.engines.tvm_vm import TvmVirtualMachine
from hios_tvm.report.gantt import draw_gantt
from hios_tvm.report.trace import write_trace
from hios_tvm.settling import settle
from hios_tvm.sources import compile_model, resolve_model


@click.command()
@click.option("--model", default="light:inception_v1", show_default=True, help="The network.")
@click.option("--scheduler", default="hios-lp", show_default=True, help="Who decides.")
@click.option("--repeat", default=30, show_default=True, help="Counted runs of each engine.")
@click.option("--budget", default=90.0, show_default=True, help="Seconds for all rounds.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("out"), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(model: str, scheduler: str, repeat: int, budget: float, out: Path, as_json: bool) -> None:
    """Compile, schedule, run, verify and compare one network."""
    out.mkdir(parents=True, exist_ok=True)
    stem = model.replace(":", "_").replace("@", "_")
    with progress_bar("main job", is_quiet=as_json) as progress:

        def step(text: str, fraction: float) -> None:
            progress(text, fraction)
            if not sys.stderr.isatty() and not as_json:
                print(f"  {text}", file=sys.stderr, flush=True)

        step(f"read {model}", 0.0)
        network = resolve_model(model)
        step("compile with our kernels", 0.02)
        compiled = compile_model(network, cache=None)
        cores = available_cores()[:2]
        machine = cpu_machine(["cpu:0", "cpu:1"], cores)
        whole = cpu_machine(["cpu:0"], cores)
        step("measure every operator alone", 0.15)
        known = resolve_costs("profile", compiled, machine, is_cached=False)
        ours = decide(compiled, known.machine, known.costs, scheduler=scheduler, select=False)
        in_order = decide(
            compiled, known.machine, known.costs, scheduler="sequential", select=False
        )
        wide = decide(
            compiled,
            whole,
            AnalyticCosts(compiled.graph, whole),
            scheduler="sequential",
            select=False,
        )
        predicted = ours.predict()
        in_order_us = in_order.predict()
        if predicted is None or in_order_us is None:
            raise RuntimeError("a decided model knows its costs")
        step("compile for TVM's virtual machine, its default pipeline", 0.25)
        from relay_passes.virtual_machine import compile_executable

        default = compile_executable(network)
        step("compile for TVM's virtual machine, our kernels", 0.4)
        carrying = compile_executable(network, pipeline=pipeline(machine=machine))
        engines: list[Engine] = [
            TvmVirtualMachine("TVM VM, default pipeline, 1 thread", default),
            TvmVirtualMachine("TVM VM, our kernels, 1 thread", carrying),
            HiosExecutor("hios-tvm, sequential, one 1-core device", in_order),
            HiosExecutor(f"hios-tvm, {scheduler}, two 1-core devices", ours),
            HiosExecutor("hios-tvm, sequential, one 2-core device", wide),
            OnnxRuntime(network, len(cores)),
        ]
        reference = OnnxRuntime(network)
        inputs = random_inputs(compiled.graph)
        errors = [relative_error(engine.run(inputs), reference.run(inputs)) for engine in engines]
        step("compare, interleaved", 0.55)
        comparison = compare_engines(
            [*engines, reference],
            inputs,
            warmup=2,
            repeat=repeat,
            budget_s=budget,
            settle=settle,
            progress=lambda done, total: progress(
                "compare, interleaved", 0.55 + 0.4 * done / total
            ),
        )
        step("trace one run", 0.96)
        measured = ours.profile(inputs=inputs)
    bound = lower_bound(compiled.graph, known.machine, known.costs)
    picture, trace = out / f"{stem}.png", out / f"{stem}.trace.json"
    draw_gantt(
        compiled.graph,
        known.machine,
        [predicted, measured],
        picture,
        title=f"{model}: {scheduler}",
        sequential_us=in_order_us.makespan_us,
        lower_bound_us=bound,
    )
    write_trace(compiled.graph, known.machine, [predicted, measured], trace)
    predictions = [None, None, in_order_us.makespan_us, predicted.makespan_us, None, None, None]
    result = {
        "model": model,
        "operators": len(compiled.graph.operators),
        "scheduler": scheduler,
        "lower_bound_us": bound,
        "engines": [
            {
                "name": row.name,
                "median_us": row.samples.median_us,
                "p10_us": row.samples.p10_us,
                "p90_us": row.samples.p90_us,
                "predicted_us": prediction,
                "relative_error": error,
                "samples": len(row.samples.times_us),
            }
            for row, prediction, error in zip(
                comparison.rows, predictions, [*errors, 0.0], strict=True
            )
        ],
        "picture": str(picture),
        "trace": str(trace),
    }
    if as_json:
        print_json(result)
    else:
        _print(model, comparison, predictions, [*errors, 0.0], bound)
        print(f"\npicture  {picture}\ntrace    {trace} (open in ui.perfetto.dev)")
    for engine in [*engines, reference]:
        engine.close()
    worst = max(errors)
    if not worst <= 1e-3:
        raise click.ClickException(f"outputs differ from ONNX Runtime's by {worst:.1e}")


def _print(
    model: str,
    comparison: Comparison,
    predictions: list[float | None],
    errors: list[float],
    bound: float,
) -> None:
    from rich.table import Table

    rounds = len(comparison.rows[0].samples.times_us)
    table = Table(
        title=f"{model}: one run, {rounds} interleaved runs each; lower bound on two devices "
        f"{bound / 1e3:.2f} ms",
        title_justify="left",
    )
    table.add_column("engine")
    for name in ("median ms", "p10–p90 ms", "predicted ms", "vs VM", "vs ours seq.", "error"):
        table.add_column(name, justify="right")
    in_order = comparison.rows[2].samples.median_us
    for row, prediction, error in zip(comparison.rows, predictions, errors, strict=True):
        samples = row.samples
        table.add_row(
            row.name,
            f"{samples.median_us / 1e3:.2f}",
            f"{samples.p10_us / 1e3:.2f}–{samples.p90_us / 1e3:.2f}",
            "" if prediction is None else f"{prediction / 1e3:.2f}",
            f"{row.ratio.value:.2f}×",
            f"{in_order / samples.median_us:.2f}×",
            f"{error:.1e}",
        )
    console().print(table)
    console().print("error: ‖out − ref‖ / ‖ref‖ against ONNX Runtime; ratios above 1 are faster")


if __name__ == "__main__":
    main()
