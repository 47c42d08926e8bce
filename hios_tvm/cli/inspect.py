"""`hios inspect`: what a graph, a model or an artifact is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from hios_tvm.cli.complete import complete_sources
from hios_tvm.cli.options import ModelChoice, OutputChoice, model_options, output_options
from hios_tvm.cli.terminal import console, print_json, progress_bar

if TYPE_CHECKING:
    from graph_executor.prediction import MemoryUse
    from hios.ir.graph import OpGraph
    from hios.ir.schedule import Placement

__all__ = ["command"]


@dataclass(frozen=True, slots=True)
class _Placed:
    """What an artifact says of its operators' places, of its devices and their memory."""

    operators: "Mapping[int, Placement]" = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    memory: "tuple[MemoryUse, ...]" = ()


_LABELS = {
    "time_us": "sum of the times",
    "width": "width (most at once)",
    "longest_path": "longest path [operators]",
    "weights_bytes": "size of the weights",
    "flops": "work",
    "parallelism": "work over critical path",
}


@click.command("inspect", short_help="Show what a model is made of.")
@click.argument("source", metavar="FILE", shell_complete=complete_sources)
@click.option("--operators", is_flag=True, help="List every operator.")
@model_options
@output_options
def command(source: str, operators: bool, model: ModelChoice, output: OutputChoice) -> None:
    """Show what FILE is made of: inputs, outputs, operators by kind, work, parallelism.

    FILE is a graph file (.json), a model (.onnx, .pt2, zoo:NAME, light:NAME) or an artifact
    (.hios), of which the target, the machine and the schedule are told as well.

    \b
    Examples:
      hios inspect model.hios --operators
      hios inspect model.onnx --json
    """
    graph, origin, placed = _open(source, model, output)
    memory = placed.memory
    facts = {**origin, **_facts(graph)}
    if output.json:
        rows = [_operator(graph, op, placed) for op in range(len(graph.operators))]
        if memory:
            from hios_tvm.report.placement_tables import memory_rows

            facts["memory"] = memory_rows(memory)
        print_json(facts | ({"operators_list": rows} if operators else {}))
        return
    from rich.table import Table
    from rich.text import Text

    from hios_tvm.report.summary import format_bytes, format_flops, format_us, rows_table

    terminal = console()
    table = Table(show_header=False, title=Text(graph.name), title_justify="left")
    for key, value in facts.items():
        if isinstance(value, list):
            continue
        shown = str(value)
        if key.endswith("_bytes"):
            shown = format_bytes(value)
        elif key == "flops":
            shown = format_flops(value)
        elif key.endswith("_us") and not isinstance(value, str):
            shown = format_us(value)
        elif isinstance(value, float):
            shown = f"{value:.2f}"
        table.add_row(
            Text(_LABELS.get(key, key.removesuffix("_us").replace("_", " "))), Text(shown)
        )
    terminal.print(table)
    ports = [
        (f"{kind}  {port['name']}", "×".join(map(str, port["shape"])) or "scalar", port["dtype"])
        for kind in ("input", "output")
        for port in facts[f"{kind}s"]
    ]
    if ports:
        terminal.print(rows_table(("", "shape", "dtype"), ports))
    kinds = [
        (
            row["kind"] or "operator",
            str(row["operators"]),
            format_flops(row["flops"]),
            format_bytes(row["bytes"]) if row["bytes"] else "–",
        )
        for row in facts["kinds"]
    ]
    terminal.print(rows_table(("kind", "operators", "work", "read and written"), kinds))
    if memory:
        from hios_tvm.report.placement_tables import memory_table

        terminal.print(memory_table(memory))
    if operators:
        terminal.print(_operators_table(graph, placed))
        if any("registers" in operator.launch for operator in graph.operators):
            terminal.print(_launches_table(graph))


def _open(
    source: str, model: ModelChoice, output: OutputChoice
) -> "tuple[OpGraph, dict[str, Any], _Placed]":
    """Return the graph, where it comes from, and what an artifact says of its places."""
    from pathlib import Path

    if source.endswith(".json"):
        from hios.graph_file import read_graph_file

        file = read_graph_file(source)
        return file.graph, {"source": "graph file", "time_us": sum(file.times_us)}, _Placed()
    if source.rstrip("/").endswith(".hios") or Path(source).is_dir():
        from graph_executor.artifact import load_artifact

        artifact = load_artifact(source)
        manifest, schedule = artifact.manifest, artifact.schedule
        origin = {
            "source": f"artifact, format {manifest.format_version}",
            "made_by": f"hios-tvm {manifest.hios_version}, TVM {manifest.tvm_version}",
            "target": manifest.target,
            "machine": ", ".join(
                f"{device.name} ({device.streams} streams)" for device in artifact.machine.devices
            ),
            "scheduler": schedule.scheduler,
            **{key: schedule.notes[key] for key in sorted(schedule.notes)},
        }
        from graph_executor.prediction import memory_of

        if artifact.prediction is not None and artifact.prediction.timeline is not None:
            origin["predicted_us"] = artifact.prediction.timeline.makespan_us
        graph = artifact.compiled.graph
        placed = _Placed(
            {int(op): placement for op, placement in schedule.placement_of().items()},
            tuple(device.name for device in artifact.machine.devices),
            memory_of(graph, artifact.machine, schedule),
        )
        return graph, origin, placed
    from hios_tvm.cli.options import parse_shapes
    from hios_tvm.sources import choose_target, compile_model

    shapes = parse_shapes(model.shapes)
    with progress_bar("compile", output.quiet or output.json) as progress:
        compiled = compile_model(
            source,
            choose_target(model.target, None, model.allow_tf32),
            shapes=shapes,
            seed=model.seed,
            cache=model.cache,
            database=model.database,
            progress=progress,
        )
    return compiled.graph, {"source": source, "target": compiled.library.target}, _Placed()


