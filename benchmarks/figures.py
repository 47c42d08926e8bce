"""Redraw the pictures of the docs from the raw figures in ``benchmarks/results``.

``python -m benchmarks.figures`` draws what is stale; with ``--check`` it only says so. A picture
keeps the digest of the figures that it was drawn from, so that no renderer has to give the same
pixels twice. ``make figures`` makes the tables as well.
"""

import hashlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from benchmarks.compare import SuiteResult
from benchmarks.simulate import draw_sweep, read_study
from benchmarks.tables import RESULTS, ROOT
from hios.errors import InvalidOption
from hios.ir.serial import decode_json, write_atomically

IMAGES = ROOT / "docs" / "images"

Draw = Callable[[Path, Path, dict[str, str]], None]


def _study(sweep: str, source: Path, target: Path, metadata: dict[str, str]) -> None:
    rows = [row for row in read_study(source) if row.point.sweep == sweep]
    draw_sweep(rows, target, metadata)


def suite_bars(source: Path, target: Path, metadata: dict[str, str]) -> None:
    """Draw a suite of `benchmarks.compare`: a group a network, a bar an engine, whiskers p10–p90.

    Times are over those of ONNX Runtime's parallel mode, so that small and large networks share
    an axis; shorter is faster.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    result = decode_json(source.read_bytes(), SuiteResult, InvalidOption, str(source))
    shown = {
        "build": ("hios-tvm, what build chose", "#3b6fb6"),
        "ort-all": ("ONNX Runtime, all cores", "#f0c27b"),
        "ort-parallel": ("ONNX Runtime, parallel mode", "#e39a3b"),
    }
    figure = Figure(figsize=(8.4, 3.6), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    width = 0.8 / len(shown)
    for place, (key, (label, colour)) in enumerate(shown.items()):
        where, heights, below, above = [], [], [], []
        for index, network in enumerate(result.networks):
            row, base = network.row(key), network.row("ort-parallel")
            if row is None or row.median_us is None or base is None or base.median_us is None:
                continue
            where.append(index + (place - (len(shown) - 1) / 2) * width)
            heights.append(row.median_us / base.median_us)
            below.append(max(0.0, (row.median_us - (row.p10_us or 0.0)) / base.median_us))
            above.append(max(0.0, ((row.p90_us or 0.0) - row.median_us) / base.median_us))
        axes.bar(
            where,
            heights,
            width,
            yerr=[below, above],
            label=label,
            color=colour,
            error_kw={"elinewidth": 0.8, "capsize": 1.5, "ecolor": "#1c2430"},
        )
    names = [network.model.partition(":")[2].replace("@", "\n@") for network in result.networks]
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_ylabel("time over ONNX Runtime's parallel mode", fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=7.5, frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    write_atomically(
        target, lambda temporary: figure.savefig(temporary, format="png", metadata=metadata)
    )


PICTURES: dict[str, tuple[str, Draw]] = {
    **{
        f"study_{sweep}.png": ("simulate_study.csv", partial(_study, sweep))
        for sweep in ("gpus", "operators", "edges", "layers", "ratio")
    },
    "compare_cpu.png": ("compare_cpu.json", suite_bars),
}
"""From what file each picture is drawn, and how."""


def is_stale(name: str) -> bool:
    """Return whether a picture is missing or drawn from other figures than those at hand."""
    from PIL import Image

    path = IMAGES / name
    if not path.exists():
        return True
    with Image.open(path) as image:
        return image.info.get("Source") != _source(RESULTS / PICTURES[name][0])


def published() -> list[str]:
    """Return the pictures whose figures are there."""
    return [name for name, (source, _) in PICTURES.items() if (RESULTS / source).exists()]


@click.command()
@click.option("--check", is_flag=True, help="Draw nothing; exit with 1 where a picture is stale.")
def main(check: bool) -> None:
    """Redraw the pictures of the docs."""
    for name in published():
        if is_stale(name):
            if check:
                sys.exit(f"docs/images/{name} is stale; run python -m benchmarks.figures")
            source, draw = PICTURES[name]
            draw(RESULTS / source, IMAGES / name, {"Source": _source(RESULTS / source)})
            print(f"drew docs/images/{name}")


def _source(path: Path) -> str:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{path.name} sha256:{digest}"


if __name__ == "__main__":
    main()
