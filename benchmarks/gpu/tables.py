"""Tables of what was measured on a GPU, for the docs (see `benchmarks.tables`)."""

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["TABLES"]


def latency(result: dict[str, Any]) -> str:
    """Return the table of `benchmarks.gpu.latency`: a row a way, a column a network."""
    networks = list(dict.fromkeys(row["network"] for row in result["rows"]))
    heads = ["", *(f"{_name(network)} [µs] | gain" for network in networks)]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "--:|" * (2 * len(networks))]
    found = {(_way(row["way"]), row["network"]): row for row in result["rows"]}
    for way in dict.fromkeys(way for way, _ in found):
        cells = []
        for network in networks:
            row = found.get((way, network))
            if row is None:
                cells += ["–", ""]
                continue
            span = f"({row['p10_us']:.0f}–{row['p90_us']:.0f})"
            told = row["predicted_us"]
            cells.append(
                f"{row['median_us']:.0f} {span}" + (f", predicted {told:.0f}" if told else "")
            )
            cells.append(f"**{row['speedup']:.2f}×**")
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    told = f"; {result['repeat']} interleaved runs of each."
    return "\n".join([*lines, "", _stamp(result) + told])


def carveout(result: dict[str, Any]) -> str:
    """Return the table of schedules with the cache divided as each kernel likes, or alike."""
    lines = [
        "| network | schedule | as each kernel likes [µs] | alike [µs] | gain |",
        "|---|---|--:|--:|--:|",
    ]
    lines += [
        f"| {_name(row['network'])} | {row['scheduler']}, {_streams(row['streams'])} "
        f"| {row['own_us']:.0f} | {row['alike_us']:.0f} "
        f"| {row['own_us'] / row['alike_us']:.2f}× |"
        for row in result["rows"]
    ]
    told = f"; {result['repeat']} interleaved runs of each."
    return "\n".join([*lines, "", _stamp(result) + told])


def launches(result: dict[str, Any]) -> str:
    """Return the table of `benchmarks.gpu.launches`: a row a network."""
    lines = [
        (
            "| network | operators | events | replayed [µs] | call after call [µs] "
            "| call after call, each operator [µs] |"
        ),
        "|---|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {_name(row['network'])} | {row['operators']} | {row['events']} "
        f"| {row['graph_us']:.0f} | {row['eager_us']:.0f} "
        f"| {row['eager_us'] / row['operators']:.1f} |"
        for row in result["rows"]
    ]
    return "\n".join([*lines, "", _stamp(result) + "; nimble, 4 streams."])


def kernels(result: dict[str, Any]) -> str:
    """Return the table of `benchmarks.gpu.kernels`: a row a network."""
    lines = [
        (
            "| network | kinds of convolutions | ours over cuDNN: geometric mean | best | worst "
            "| slower than cuDNN |"
        ),
        "|---|--:|--:|--:|--:|--:|",
    ]
    for network in dict.fromkeys(row["network"] for row in result["rows"]):
        ratios = [row["ratio"] for row in result["rows"] if row["network"] == network]
        mean = float(np.exp(np.mean(np.log(ratios))))
        slower = sum(ratio > 1.05 for ratio in ratios)
        lines.append(
            f"| {_name(network)} | {len(ratios)} | **{mean:.2f}** | {min(ratios):.2f} "
            f"| {max(ratios):.2f} | {slower} |"
        )
    return "\n".join([*lines, "", _stamp(result) + f"; PyTorch {result['torch']}."])


def two_convs(result: dict[str, Any]) -> str:
    """Return the table of `benchmarks.two_convs`: gains, a row a number of channels."""
    sizes = list(dict.fromkeys(row["size"] for row in result["rows"]))
    lines = [
        "| channels | " + " | ".join(f"{size}×{size}" for size in sizes) + " |",
        "|--:|" + "--:|" * len(sizes),
    ]
    for channels in dict.fromkeys(row["channels"] for row in result["rows"]):
        own = {row["size"]: row for row in result["rows"] if row["channels"] == channels}
        cells = [
            f"**{own[size]['serial_us'] / own[size]['group_us']:.2f}×** "
            f"({own[size]['serial_us']:.0f} → {own[size]['group_us']:.0f} µs)"
            for size in sizes
        ]
        lines.append(f"| {channels} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", _stamp(result) + "; replayed graphs, warm caches."])


def networks(result: dict[str, Any]) -> str:
    """Return the largest relative errors against ONNX Runtime, a row a network."""
    lines = ["| network | relative error |", "|---|--:|"]
    largest: dict[str, float] = {}
    for row in result["relative_errors"]:
        largest[row["network"]] = max(row["error"], largest.get(row["network"], 0.0))
    lines += [f"| {_name(name)} | {error:.1e} |" for name, error in sorted(largest.items())]
    return "\n".join([*lines, "", _stamp(result) + "."])


def _name(network: str) -> str:
    kind, _, rest = network.partition("_")
    tail = ", TF32" if rest.endswith("_tf32") else ""
    rest = rest.removesuffix("_tf32")
    base, _, size = rest.rpartition("_")
    return f"{kind}:{base}@{size}{tail}" if size.isdigit() else f"{kind}:{rest}{tail}"


def _way(way: str) -> str:
    """Return the label without what differs between networks: whose schedule `build` took."""
    return "ours, build" if way.startswith("ours, build") else way


def _streams(count: int) -> str:
    return "1 stream" if count == 1 else f"{count} streams"


def _stamp(result: dict[str, Any]) -> str:
    where = f"{result['device']} ({result['architecture']}), driver {result['driver']}"
    return f"{where}, {result['date']}"


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "h200_latency": ("h200/latency.json", latency),
    "h200_carveout": ("h200/carveout.json", carveout),
    "h200_launches": ("h200/launches.json", launches),
    "h200_kernels": ("h200/kernels.json", kernels),
    "h200_two_convs": ("h200/two_convs.json", two_convs),
    "h200_networks": ("h200/networks.json", networks),
}
"""From what file each table is made, and how."""
