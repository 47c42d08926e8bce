"""What runs under compute-sanitizer: one small network, two logical devices, both modes."""

import tempfile
from pathlib import Path

from gpu_networks import FOLDER, compile_network, names

from benchmarks.gpu.networks import load_network
from graph_executor.cuda.detect import detect_machine
from graph_executor.executor import ExecutorOptions, GraphExecutor, random_inputs
from hios.costs.analytic import AnalyticCosts
from hios.schedulers import schedule


def main() -> None:
    """Run it."""
    place = detect_machine(["cuda:0", "cuda:0"], 2)
    assert place is not None
    with tempfile.TemporaryDirectory() as folder:
        if FOLDER:
            compiled = load_network(Path(FOLDER, names()[0]))
        else:
            compiled = compile_network(names()[0], Path(folder))
        graph = compiled.graph
        decided = schedule("hios-lp", graph, place, AnalyticCosts(graph, place))
        for mode in ("eager", "graph"):
            options = ExecutorOptions(mode=mode)
            with GraphExecutor(compiled, place, decided, options) as executor:
                executor.run(random_inputs(graph))


if __name__ == "__main__":
    main()
