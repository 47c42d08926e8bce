"""Does it matter how idle threads of ONNX Runtime wait? Its settings, interleaved in one process.

``python -m benchmarks.spinning --out benchmarks/results/spinning.json``: one network, sessions with
two threads in an operator and with the parallel mode, each with the default (threads spin), without
spinning, and told to stop at the end of each run. Beside the latency stands the processor time that
its threads go on using after a turn, which the engine timed next would miss.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from graph_executor.host import cpu_name, host_features
from hios.ir.serial import encode_json, write_bytes
from hios_tvm.cli.terminal import console, print_json
from hios_tvm.comparison import compare_engines
from hios_tvm.engines.onnx_runtime import OnnxRuntime
from hios_tvm.settling import settle
from hios_tvm.sources import resolve_model

WAITING: dict[str, dict[str, str]] = {
    "default": {},
    "allow_spinning=0": {
        "session.intra_op.allow_spinning": "0",
        "session.inter_op.allow_spinning": "0",
    },
    "force_spinning_stop=1": {"session.force_spinning_stop": "1"},
}


@click.command()
@click.option("--model", default="light:squeezenet", show_default=True)
@click.option("--repeat", default=60, show_default=True, help="Counted runs of each session.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the raw figures as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(model: str, repeat: int, out: Path | None, as_json: bool) -> None:
    """Compare how ONNX Runtime's threads wait."""
    import numpy as np

    network = resolve_model(model)
    rng = np.random.default_rng(0)
    weights = {tensor.name for tensor in network.graph.initializer}
    inputs = {
        given.name: rng.standard_normal(
            [dim.dim_value for dim in given.type.tensor_type.shape.dim], dtype=np.float32
        )
        for given in network.graph.input
        if given.name not in weights
    }
    modes = [(intra, inter, how) for intra, inter in ((2, 1), (1, 2)) for how in WAITING]
    engines = [
        OnnxRuntime(network, intra, inter, settings=WAITING[how]) for intra, inter, how in modes
    ]
    compared = compare_engines(engines, inputs, repeat=repeat, settle=settle)
    rows = [
        {
            "mode": "2 threads" if inter == 1 else "parallel mode, 1×2",
            "waiting": how,
            "median_us": row.samples.median_us,
            "p10_us": row.samples.p10_us,
            "p90_us": row.samples.p90_us,
            "lingering_us": row.lingering_us,
            "samples": len(row.samples.times_us),
        }
        for (_, inter, how), row in zip(modes, compared.rows, strict=True)
    ]
    for engine in engines:
        engine.close()
    result: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": cpu_name(),
        "vectors": sorted(host_features() or ()),
        "model": model,
        "rows": rows,
    }
    if out is not None:
        write_bytes(out, encode_json(result, indent=2))
    if as_json:
        print_json(result)
    else:
        console().print(table(result), markup=False)


def table(result: dict[str, Any]) -> str:
    """Return the figures as Markdown: a row a setting, a column a mode."""
    modes = list(dict.fromkeys(row["mode"] for row in result["rows"]))
    lines = [
        f"| {result['model']} | " + " | ".join(modes) + " | used afterwards |",
        "|---|" + "--:|" * (len(modes) + 1),
    ]
    for how in WAITING:
        rows = [row for row in result["rows"] if row["waiting"] == how]
        cells = [
            f"{row['median_us'] / 1e3:.2f} ms ({row['p10_us'] / 1e3:.2f}–{row['p90_us'] / 1e3:.2f})"
            for row in rows
        ]
        lingering = max(row["lingering_us"] for row in rows) / 1e3
        lines.append(f"| `{how}` | " + " | ".join(cells) + f" | {lingering:.2f} ms |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
