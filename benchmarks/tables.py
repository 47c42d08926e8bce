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
    ROOT / "docs" / "measurements.md",
    ROOT / "docs" / "cost-model.md",
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


def cost_model(result: dict[str, Any]) -> str:
    """Return the tables of `benchmarks.cost_model`: each split, then what else it says."""
    data, noise = result["data"], result["data"]["noise"]
    floor = "unknown" if noise is None else f"{noise['mape']:.1%} (p90 {noise['p90']:.1%})"
    head = f"{data['groups']} groups of {data['operators']} operators"
    lines = [
        f"{head} from {len(data['networks'])} networks; noise floor {floor}.",
        "",
        (
            "| held out | predicted by | MAPE (95 % interval) | p90 | Spearman(y) | decided right "
            "| in interval | skill over LB |"
        ),
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for split in result["splits"]:
        rows = {"**learned**": split["learned"], **split["baselines"]}
        for number, (name, row) in enumerate(rows.items()):
            mape, skill = row["mape"], row["skill"]
            covered = "" if row["coverage"] is None else f"{row['coverage']:.1%}"
            head = f"{split['split']} ({row['groups']} groups)" if number == 0 else ""
            lines.append(
                f"| {head} | {name} | {mape['value']:.1%} ({mape['low']:.1%}–{mape['high']:.1%}) "
                f"| {row['p90']:.1%} | {row['spearman']:.3f} | {row['decided']:.1%} | {covered} "
                f"| {skill['value']:.2f} ({skill['low']:.2f}–{skill['high']:.2f}) |"
            )
    return "\n".join(lines)


def cost_model_curve(result: dict[str, Any]) -> str:
    """Return the learning curve of `benchmarks.cost_model`."""
    lines = ["| groups trained on | MAPE of networks left out (95 % interval) |", "|--:|--:|"]
    lines += [
        f"| {point['groups']:.0f} | {point['mape']:.1%} ({point['low']:.1%}–{point['high']:.1%}) |"
        for point in result["learning_curve"]
    ]
    return "\n".join(lines)


def cost_model_networks(result: dict[str, Any]) -> str:
    """Return the error of each network left out."""
    lines = ["| network left out | groups | MAPE |", "|---|--:|--:|"]
    for split in result["splits"]:
        if split["split"] == "unseen-model":
            lines += [
                f"| {name} | {count} | {error:.1%} |"
                for name, (error, count) in split["by_fold"].items()
            ]
    return "\n".join(lines)


def cost_model_importance(result: dict[str, Any]) -> str:
    """Return the features that reduced the loss most."""
    lines = ["| feature | share of the gain |", "|---|--:|"]
    lines += [f"| `{one['feature']}` | {one['share']:.1%} |" for one in result["importance"][:12]]
    return "\n".join(lines)


def cost_model_regret(result: dict[str, Any]) -> str:
    """Return the table of `benchmarks.cost_model_regret`: a row a network and scheduler."""
    lines = [
        (
            "| network | scheduler | in sequence | exhaustive profile | learned | regret (90 %) "
            "| groups measured: exhaustive, learned | seconds: exhaustive, learned |"
        ),
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row['model']} | `{row['scheduler']}` | {_ms(row['sequential_us'])} ms "
        f"| {_ms(row['exhaustive_us'])} ms | {_ms(row['learned_us'])} ms "
        f"| {row['regret']:+.1%} ({row['regret_low']:+.1%} to {row['regret_high']:+.1%}) "
        f"| {row['stages_asked']}, 0 "
        f"| {row['stage_seconds']:.1f}, {row['learned_seconds']:.2f} |"
        for row in result["rows"]
    ]
    return "\n".join(lines)


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "cost_model": cost_model,
    "cost_model_curve": cost_model_curve,
    "cost_model_importance": cost_model_importance,
    "cost_model_networks": cost_model_networks,
    "cost_model_regret": cost_model_regret,
    "main_job": main_job,
    "schedulers_light": schedulers,
    "schedulers_zoo": schedulers,
}
"""How the table of each result is made; the result is ``NAME.json``, see `SOURCES`."""

SOURCES = {
    "cost_model_curve": "cost_model",
    "cost_model_importance": "cost_model",
    "cost_model_networks": "cost_model",
}
"""Tables that are made from the result of another name."""


def rebuilt(page: str) -> str:
    """Return the text of a page with its tables made anew."""

    def replace(block: re.Match[str]) -> str:
        result = json.loads((RESULTS / f"{SOURCES.get(block[2], block[2])}.json").read_text())
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


def _ms(time_us: float) -> str:
    return f"{time_us / 1e3:.2f}" if time_us < 1e5 else f"{time_us / 1e3:.1f}"


if __name__ == "__main__":
    main()
