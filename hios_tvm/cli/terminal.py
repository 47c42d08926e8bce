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
    """A callback of long work: `done` of `total` parts of the phase called `label`."""

    def __call__(self, label: str, done: int, total: int) -> None:
        """Tell where the work stands."""
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

    return Console(
        file=sys.stdout,
        highlight=False,
        width=None if sys.stdout.isatty() else _PIPE_WIDTH,
    )


@contextmanager
def progress_bar(is_quiet: bool) -> Iterator[Progress]:
    """Give a callback that draws one bar per phase with the time left.

    Nothing is drawn, and rich is not imported, unless standard error is a terminal. The
    callback may be called from any thread.

    Parameters
    ----------
    is_quiet
        Draw nothing at all.

    Yields
    ------
    Progress
        The callback.
    """
    if is_quiet or not sys.stderr.isatty():
        yield _ignore
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import (
        Progress as RichProgress,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bars:
        lock = threading.Lock()
        phases: dict[str, Any] = {}

        def report(label: str, done: int, total: int) -> None:
            with lock:
                if label not in phases:
                    phases[label] = bars.add_task(label, total=total)
                bars.update(phases[label], completed=done, total=total)

        yield report


def _ignore(label: str, done: int, total: int) -> None:
    del label, done, total
