"""What a run costs the host: one launch of the captured graph, or every call of the plan.

python -m benchmarks.gpu.launches --networks networks
"""

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.gpu.networks import find_networks, load_network
from graph_executor.cuda.detect import require_machine
from graph_executor.executor import ExecutorOptions, GraphExecutor, random_inputs
from hios.costs.analytic import AnalyticCosts
from hios.errors import HiosError
from hios.schedulers import schedule
from hios.statistics import Samples

__all__ = ["LaunchRow", "launch_row"]


@dataclass(frozen=True, slots=True)
class LaunchRow:
    """One network on one GPU with four streams; µs are medians of whole runs.

    Attributes
    ----------
    network, operators, events, nodes
        What is launched; `nodes` are those of the captured graph.
    graph_us, eager_us
        A run from inputs on the device to outputs on the device.
    eager_operator_us
        `eager_us` over the number of operators: the host's time for each where it is the limit.
    """

    network: str
    operators: int
    events: int
    nodes: int
    graph_us: float
    eager_us: float

    @property
    def eager_operator_us(self) -> float:
        """See above."""
        return self.eager_us / max(1, self.operators)


def launch_row(path: Path, repeat: int) -> LaunchRow:
    """Measure one network.

    Raises
    ------
    DeviceUnavailable
        When there is no GPU.
    """
    place = require_machine(["cuda:0"], 4)
    compiled = load_network(path)
    graph = compiled.graph
    decided = schedule("nimble", graph, place, AnalyticCosts(graph, place))
    times: dict[str, list[float]] = {"graph": [], "eager": []}
    executors = {
        mode: GraphExecutor(compiled, place, decided, ExecutorOptions(mode=mode))  # type: ignore[arg-type]
        for mode in times
    }
    try:
        inputs = random_inputs(graph)
        for executor in executors.values():
            executor.benchmark(10, 10, inputs)
        begin = time.perf_counter()
        while len(times["graph"]) < repeat and time.perf_counter() - begin < 60:
            for mode, executor in executors.items():
                times[mode] += executor.benchmark(10, 1, inputs).times_us
        plan = executors["graph"].plan
        nodes = executors["graph"].graph_nodes or 0
    finally:
        for executor in executors.values():
            executor.close()
    medians = {mode: Samples.of(own).median_us for mode, own in times.items()}
    return LaunchRow(
        path.name, len(graph.operators), plan.events, nodes, medians["graph"], medians["eager"]
    )


def main() -> None:
    """Measure all networks and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--networks", type=Path, default=os.environ.get("HIOS_NETWORKS"))
    parser.add_argument("--repeat", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.networks is None:
        parser.error("--networks FOLDER: make gpu-bundle packs some")
    try:
        rows = [
            launch_row(path, options.repeat)
            for path in find_networks(Path(options.networks), options.names)
            if not path.name.startswith("pair_")
        ]
    except HiosError as problem:
        print(f"launches: error: {problem}", file=sys.stderr)
        sys.exit(2)
    print("network               operators  events  nodes  graph µs  eager µs  eager µs/operator")
    for row in rows:
        print(
            f"{row.network:<22}{row.operators:>9}{row.events:>8}{row.nodes:>7}"
            f"{row.graph_us:>10.1f}{row.eager_us:>10.1f}{row.eager_operator_us:>19.2f}"
        )
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
