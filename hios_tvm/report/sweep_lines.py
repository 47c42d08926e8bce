"""A sweep as a picture: latency over the last axis, a line an engine, a panel for the rest."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hios.ir.serial import write_atomically
from hios_tvm.sweep import SweepPoint, SweepResult, describe

__all__ = ["draw_sweep"]

_MOST_PANELS = 6


def draw_sweep(result: SweepResult, path: Path) -> None:
    """Draw medians with whiskers from the 10th to the 90th percentile as a PNG file.

    Raises
    ------
    StorageError
        When it cannot be written.
    """
    axis = result.axes[-1]
    panels: dict[str, list[SweepPoint]] = {}
    for done in result.points:
        rest = {name: value for name, value in done.point.items() if name != axis.name}
        panels.setdefault(describe(rest), []).append(done)
    shown = list(panels.items())[:_MOST_PANELS]
    figure = Figure(figsize=(1.2 + 4.6 * len(shown), 4.0), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    names = [row.key for row in result.points[0].result.rows if row.status != "absent"]
    for index, (title, points) in enumerate(shown):
        axes = figure.add_subplot(1, len(shown), index + 1)
        for place, name in enumerate(names):
            rows = [(done.point[axis.name], done.result.row(name)) for done in points]
            found = [(x, row) for x, row in rows if row is not None and row.median_us is not None]
            medians = [(row.median_us or 0.0) / 1e3 for _, row in found]
            below = [(row.p10_us or 0.0) / 1e3 for _, row in found]
            above = [(row.p90_us or 0.0) / 1e3 for _, row in found]
            axes.errorbar(
                [x for x, _ in found],
                medians,
                yerr=[
                    [max(0.0, m - low) for m, low in zip(medians, below, strict=True)],
                    [max(0.0, high - m) for m, high in zip(medians, above, strict=True)],
                ],
                label=name,
                capsize=2.5,
                linewidth=1.3,
                marker="osv^D<>pXh"[place % 10],
                markersize=4,
                color=f"C{place % 10}",
            )
        axes.set_xlabel(axis.name, fontsize=8)
        axes.set_xticks(axis.values)
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if index == 0:
            axes.set_ylabel("latency of one run [ms]", fontsize=8)
            axes.legend(fontsize=7, frameon=False)
    figure.suptitle(result.model, fontsize=9.5, x=0.01, ha="left")
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png"))
