"""Small pieces of HTML: escaped text, tables, bars. Nothing here knows what a report holds."""

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["Cell", "bar", "cards", "section", "stacked_bar", "table", "text"]


class Cell(str):
    """HTML that is escaped already; any other string is text."""

    __slots__ = ()


def text(value: object) -> Cell:
    """Return a value as escaped HTML; a `Cell` stays as it is."""
    return value if isinstance(value, Cell) else Cell(escape(str(value)))


def section(name: str, title: str, lead: str, *parts: str) -> Cell:
    """Return a section with a heading; empty where it has no part.

    Parameters
    ----------
    name
        The id, to link to.
    title, lead
        Heading, and a sentence that says how to read what follows.
    *parts
        HTML.
    """
    body = "\n".join(part for part in parts if part)
    if not body:
        return Cell("")
    return Cell(
        f'<section id="{escape(name)}" aria-labelledby="{escape(name)}-title">\n'
        f'<h2 id="{escape(name)}-title">{escape(title)}</h2>\n'
        f'<p class="lead">{text(lead)}</p>\n{body}\n</section>'
    )


def table(
    caption: str, headers: Sequence[str], rows: Iterable[Sequence[object]], *, wide: bool = False
) -> Cell:
    """Return a table whose first column names the row and whose others hold figures.

    Parameters
    ----------
    caption
        For people who hear the page.
    headers
        One per column.
    rows
        Values; a `Cell` is HTML. A row of one cell more than headers starts with the class of
        the row.
    wide
        Whether the second column holds a bar and takes the room there is.
    """
    head = "".join(f'<th scope="col">{text(header)}</th>' for header in headers)
    body = []
    for row in rows:
        style, cells = ("", row) if len(row) == len(headers) else (str(row[0]), row[1:])
        first, *others = cells
        kind = f' class="{escape(style)}"' if style else ""
        body.append(
            f'<tr{kind}><th scope="row">{text(first)}</th>'
            + "".join(f"<td>{text(cell)}</td>" for cell in others)
            + "</tr>"
        )
    return Cell(
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f"<table{' class=wide' if wide else ''}>"
        f'<caption class="unseen">{text(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def bar(
    share: float,
    *,
    style: str = "",
    colour: str = "",
    whisker: tuple[float, float] | None = None,
    mark: float | None = None,
) -> Cell:
    """Return a horizontal bar; shares are of the width, 0 to 1.

    Parameters
    ----------
    share
        Its length.
    style
        Class of the filling.
    colour
        Of the filling, instead of that of the class.
    whisker
        Ends of a line over the bar: a range.
    mark
        Where a line crosses the whole row: a bound.
    """
    fill = f";background:{escape(colour)}" if colour else ""
    parts = [f'<i class="fill {escape(style)}" style="width:{_percent(share)}{fill}"></i>']
    if whisker is not None:
        low, high = whisker
        parts.append(
            f'<i class="whisker" style="left:{_percent(low)};width:{_percent(high - low)}"></i>'
        )
    if mark is not None:
        parts.append(f'<i class="mark" style="left:{_percent(mark)}"></i>')
    return Cell(f'<span class="bar" aria-hidden="true">{"".join(parts)}</span>')


def stacked_bar(parts: Iterable[tuple[float, str, str]]) -> Cell:
    """Return a bar of several fillings: share of the width, class, and colour (or empty)."""
    fills = "".join(
        f'<i class="fill {escape(style)}" style="width:{_percent(share)}'
        f'{f";background:{escape(colour)}" if colour else ""}"></i>'
        for share, style, colour in parts
        if share > 0
    )
    return Cell(f'<span class="bar stacked" aria-hidden="true">{fills}</span>')


def cards(facts: Iterable[tuple[str, str, str]]) -> Cell:
    """Return headline figures: a label, a figure, and a note below it."""
    shown = "".join(
        f"<div><dt>{text(label)}</dt><dd>{text(figure)}"
        f"{f'<small>{text(note)}</small>' if note else ''}</dd></div>"
        for label, figure, note in facts
    )
    return Cell(f'<dl class="cards">{shown}</dl>')


def _percent(share: float) -> str:
    return f"{min(1.0, max(0.0, share)) * 100:.3g}%"
