"""The command line of this process, as a shell takes it: what made a result belongs to it."""

import shlex

import click

__all__ = ["invocation"]


def invocation() -> str:
    """Return the command line that is being run; empty outside of one."""
    context = click.get_current_context(silent=True)
    if context is None:
        return ""
    given = context.find_root().obj
    return shlex.join(["hios", *given]) if isinstance(given, tuple) else ""
