"""Rebuild the tables of README and docs from the raw figures in ``benchmarks/results``.

``python -m benchmarks.tables`` replaces what stands between ``<!-- table NAME -->`` and
``<!-- end -->`` in the pages; with ``--check`` it only says whether they are up to date.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (
    ROOT / "README.md",
    *(ROOT / "docs" / name for name in ("measurements.md", "kernels.md", "cuda-kernels.md")),
)

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
        cells = [f"{_ms(base['median_us'])} ms ({_ms(base['predicted_us'])})"]
        cells += [
            f"{_ms(rows[n]['median_us'])} ms ({_ms(rows[n]['predicted_us'])}), "
            f"**{rows[n]['speedup']:.2f}×** ({rows[n]['speedup_low']:.2f}–"
            f"{rows[n]['speedup_high']:.2f})"
            for n in names[1:]
        ]
        bound = _ms(base["lower_bound_us"])
        lines.append(f"| {model} | " + " | ".join(cells) + f" | {bound} ms |")
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


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "kernels": kernels,
    "main_job": main_job,
    "schedulers_light": schedulers,
    "schedulers_zoo": schedulers,
    "cuda_kernels": cuda_kernels,
}
"""How the table of each result is made; the result is ``NAME.json``."""


def rebuilt(page: str) -> str:
    """Return the text of a page with its tables made anew."""

    def replace(block: re.Match[str]) -> str:
        result = json.loads((RESULTS / f"{block[2]}.json").read_text())
        return f"{block[1]}\n{TABLES[block[2]](result)}\n\n{block[3]}"

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
