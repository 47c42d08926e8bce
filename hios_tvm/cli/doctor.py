"""`hios doctor`: what this machine has, what is missing, and the command that gets it."""

from dataclasses import asdict

import click

from hios_tvm.cli.options import OutputChoice, output_options
from hios_tvm.cli.terminal import console, print_json

__all__ = ["command"]


@click.command("doctor", short_help="Look at this machine.")
@output_options
@click.pass_context
def command(context: click.Context, output: OutputChoice) -> None:
    """Look at this machine: packages, TVM and LLVM, cores, compiler, GPUs, cache.

    What is missing comes with the command that gets it. The exit code is 1 when something that
    is needed does not work.

    \b
    Example:
      hios doctor
    """
    from hios.cache_folder import default_cache_dir
    from hios_tvm.diagnosis import diagnose

    findings = diagnose(default_cache_dir())
    is_well = all(finding.status != "broken" for finding in findings)
    if output.json:
        print_json({"ok": is_well, "findings": [asdict(finding) for finding in findings]})
    else:
        from rich.table import Table
        from rich.text import Text

        marks = {"ok": ("ok", "green"), "absent": ("–", "yellow"), "broken": ("broken", "red")}
        table = Table(show_header=False)
        for finding in findings:
            mark, style = marks[finding.status]
            detail = Text(finding.detail)
            if finding.remedy:
                detail.append(f"\n→ {finding.remedy}", style="bold")
            table.add_row(Text(mark, style=style), Text(finding.name), detail)
        console().print(table)
    if not is_well:
        context.exit(1)
