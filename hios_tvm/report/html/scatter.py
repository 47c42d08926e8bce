"""Prediction against measurement, an operator a dot, as SVG."""

import math

from hios_tvm.report.html.data import Report
from hios_tvm.report.html.markup import Cell, text
from hios_tvm.report.summary import format_us

__all__ = ["scatter"]

_SIZE, _LEFT, _BOTTOM, _PAD = 320, 46, 34, 10
_WITHIN = 1.1


def scatter(report: Report) -> Cell:
    """Return the dots on logarithmic axes with the diagonal and a band of ±10 %.

    Empty without a measured timeline, or with fewer than three operators that took time.
    """
    if len(report.timelines) < 2:
        return Cell("")
    before, after = (
        {e.subject: e.end_us - e.start_us for e in timeline.events if not e.is_copy}
        for timeline in report.timelines
    )
    pairs = [(op, t, after[op]) for op, t in before.items() if t > 0 and after.get(op, 0.0) > 0]
    if len(pairs) < 3:
        return Cell("")
    low = math.log10(min(min(p, m) for _, p, m in pairs)) - 0.08
    high = math.log10(max(max(p, m) for _, p, m in pairs)) + 0.08

    def x(time_us: float) -> float:
        return _LEFT + (math.log10(time_us) - low) / (high - low) * (_SIZE - _LEFT - _PAD)

    def y(time_us: float) -> float:
        height = _SIZE - _BOTTOM - _PAD
        return _SIZE - _BOTTOM - (math.log10(time_us) - low) / (high - low) * height

    least, most = 10**low, 10**high
    parts = []
    for power in range(math.ceil(low), math.floor(high) + 1):
        at = 10.0**power
        label = text(format_us(at).replace(".00", ""))
        parts.append(
            f'<path class="grid" d="M{x(at):.1f} {_PAD}V{_SIZE - _BOTTOM}"/>'
            f'<path class="grid" d="M{_LEFT} {y(at):.1f}H{_SIZE - _PAD}"/>'
            f'<text x="{x(at):.1f}" y="{_SIZE - _BOTTOM + 14}" text-anchor="middle">{label}</text>'
            f'<text x="{_LEFT - 6}" y="{y(at) + 3:.1f}" text-anchor="end">{label}</text>'
        )
    parts.append(
        f'<path class="band" d="M{x(least):.1f} {y(least * _WITHIN):.1f}'
        f"L{x(most / _WITHIN):.1f} {y(most):.1f}L{x(most):.1f} {y(most):.1f}"
        f"L{x(most):.1f} {y(most / _WITHIN):.1f}L{x(least * _WITHIN):.1f} {y(least):.1f}"
        f'L{x(least):.1f} {y(least):.1f}Z"/>'
        f'<path class="axis" d="M{x(least):.1f} {y(least):.1f}L{x(most):.1f} {y(most):.1f}"/>'
    )
    for op, predicted, measured in pairs:
        operator = report.operators[op]
        told = f"{operator.name}: {format_us(predicted)}, measured {format_us(measured)}"
        parts.append(
            f'<circle cx="{x(predicted):.1f}" cy="{y(measured):.1f}" r="3" '
            f'fill="{report.kinds[operator.kind]}" data-op="{op}"><title>{text(told)}</title>'
            "</circle>"
        )
    middle = (_LEFT + _SIZE - _PAD) / 2
    return Cell(
        f'<figure><svg class="scatter" viewBox="0 0 {_SIZE} {_SIZE}" role="img" '
        'aria-label="Measured over predicted time, one dot per operator">'
        + "".join(parts)
        + f'<text x="{middle:.0f}" y="{_SIZE - 4}" text-anchor="middle">predicted</text>'
        f'<text x="{_LEFT + 4}" y="{_PAD + 10}">measured</text></svg>'
        "<figcaption>One dot per operator. On the line, the prediction was right; the band is "
        "±10 %.</figcaption></figure>"
    )
