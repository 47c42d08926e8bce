"""The schedulers by name.

An algorithm is a function ``(graph, machine, costs, *, option=..., ...) -> Schedule``; its
keyword-only parameters are its options. Those of this package register themselves with
`register`; another package joins through the entry-point group ``hios.schedulers``, whose entry
points name either such a function or a registered `Scheduler`.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TypeVar

from hios.errors import InvalidOption, MissingDependency, UnknownScheduler
from hios.ir.schedule import Schedule

__all__ = [
    "ENTRY_POINT_GROUP",
    "Scheduler",
    "get_scheduler",
    "list_schedulers",
    "register",
]

ENTRY_POINT_GROUP = "hios.schedulers"


Algorithm = TypeVar("Algorithm", bound=Callable[..., Schedule])


@dataclass(frozen=True, slots=True)
class Scheduler:
    """A registered algorithm.

    Attributes
    ----------
    name
        As users write it.
    function
        The algorithm itself.
    source
        The paper it comes from; empty for a plain baseline.
    summary
        The first line of its docstring.
    options
        Names and defaults of its options.
    """

    name: str
    function: Callable[..., Schedule]
    source: str
    summary: str
    options: tuple[tuple[str, object], ...]

    def has_option(self, name: str) -> bool:
        """Return whether the algorithm takes this option."""
        return any(name == known for known, _ in self.options)

    def check_options(self, given: dict[str, object]) -> None:
        """Check that every option given is one of this scheduler.

        Raises
        ------
        InvalidOption
            With the names there are.
        """
        known = [name for name, _ in self.options]
        for name in given:
            if name not in known:
                allowed = ", ".join(known) or "none"
                raise InvalidOption(
                    f"scheduler {self.name!r} has no option {name!r}; it has {allowed}"
                )


_registered: dict[str, Scheduler] = {}


def register(name: str, source: str = "") -> Callable[[Algorithm], Algorithm]:
    """Return a decorator that registers an algorithm under `name`.

    Parameters
    ----------
    name
        As users write it; must be free.
    source
        The paper it comes from.
    """

    def enter(function: Algorithm) -> Algorithm:
        if name in _registered:
            raise InvalidOption(f"scheduler {name!r} is registered already; choose another name")
        _registered[name] = _describe(name, function, source)
        return function

    return enter


def get_scheduler(name: str) -> Scheduler:
    """Return the scheduler called `name`.

    Raises
    ------
    UnknownScheduler
        With the names there are.
    MissingDependency
        When it belongs to another package that cannot be imported.
    """
    if name in _registered:
        return _registered[name]
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name == name:
            try:
                found = point.load()
            except ImportError as problem:
                raise MissingDependency(
                    f"scheduler {name!r} ({point.value}) cannot be imported: {problem}"
                ) from problem
            if not isinstance(found, Scheduler):
                found = _describe(name, found, "")
            _registered[name] = found
            return _registered[name]
    raise UnknownScheduler(f"no scheduler {name!r}; known are {', '.join(list_schedulers())}")


def list_schedulers() -> tuple[str, ...]:
    """Return the names of all schedulers, those of other packages included, sorted."""
    others = (point.name for point in entry_points(group=ENTRY_POINT_GROUP))
    return tuple(sorted({*_registered, *others}))


def _describe(name: str, function: Callable[..., Schedule], source: str) -> Scheduler:
    options = tuple(
        (parameter.name, parameter.default)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    )
    summary = (inspect.getdoc(function) or "").partition("\n")[0]
    return Scheduler(name, function, source, summary, options)
