"""A comparison as a picture: one bar an engine, its 10th to 90th percentile as a whisker."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hios.ir.serial import write_atomically
from hios_tvm.comparison_result import ComparisonResult

__all__ = ["draw_comparison"]

_COLOURS = {
    "hios": "#3b6fb6",
    "tvm": "#8a94a6",
    "ort": "#e39a3b",
    "torch": "#c2543d",
    "tensorrt": "#6a9c3b",
    "openvino": "#7a52a8",
}
_INK = "#1c2430"
_LOG_FROM = 12.0
"""Slowest over fastest beyond which a linear axis would hide the fast ones."""


def draw_comparison(
    result: ComparisonResult, path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Draw the measured rows, fastest on top, as a PNG file.

    Parameters
    ----------
    result
        With one measured row at least.
    path
        Where to write it.
    metadata
        Text to keep in the file.

    Raises
    ------
    StorageError
        When it cannot be written.
    """
    rows = list(reversed(result.measured()))
    medians = [(row.median_us or 0.0) / 1e3 for row in rows]
    low = [m - (row.p10_us or 0.0) / 1e3 for m, row in zip(medians, rows, strict=True)]
    high = [(row.p90_us or 0.0) / 1e3 - m for m, row in zip(medians, rows, strict=True)]
    figure = Figure(figsize=(8.0, 1.1 + 0.34 * len(rows)), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = range(len(rows))
    axes.barh(
        places,
        medians,
        height=0.62,
        color=[_COLOURS.get(row.family, "#8fbf6a") for row in rows],
        # Differing answers are no rivals: hatched.
        hatch=["" if row.status == "measured" else "////" for row in rows],
        edgecolor="white",
        linewidth=0.0,
    )
    axes.errorbar(
        medians,
        list(places),
        xerr=[[max(0.0, x) for x in low], [max(0.0, x) for x in high]],
        fmt="none",
        ecolor=_INK,
        elinewidth=1.0,
        capsize=2.5,
    )
    is_log = max(medians) > _LOG_FROM * min(medians)
    if is_log:
        axes.set_xscale("log")
        axes.set_xlim(min(medians) / 2, max(medians) * 2.2)
    else:
        axes.set_xlim(0, max(m + h for m, h in zip(medians, high, strict=True)) * 1.16)
    for place, median, above in zip(places, medians, high, strict=True):
        axes.annotate(
            f"{median:.4g} ms",
            (median + above, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            color=_INK,
        )
    labels = [row.name if row.status == "measured" else f"{row.name} (differs)" for row in rows]
    axes.set_yticks(list(places), labels, fontsize=8)
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        if row.family == "hios":
            label.set_fontweight("bold")
    axes.set_xlabel(
        "latency of one run [ms]" + (", logarithmic" if is_log else "") + "; whiskers p10–p90",
        fontsize=8,
    )
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_title(
        f"{result.model} on {', '.join(result.devices)}, {result.date}",
        loc="left",
        fontsize=9.5,
        color=_INK,
    )
    write_atomically(
        path, lambda temporary: figure.savefig(temporary, format="png", metadata=metadata)
    )