def _facts(graph: "OpGraph") -> dict[str, Any]:
    from hios.structure import longest_path, width

    dependencies = graph.to_networkx()
    inner = [op.flops for op in graph.operators]
    steps, _ = longest_path(dependencies)
    critical, _ = longest_path(dependencies, lambda op: inner[op])
    kinds: dict[str, dict[str, Any]] = {}
    for op in graph.operators:
        row = kinds.setdefault(op.kind, {"kind": op.kind, "operators": 0, "flops": 0.0, "bytes": 0})
        row["operators"] += 1
        row["flops"] += op.flops
        row["bytes"] += op.bytes_read + op.bytes_written
    weights = [tensor for tensor in graph.tensors if _is_weight(graph, tensor.id)]
    facts: dict[str, Any] = {
        "graph": graph.name,
        "operators": len(graph.operators),
        "kernels": len({op.kernel for op in graph.operators if op.kernel}),
        "edges": dependencies.number_of_edges(),
        "width": width(dependencies),
        "longest_path": int(steps),
        "weights": len(weights),
        "weights_bytes": sum(tensor.bytes for tensor in weights),
        "flops": sum(inner),
        "parallelism": sum(inner) / critical if critical else len(inner) / max(1.0, steps),
        "kinds": sorted(kinds.values(), key=lambda row: (-row["flops"], -row["operators"])),
    }
    for label, tensors in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        facts[label] = [
            {"name": one.name, "shape": list(one.shape), "dtype": one.dtype}
            for one in (graph.tensors[tensor] for tensor in tensors)
        ]
    return facts


def _is_weight(graph: "OpGraph", tensor: Any) -> bool:
    return graph.tensors[tensor].alias_of is None and graph.is_weight(tensor)


def _operator(graph: "OpGraph", op: int, where: "_Placed") -> dict[str, Any]:
    operator = graph.operators[op]
    placed = where.operators.get(op)
    row: dict[str, Any] = {
        "op": op,
        "name": operator.name,
        "kind": operator.kind,
        "kernel": operator.kernel,
        "flops": operator.flops,
        "bytes_read": operator.bytes_read,
        "bytes_written": operator.bytes_written,
        "shapes": [list(graph.tensors[tensor].shape) for tensor in operator.outputs],
    }
    if operator.launch:
        row["launch"] = dict(operator.launch)
    if placed is not None:
        row |= {
            "device": placed.device,
            "device_name": where.devices[placed.device],
            "stream": placed.stream,
            "stage": placed.stage,
        }
    return row


def _operators_table(graph: "OpGraph", where: "_Placed") -> Any:
    from hios_tvm.report.summary import format_bytes, format_flops, rows_table

    headers = ["operator", "kind", "output", "work", "read and written"]
    placements = where.operators
    if placements:
        headers += ["device", "stream", "stage"]
    rows = []
    for operator in graph.operators:
        shapes = (graph.tensors[tensor].shape for tensor in operator.outputs)
        cells = [
            f"{operator.id}  {operator.name}",
            operator.kind,
            ", ".join("×".join(map(str, shape)) or "scalar" for shape in shapes),
            format_flops(operator.flops),
            format_bytes(operator.bytes_read + operator.bytes_written),
        ]
        if placements:
            placed = placements[operator.id]
            stage = "–" if placed.stage is None else str(placed.stage)
            cells += [where.devices[placed.device], str(placed.stream), stage]
        rows.append(cells)
    return rows_table(headers, rows)


def _launches_table(graph: "OpGraph") -> Any:
    """What a launch of each distinct CUDA kernel takes of a multiprocessor."""
    from hios_tvm.report.summary import format_bytes, rows_table

    headers = ["kernel", "blocks", "threads", "registers", "shared", "local", "blocks/SM", "full"]
    rows = []
    for name, launch in {op.kernel: op.launch for op in graph.operators}.items():
        if "registers" not in launch:
            continue
        rows.append(
            [
                name,
                *(str(launch[key]) for key in ("grid", "block", "registers")),
                *(format_bytes(launch[key]) for key in ("shared_bytes", "local_bytes")),
                str(launch["resident_blocks"]),
                f"{launch['occupancy_percent']} %",
            ]
        )
    return rows_table(headers, rows)
