"""What the Tab key offers beyond verbs and options: schedulers, costs, networks and files."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["complete_costs", "complete_schedulers", "complete_sources"]

_COSTS = ("profile", "learned", "analytic")


def complete_schedulers(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    """Offer every registered scheduler with what it does."""
    from click.shell_completion import CompletionItem

    from hios.schedulers import get_scheduler, list_schedulers

    names = [name for name in list_schedulers() if name.startswith(incomplete)]
    return [CompletionItem(name, help=get_scheduler(name).summary) for name in names]


def complete_costs(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    """Offer the kinds of costs, else files."""
    from click.shell_completion import CompletionItem

    names = [name for name in _COSTS if name.startswith(incomplete)]
    return [CompletionItem(name) for name in names] or _files(incomplete)


def complete_sources(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    """Offer the networks that need no download where their prefix is typed, else files."""
    if incomplete.startswith("zoo:"):
        from click.shell_completion import CompletionItem

        from hios_tvm.models.zoo import NETWORKS

        names = [f"zoo:{name}" for name in NETWORKS]
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return _files(incomplete)


def _files(incomplete: str) -> "list[CompletionItem]":
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]
