"""What a person or a program reads: results on standard output, progress on standard error."""

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Progress", "console", "print_json", "progress_bar"]

# Wide enough for every table of ours; a pipe has no width of its own.
_PIPE_WIDTH = 120


class Progress(Protocol):
    """A callback of long work: what it does now, and the fraction of it that is done."""

    def __call__(self, phase: str, fraction: float, /) -> None:
        """Tell where the work stands, with `fraction` in [0, 1]."""
        ...


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on one line; keys keep their order."""
    import msgspec

    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def console() -> "Console":
    """Return a console for results on standard output.

    Colour only on a terminal and without ``NO_COLOR`` (rich sees to that).
    """
    from rich.console import Console

    class Results(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would exit with 1; `main` knows better

    return Results(
        file=sys.stdout,
        highlight=False,
        width=None if sys.stdout.isatty() else _PIPE_WIDTH,
    )


@contextmanager
def progress_bar(title: str, is_quiet: bool, *, is_still: bool = False) -> Iterator[Progress]:
    """Give a callback that draws a bar with what is done now and the time left.

    Nothing is drawn, and rich is not imported, unless standard error is a terminal. The
    callback may be called from any thread.

    Parameters
    ----------
    title
        What the whole is: ``compile``, ``measure``.
    is_quiet
        Draw nothing at all.
    is_still
        Draw only when told something, not ten times a second: drawing takes a core, which
        shows in what is measured meanwhile.

    Yields
    ------
    Progress
        The callback.
    """
    if is_quiet or not sys.stderr.isatty():
        yield _ignore
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.fields[title]}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.description}", markup=True),
    )
    terminal = Console(stderr=True)
    with Bars(*columns, console=terminal, transient=True, auto_refresh=not is_still) as bars:
        task = bars.add_task("", total=1.0, title=title)
        lock = threading.Lock()

        def report(phase: str, fraction: float, /) -> None:
            with lock:
                text = phase.replace("[", r"\[")
                bars.update(task, completed=fraction, description=text, refresh=is_still)

        yield report


def _ignore(phase: str, fraction: float, /) -> None:
    del phase, fraction
