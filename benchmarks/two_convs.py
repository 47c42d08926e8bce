"""HIOS's premise, measured: two identical convolutions, at once in two streams or in a row.

A small convolution leaves most of a GPU idle, so a second one beside it is free; a large one
fills it, and two take twice as long however they are started. Where between lies the border
decides how much a schedule of operators can win. One row per number of channels and image size::

    python -m benchmarks.two_convs                          # compiles for the GPU that is here
    python -m benchmarks.two_convs --networks networks      # or takes what a bundle holds
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.networks import load_network, save_network
from graph_executor.cuda.detect import require_machine
from graph_executor.cuda.measure import CudaGroupTimer
from graph_executor.cuda.open import open_driver
from graph_executor.group_timer import GroupOptions, time_group
from hios.errors import HiosError
from hios.ir import CompiledGraph, OpId
from hios.statistics import Samples

__all__ = ["CHANNELS", "SIZES", "PairRow", "measure_pair", "pair_model", "save_pairs"]

CHANNELS = (32, 128, 256)
SIZES = (7, 14, 28, 56, 112)


@dataclass(frozen=True, slots=True)
class PairRow:
    """Two 3×3 convolutions of as many output as input channels.

    Attributes
    ----------
    channels, size
        Of the input, which is square.
    solo_us, serial_us, group_us
        Medians: one alone, both in a row, both at once.
    spread
        Half of the 10–90 % range of `group_us` over its median.
    grid, block
        Blocks of one launch, and threads of a block.
    occupancy
        Share of the multiprocessors' resident threads that one launch can fill, from its grid
        and the compiler's report of registers and shared memory; None where it is not known.
    reject
        Why the times may not be used; empty when they may.
    """

    channels: int
    size: int
    solo_us: float
    serial_us: float
    group_us: float
    spread: float
    grid: int
    block: int
    occupancy: float | None
    reject: str

    @property
    def speedup(self) -> float:
        """In a row over at once: 2 is all that can be won, 1 is nothing."""
        return self.serial_us / self.group_us if self.group_us else 0.0


def pair_model(channels: int, size: int) -> Any:
    """Return the two convolutions as ONNX."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(channels * 1000 + size)
    shape = [1, channels, size, size]
    nodes, weights = [], []
    for name in ("a", "b"):
        value = rng.standard_normal((channels, channels, 3, 3), np.float32) / (3 * channels**0.5)
        weights.append(numpy_helper.from_array(value, f"weight_{name}"))
        nodes.append(
            helper.make_node("Conv", ["data", f"weight_{name}"], [name], pads=[1, 1, 1, 1])
        )
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("data", "a", "b")]
    graph = helper.make_graph(nodes, "two_convs", ports[:1], ports[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model)
    return model


def save_pairs(folder: Path, target: str) -> list[Path]:
    """Compile all pairs into a folder, for a machine without a compiler."""
    from hios_tvm.sources import compile_model

    saved = []
    for channels in CHANNELS:
        for size in SIZES:
            print(f"compile two convolutions {channels}x{size}x{size}", file=sys.stderr)
            compiled = compile_model(pair_model(channels, size), target)
            saved.append(folder / f"pair_{channels}x{size}")
            save_network(saved[-1], compiled, keeps_bytes=0)
    return saved


def measure_pair(compiled: CompiledGraph, channels: int, size: int, rounds: int = 50) -> PairRow:
    """Measure one pair on the first GPU.

    Raises
    ------
    DeviceUnavailable
        When there is none.
    """
    machine = require_machine(["cuda:0"], 2)
    driver = open_driver()
    convolutions = [op for op in compiled.graph.operators if op.kind == "conv2d"]
    one, two = convolutions[:2]
    timer = CudaGroupTimer(compiled, machine.devices[0], driver)
    try:
        groups = ((OpId(one.id),), (OpId(two.id),))
        timing = time_group(timer, groups, GroupOptions(rounds=rounds, most_rounds=4 * rounds))
    finally:
        timer.close()
    launch = one.launch
    grid, block = int(launch.get("grid", 0)), int(launch.get("block", 0))
    occupancy = None
    threads = timer.device.limits.get("threads", 0) * timer.device.units
    if threads and grid and block:
        resident = int(launch.get("resident_blocks", 0)) * timer.device.units or grid
        occupancy = min(grid, resident) * block / threads

    def median(samples: tuple[float, ...]) -> float:
        return Samples.of(samples).median_us if samples else 0.0

    return PairRow(
        channels,
        size,
        median(timing.solo_us[0]) if timing.solo_us else 0.0,
        median(timing.serial_us),
        median(timing.group_us),
        Samples.of(timing.group_us).spread if timing.group_us else 0.0,
        grid,
        block,
        None if occupancy is None else min(1.0, occupancy),
        timing.reject,
    )


def main() -> None:
    """Measure all pairs and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=Path, help="folder with compiled pairs")
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    options = parser.parse_args()
    try:
        require_machine(["cuda:0"], 2)
        with tempfile.TemporaryDirectory() as scratch:
            folder = options.networks
            if folder is None:
                folder = Path(scratch)
                save_pairs(folder, f"cuda:{open_driver().facts(0).architecture}")
            rows = [
                measure_pair(load_network(folder / f"pair_{c}x{s}"), c, s)
                for c in CHANNELS
                for s in SIZES
            ]
    except HiosError as problem:
        print(f"two_convs: error: {problem}", file=sys.stderr)
        sys.exit(2)
    facts = open_driver().facts(0)
    print(f"{facts.name}, {facts.architecture}; medians in µs, graph replay, warm L2")
    print("channels size  alone  in a row  at once  gain  spread  blocks  occupancy")
    for row in rows:
        filled = "–" if row.occupancy is None else f"{row.occupancy:.0%}"
        print(
            f"{row.channels:>8} {row.size:>4} {row.solo_us:>6.1f} {row.serial_us:>9.1f}"
            f" {row.group_us:>8.1f} {row.speedup:>4.2f}× {row.spread:>6.1%} {row.grid:>7}"
            f" {filled:>9}{'  rejected: ' + row.reject if row.reject else ''}"
        )
    if options.json is not None:
        told = [asdict(row) | {"speedup": row.speedup} for row in rows]
        options.json.write_text(json.dumps({"device": facts.name, "rows": told}, indent=1))


if __name__ == "__main__":
    main()
