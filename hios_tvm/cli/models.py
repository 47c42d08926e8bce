"""`hios models`: the networks that need no download, and what they are made of."""

from dataclasses import asdict

import click

from hios_tvm.cli.options import OutputChoice, output_options
from hios_tvm.cli.terminal import console, print_json, progress_bar

__all__ = ["command"]


@click.command("models", short_help="List the networks that need no download.")
@click.argument("names", nargs=-1)
@click.option("--compiled", is_flag=True, help="Compile, and count operators after fusion.")
@output_options
def command(names: tuple[str, ...], compiled: bool, output: OutputChoice) -> None:
    """List the networks of the zoo with operators, width, critical path and work.

    NAMES are some of them, each as NAME, NAME@SIZE or NAME@SIZExBATCH; all by default. Every
    verb that takes a model file takes zoo:NAME@SIZE as well, and light:NAME for the networks of
    the onnx package.

    Operators are counted on the ONNX graph, element-wise ones joined to what they follow, or
    with --compiled after TVM's fusion, which takes minutes for all networks. Width is the most
    that could run at once, parallelism is work over critical path.

    \b
    Examples:
      hios models
      hios models inception_v3@512 nasnet_large
    """
    from hios_tvm.models.listing import list_models

    with progress_bar("models", output.json) as report:
        rows = list_models(names, report, compiled=compiled)
    if output.json:
        print_json({"models": [{**asdict(row), "parallelism": row.parallelism} for row in rows]})
        return
    from rich.table import Table

    table = Table()
    table.add_column("model", no_wrap=True)
    columns = ("size", "operators", "width", "critical path", "parameters", "GFLOP", "parallelism")
    for column in columns:
        table.add_column(column, justify="right")
    table.add_column("source")
    for row in rows:
        table.add_row(
            row.name,
            str(row.size),
            str(row.operators),
            str(row.width),
            str(row.critical_path),
            f"{row.parameters / 1e6:.2f} M",
            f"{row.flops / 1e9:.2f}",
            f"{row.parallelism:.2f}",
            row.source,
        )
    console().print(table)
