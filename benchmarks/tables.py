"""Rebuild the tables of README and docs from the raw figures in ``benchmarks/results``.

``python -m benchmarks.tables`` replaces what stands between ``<!-- table NAME -->`` and
``<!-- end -->`` in the pages; with ``--check`` it only says whether they are up to date.
`benchmarks.figures` does the same for pictures, and ``make figures`` does both.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks import cost_model_tables, spinning
from benchmarks.compare import SuiteResult
from benchmarks.gpu import tables as gpu_tables
from benchmarks.optimization_cost import growths_of, markdown_table, read_points
from benchmarks.simulate import read_study, sweep_table
from hios.errors import InvalidOption
from hios.ir.serial import decode_json

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = tuple(
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if "<!-- table " in page.read_text(encoding="utf-8")
)
"""Every page with a table that is made here."""

_BLOCK = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main_job(result: dict[str, Any]) -> str:
    """Return the table of `benchmarks.main_job`."""
    engines = result["engines"]
    in_order = next(e for e in engines if "sequential, one 1-core" in e["name"])["median_us"]
    lines = [
        "| engine | median | p10–p90 | predicted | against ours in sequence |",
        "|---|--:|--:|--:|--:|",
    ]
    for engine in engines:
        predicted = engine["predicted_us"]
        lines.append(
            f"| {engine['name']} | {_ms(engine['median_us'])} ms "
            f"| {_ms(engine['p10_us'])}–{_ms(engine['p90_us'])} ms "
            f"| {'' if predicted is None else _ms(predicted) + ' ms'} "
            f"| {in_order / engine['median_us']:.2f}× |"
        )
    return "\n".join(lines)


def schedulers(result: dict[str, Any]) -> str:
    """Return the table of `benchmarks.schedulers_measured`: a row a network."""
    names = list(dict.fromkeys(row["scheduler"] for row in result["rows"]))
    lines = [
        "| network | in sequence | " + " | ".join(f"`{n}`" for n in names[1:]) + " | bound |",
        "|---|--:|" + "--:|" * len(names),
    ]
    for model in dict.fromkeys(row["model"] for row in result["rows"]):
        rows = {row["scheduler"]: row for row in result["rows"] if row["model"] == model}
        base = rows[names[0]]
        cells = [f"{_ms(base['median_us'])} ({_ms(base['predicted_us'])})"]
        cells += [
            f"{_ms(rows[n]['median_us'])} ({_ms(rows[n]['predicted_us'])}), "
            f"**{rows[n]['speedup']:.2f}×** ({rows[n]['speedup_low']:.2f}–"
            f"{rows[n]['speedup_high']:.2f})"
            for n in names[1:]
        ]
        bound = _ms(base["lower_bound_us"])
        lines.append(f"| {model} | " + " | ".join(cells) + f" | {bound} |")
    return "\n".join(lines)


def kernels(result: dict[str, Any]) -> str:
    """Return the table of `benchmarks.kernels`: a row a network, and the geometric means."""
    counts = [part["threads"] for part in result["rows"][0]["threads"]]
    head = [f"ours, {n} | ONNX Runtime, {n} | ratio" for n in map(_cores, counts)]
    lines = [
        "| network | " + " | ".join(head) + " | TVM's default |",
        "|---|" + "--:|" * (3 * len(counts) + 1),
    ]
    for row in result["rows"]:
        cells = []
        for part in row["threads"]:
            cells += [
                f"{_ms(part['ours']['median_us'])} ms",
                f"{_ms(part['onnxruntime']['median_us'])} ms",
                f"**{part['ratio']:.2f}** ({part['ratio_low']:.2f}–{part['ratio_high']:.2f})",
            ]
        slower = f"{row['over_default']:.0f}× slower" if "over_default" in row else ""
        lines.append(f"| {row['model']} | " + " | ".join(cells) + f" | {slower} |")
    means = result["geometric_means"].values()
    lines.append(
        "| geometric mean |" + " |".join(f"  |  | **{mean:.2f}**" for mean in means) + " |  |"
    )
    note = f" {result['note']}" if "note" in result else ""
    return "\n".join([*lines, "", f"{result['machine']}, {result['date']}.{note}"])


def cuda_kernels(result: dict[str, Any]) -> str:
    """Return the table of `benchmarks.cuda_kernels`: a row a kernel, figures of each target."""
    archs = list(dict.fromkeys(row["arch"] for row in result["rows"]))
    lines = [
        "| kernel | family | rule | calls | grid | block | shared [bytes] | "
        + " | ".join(f"registers, blocks/SM, occupancy: {arch}" for arch in archs)
        + " |",
        "|---|---|---|--:|--:|--:|--:|" + "--:|" * len(archs),
    ]
    for name in dict.fromkeys(row["kernel"] for row in result["rows"]):
        rows = {row["arch"]: row for row in result["rows"] if row["kernel"] == name}
        first = rows[archs[0]]

        def of(key: str, rows: dict[str, Any] = rows) -> str:
            return " / ".join(dict.fromkeys(str(rows[arch][key]) for arch in archs))

        cells = [
            f"{rows[arch]['registers']}, {rows[arch]['resident_blocks']}, "
            f"{rows[arch]['occupancy_percent']} %"
            for arch in archs
        ]
        lines.append(
            f"| `{name}` | {first['kind']} | {first['rule']} | {first['operators']} | {of('grid')} "
            f"| {of('block')} | {of('shared_bytes')} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines)


def cuda_zoo(result: dict[str, Any]) -> str:
    """Return the table of ``benchmarks.cuda_kernels --summary``: a row a network."""
    archs = sorted({entry["arch"] for entry in result["networks"]})
    heads = ["network", "architecture", "operators", "kernels", "of these by rule"]
    heads += ["most registers", "most shared [bytes]", "most local [bytes]", "workspaces"]
    heads += ["complaints"]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|--:|--:|---|--:|--:|--:|--:|--:|"]
    for model in dict.fromkeys(entry["model"] for entry in result["networks"]):
        entries = [entry for entry in result["networks"] if entry["model"] == model]

        def of(key: str, entries: list[dict[str, Any]] = entries) -> str:
            return " / ".join(dict.fromkeys(str(entry[key]) for entry in entries))

        rules = " / ".join(
            dict.fromkeys(
                ", ".join(f"{count} {rule}" for rule, count in entry["rules"].items())
                for entry in entries
            )
        )
        made = [entry["arch"] for entry in entries]
        lines.append(
            f"| `{model}` | {'both' if made == archs else ', '.join(made)} | {of('operators')} "
            f"| {of('kernels')} | {rules} | {of('most_registers')} | {of('most_shared_bytes')} "
            f"| {of('most_local_bytes')} | {of('workspaces')} "
            f"| {' / '.join(dict.fromkeys(str(len(e['complaints'])) for e in entries))} |"
        )
    return "\n".join(lines)


def compared(path: Path) -> str:
    """Return the table of `benchmarks.compare`: a row a network, then the means."""
    result = decode_json(path.read_bytes(), SuiteResult, InvalidOption, str(path))
    keys = list(
        dict.fromkeys(
            row.key for network in result.networks for row in network.rows if row.median_us
        )
    )
    heads = ["network", *(_HEADS.get(key, f"`{key}`") for key in keys), "ours is, of the best"]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "--:|" * (len(heads) - 1)]
    for network in result.networks:
        cells = [network.model]
        for key in keys:
            row = network.row(key)
            if row is None or row.median_us is None:
                cells.append("–")
                continue
            cells.append(
                f"{_ms(row.median_us)} ({_ms(row.p10_us or 0.0)}–{_ms(row.p90_us or 0.0)})"
            )
        best = next(iter(network.measured("ort")), None)
        verdict = next((v for v in network.verdicts if best and v.rival == best.key), None)
        told = "–"
        if verdict is not None:
            told = f"**{verdict.ratio:.2f}×** ({verdict.low:.2f}–{verdict.high:.2f})"
        lines.append("| " + " | ".join([*cells, told]) + " |")
    lines += [""] + [
        f"- `{mean.ours}` against {mean.rival}: **{mean.geometric:.2f}×** as fast "
        f"(geometric mean), worst {mean.worst:.2f}× on {mean.worst_model}"
        for mean in result.means
    ]
    return "\n".join(lines)


_HEADS = {
    "ort-1": "ONNX Runtime, 1 thread",
    "ort-all": "ONNX Runtime, all cores",
    "ort-parallel": "ONNX Runtime, parallel mode",
    "tvm-ours-all": "TVM VM, our kernels, all cores",
}


def optimization_cost(path: Path) -> str:
    """Return the table of `benchmarks.optimization_cost`, of the machines with 4 devices."""
    points = [point for point in read_points(path) if point.devices == 4]
    return markdown_table(points, growths_of(points)).rstrip()


def _of_json(make: Callable[[dict[str, Any]], str]) -> Callable[[Path], str]:
    return lambda path: make(json.loads(path.read_bytes()))


def _of_study(sweep: str) -> Callable[[Path], str]:
    return lambda path: sweep_table([r for r in read_study(path) if r.point.sweep == sweep])


TABLES: dict[str, tuple[str, Callable[[Path], str]]] = {
    "main_job": ("main_job.json", _of_json(main_job)),
    "schedulers_light": ("schedulers_light.json", _of_json(schedulers)),
    "schedulers_zoo": ("schedulers_zoo.json", _of_json(schedulers)),
    "kernels": ("kernels.json", _of_json(kernels)),
    "cuda_kernels": ("cuda_kernels.json", _of_json(cuda_kernels)),
    "cuda_zoo": ("cuda_zoo.json", _of_json(cuda_zoo)),
    "optimization_cost": ("optimization_cost.csv", optimization_cost),
    "compare_cpu": ("compare_cpu.json", compared),
    **{
        name: (f"{cost_model_tables.RESULT_OF.get(name, name)}.json", _of_json(make))
        for name, make in cost_model_tables.TABLES.items()
    },
    "spinning": ("spinning.json", _of_json(spinning.table)),
    **{name: (file, _of_json(make)) for name, (file, make) in gpu_tables.TABLES.items()},
    **{
        f"study_{sweep}": ("simulate_study.csv", _of_study(sweep))
        for sweep in ("gpus", "operators", "edges", "layers", "ratio")
    },
}
"""From what file each table is made, and how."""


def rebuilt(page: str) -> str:
    """Return the text of a page with its tables made anew."""

    def replace(block: re.Match[str]) -> str:
        name, make = TABLES[block[2]]
        return f"{block[1]}\n{make(RESULTS / name)}\n\n{block[3]}"

    return _BLOCK.sub(replace, page)


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 where a page is stale.")
def main(check: bool) -> None:
    """Rebuild the tables of README and docs."""
    for path in PAGES:
        before = path.read_text()
        after = rebuilt(before)
        if after != before:
            if check:
                sys.exit(f"{path.relative_to(ROOT)} is stale; run python -m benchmarks.tables")
            path.write_text(after)


def _cores(count: int) -> str:
    return "1 core" if count == 1 else f"{count} cores"


def _ms(time_us: float) -> str:
    return f"{time_us / 1e3:.2f}" if time_us < 1e5 else f"{time_us / 1e3:.1f}"


if __name__ == "__main__":
    main()
