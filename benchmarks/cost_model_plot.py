"""The picture beside the cost model's tables: predicted against measured, and who is covered."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cost_model.evaluation import SplitResult
from hios.ir.serial import write_atomically

__all__ = ["draw_calibration"]

_INK, _LIGHT, _MARK = "#1f3a5f", "#8fb3d9", "#c8553d"


def draw_calibration(results: Sequence[SplitResult], path: Path) -> None:
    """Draw the hardest split that was evaluated: networks left out, where there are several."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    by_name = {result.split: result for result in results}
    result = by_name.get("unseen-model") or results[-1]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
    measured, predicted = np.exp(result.target), np.exp(result.predicted)
    span = (min(measured.min(), predicted.min()), max(measured.max(), predicted.max()))
    left.plot(span, span, color=_MARK, lw=1)
    left.axvline(1.0, color="#bbbbbb", lw=0.8, zorder=0)
    left.axhline(1.0, color="#bbbbbb", lw=0.8, zorder=0)
    left.scatter(measured, predicted, s=4, color=_INK, alpha=0.25, linewidths=0)
    left.set(
        xlabel="measured time over Σ of the groups alone",
        ylabel="predicted",
        title=f"{result.split}: {len(measured)} groups held out",
        xscale="log",
        yscale="log",
    )
    names, covered, counts = _coverage(result)
    places = np.arange(len(names))
    right.barh(places, covered, color=_LIGHT)
    right.axvspan(0.85, 0.95, color="#dddddd", zorder=0)
    right.axvline(0.9, color=_MARK, lw=1)
    right.set_yticks(places, [f"{n} ({c})" for n, c in zip(names, counts, strict=True)])
    right.set(xlim=(0, 1), title="share of groups inside their 90 % interval")

    def write(temporary: Path) -> None:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": ""})

    write_atomically(path, write)
    plt.close(figure)


def _coverage(result: SplitResult) -> tuple[list[str], list[float], list[int]]:
    """Return name, coverage and number of groups of each fold, in the order of the folds."""
    inside = (result.low <= result.target) & (result.target <= result.high)
    names, covered, counts, start = [], [], [], 0
    for name, (_, count) in result.by_fold.items():
        names.append(name)
        covered.append(float(inside[start : start + count].mean()))
        counts.append(count)
        start += count
    return names, covered, counts
