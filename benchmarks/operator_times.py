"""Where the time of one network goes, by kind of operator: ours beside ONNX Runtime's.

Both engines tell it themselves, ours by stamps around every kernel, ONNX Runtime by its profile
of every node. Both fuse, each in its own way: an activation or a sum counts where it runs.
"""

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from graph_executor.executor import random_inputs
from hios.ir.kernels import CompiledGraph
from hios_tvm.model import Model

__all__ = ["compare_operators", "operator_table"]

_KIND_OF_NODE = {
    "Conv": "convolution",
    "FusedConv": "convolution",
    "Gemm": "dense",
    "FusedGemm": "dense",
    "MatMul": "dense",
    "FusedMatMul": "dense",
    "MaxPool": "pool",
    "AveragePool": "pool",
    "GlobalAveragePool": "global_pool",
    "GlobalMaxPool": "global_pool",
    "ReduceMean": "global_pool",
    "Concat": "concat",
    "Split": "slice",
    "Slice": "slice",
    "LRN": "lrn",
    "Softmax": "softmax",
    "LayerNormalization": "norm",
    "SkipLayerNormalization": "norm",
    "BatchNormalization": "norm",
    "Transpose": "transpose",
    "ReorderInput": "transpose",
    "ReorderOutput": "transpose",
    "Upsample": "resize",
    "Resize": "resize",
}
_KIND_OF_OURS = {"conv2d": "convolution", "depthwise": "convolution", "reduce": "global_pool"}


def compare_operators(
    compiled: CompiledGraph, network: Any, model: Model, runs: int = 30
) -> list[dict[str, Any]]:
    """Return one row per kind of operator, on one core, the slowest of ours first.

    Parameters
    ----------
    compiled
        The network with our kernels.
    network
        The same as ``onnx.ModelProto``.
    model
        The compiled network in sequence on one core; closed here.
    runs
        Of each engine; medians per operator are summed.
    """
    ours, our_counts = _ours(compiled, model, runs)
    theirs, their_counts = _theirs(network, random_inputs(compiled.graph), runs)
    kinds = sorted(ours.keys() | theirs.keys(), key=lambda k: -max(ours[k], theirs[k]))
    return [
        {
            "kind": kind,
            "ours": our_counts[kind],
            "ours_us": ours[kind],
            "onnxruntime": their_counts[kind],
            "onnxruntime_us": theirs[kind],
        }
        for kind in kinds
    ]


def operator_table(name: str, rows: list[dict[str, Any]]) -> Any:
    """Return a table for people."""
    from rich.table import Table

    table = Table(title=f"{name} on one core: where the time goes", title_justify="left")
    table.add_column("kind")
    for title in ("ours", "our ms", "ONNX Runtime", "its ms", "difference ms"):
        table.add_column(title, justify="right")
    total = {
        key: sum(row[key] for row in rows)
        for key in ("ours", "ours_us", "onnxruntime", "onnxruntime_us")
    }
    for row in [*rows, {"kind": "all", **total}]:
        table.add_row(
            row["kind"],
            str(row["ours"]),
            f"{row['ours_us'] / 1e3:.3f}",
            str(row["onnxruntime"]),
            f"{row['onnxruntime_us'] / 1e3:.3f}",
            f"{(row['ours_us'] - row['onnxruntime_us']) / 1e3:+.3f}",
        )
    return table


def _ours(compiled: CompiledGraph, model: Model, runs: int) -> tuple[Counter[str], Counter[str]]:
    times: dict[int, list[float]] = {}
    with model:
        for timeline in model.executor.timelines(runs):
            for event in timeline.events:
                if event.kind == "operator":
                    times.setdefault(event.subject, []).append(event.end_us - event.start_us)
    total: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for op, taken in times.items():
        kind = compiled.graph.operators[op].kind
        kind = _KIND_OF_OURS.get(kind, kind)
        total[kind] += float(np.median(taken))  # type: ignore[assignment]
        count[kind] += 1
    return total, count


def _theirs(network: Any, inputs: Any, runs: int) -> tuple[Counter[str], Counter[str]]:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(
            network.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        for _ in range(runs + 3):
            session.run(None, dict(inputs))
        events = json.loads(Path(session.end_profiling()).read_text())
    times: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            key = (event["name"], event["args"]["op_name"])
            times.setdefault(key, []).append(float(event["dur"]))
    total: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for (_, node), taken in times.items():
        kind = _KIND_OF_NODE.get(node, "elementwise")
        total[kind] += float(np.median(taken[3:]))  # type: ignore[assignment]
        count[kind] += 1
    return total, count
