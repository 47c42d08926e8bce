"""Groups of concurrent operators on the first GPU, for the cost model.

Networks come compiled, from `benchmarks.gpu.networks`; records are those of `hios collect`, and so
is the rest: the file only grows, and the same command goes on where it stopped::

    python -m benchmarks.gpu.groups --networks networks --out h100.jsonl --groups 3000 --budget 180s
"""

import sys
import time
from pathlib import Path

import click

from benchmarks.gpu.networks import find_networks, load_network, reference_of
from cost_model.collect import CollectOptions
from graph_executor.cuda.detect import require_machine
from graph_executor.group_timer import GroupOptions
from hios.errors import HiosError
from hios_tvm.cli.options import parse_duration
from hios_tvm.collecting import CollectResult, ModelShelf, Wanted, collect_groups

__all__ = ["measure_groups"]

_STREAMS = 4

MEASURING = GroupOptions(rounds=30, most_rounds=30, longest_s=0.8, drift=0.05, sentinel=6)
"""A GPU's times spread less than a CPU's: fewer samples, and a short sentinel."""


def measure_groups(folders: list[Path], out: Path, options: CollectOptions) -> CollectResult:
    """Measure groups of these networks.

    Raises
    ------
    DeviceUnavailable
        When there is no GPU.
    HiosError
        When a network or the file cannot be used.
    """
    machine = require_machine(["cuda:0"], _STREAMS)
    folder_of = {reference_of(folder): folder for folder in folders}
    started = time.monotonic()

    def tell(text: str, fraction: float) -> None:
        nonlocal started
        if time.monotonic() - started > 5:
            started = time.monotonic()
            print(f"{fraction:6.1%}  {text}", file=sys.stderr, flush=True)

    with ModelShelf(
        tuple(folder_of),
        None,
        machine.devices[0],
        progress=tell,
        compiled=lambda name: load_network(folder_of[name]),
    ) as shelf:
        return collect_groups(shelf, machine.devices[0], Wanted(out, options), None, progress=tell)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--networks", type=click.Path(path_type=Path), envvar="HIOS_NETWORKS", required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--groups", type=click.IntRange(min=1), default=3000, show_default=True)
@click.option("--budget", metavar="TIME", help="Begin no group after this long: 90s, 10m, 2h.")
def main(
    names: tuple[str, ...], networks: Path, out: Path, groups: int, budget: str | None
) -> None:
    """Measure groups of compiled networks (all, or those of the NAMES)."""
    try:
        seconds = None if budget is None else parse_duration(budget)
        folders = [
            folder
            for folder in find_networks(networks, names)
            if reference_of(folder) and not folder.name.endswith("_tf32")
        ]
        result = measure_groups(folders, out, CollectOptions(groups, seconds, MEASURING))
    except HiosError as problem:
        print(f"groups: error: {problem}", file=sys.stderr)
        sys.exit(2)
    found = result.collected
    print(
        f"{found.valid} groups in {found.seconds:.0f} s, {found.rejected} rejected, "
        f"{found.left_out} left out, {found.known} known before; {result.repeated} measured again"
    )
    for reason, count in found.reasons.items():
        print(f"{count:6}  {reason}")
    if result.noise is not None:
        noise = result.noise
        print(f"noise floor {noise.visit:.1%} (median {noise.median:.1%}) of {noise.pairs} pairs")


if __name__ == "__main__":
    main()
