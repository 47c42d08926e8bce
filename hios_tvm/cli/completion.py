"""`hios completion`: what a shell needs to complete `hios` at the Tab key."""

import click

__all__ = ["VARIABLE", "command"]

VARIABLE = "_HIOS_COMPLETE"
"""The environment variable through which the shell asks; see `hios_tvm.cli.main`."""

_SHELLS = ("bash", "zsh", "fish")


@click.command("completion", short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(_SHELLS))
def command(shell: str) -> None:
    """Print the script that completes verbs, options and files of `hios` in SHELL.

    \b
    Examples:
      eval "$(hios completion bash)"      # in ~/.bashrc
      eval "$(hios completion zsh)"       # in ~/.zshrc
      hios completion fish > ~/.config/fish/completions/hios.fish
    """
    from click.shell_completion import get_completion_class

    from hios_tvm.cli.main import cli

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"this version of click has no completion for {shell}")
    made = found(cli, {}, "hios", VARIABLE)
    click.echo(made.source_template % made.source_vars())
