"""Memory of our arena beside what TVM's virtual machine plans for the same kernels.

Both run the network one operator after another on one device. TVM's figure is the sum of all
storage that its memory planning allocates for the same lowered module, with the inputs, which
its caller holds. Nothing runs and no machine code is made, so this needs no GPU::

    python -m benchmarks.arena_memory                # every zoo network at the paper's size
    python -m benchmarks.arena_memory --size 64 squeezenet nasnet_mobile
"""

import argparse
import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from graph_executor.planner import make_plan
from hios.ir import Device, DeviceId, Machine, OpGraph, Placement, Schedule
from hios_tvm.models import zoo

__all__ = ["LIMIT", "ArenaRow", "arena_row", "lower"]

LIMIT = 1.1
"""Our arena is at most this many times what TVM plans."""


@dataclass(frozen=True, slots=True)
class ArenaRow:
    """One network.

    Attributes
    ----------
    network, size
        Of the zoo.
    arena_bytes
        Ours: inputs, activations, outputs and scratch of kernels.
    vm_bytes
        TVM's, for the same tensors.
    bound_bytes
        No arena can be smaller.
    """

    network: str
    size: int
    arena_bytes: int
    vm_bytes: int
    bound_bytes: int

    @property
    def ratio(self) -> float:
        """Ours over TVM's."""
        return self.arena_bytes / self.vm_bytes


def arena_row(network: str, size: int | None = None, target: str = "cuda:sm_90") -> ArenaRow:
    """Lower a network and plan its memory both ways."""
    side = zoo.NETWORKS[network].image_size if size is None else size
    side = max(side, zoo.NETWORKS[network].least_size)
    module, graph = lower(zoo.build(network, side), target)
    kind = target.partition(":")[0]
    machine = Machine("one", (Device(f"{kind}:0", kind),))
    order = graph.topological_order()
    schedule = Schedule("sequential", tuple(Placement(op, DeviceId(0)) for op in order))
    plan = make_plan(graph, machine, schedule)
    inputs = sum(graph.tensors[tensor].bytes for tensor in graph.inputs)
    (memory,) = plan.memory
    return ArenaRow(
        network,
        side,
        memory.arena_bytes,
        _vm_bytes(module) + inputs,
        memory.lower_bound_bytes,
    )


def lower(model: Any, target: str) -> tuple[Any, OpGraph]:
    """Return the lowered module and its operator graph, without machine code."""
    import tvm

    from relay_passes.compile import resolve_target
    from relay_passes.extract import extract_graph
    from relay_passes.frontends import import_model
    from relay_passes.pipeline import lowering_pipeline

    resolved = resolve_target(target)
    imported = import_model(model, None)
    with resolved:
        module = lowering_pipeline(resolved)(imported.mod)
    assert isinstance(module, tvm.IRModule)
    found = extract_graph(module, imported.name, imported.input_names, imported.output_names)
    return module, found.graph


def _vm_bytes(module: Any) -> int:
    """Return the storage that TVM's passes allocate for ``main``."""
    import tvm
    from tvm import relax
    from tvm.relax import transform

    passes = [
        transform.ToNonDataflow(),
        transform.RemovePurityChecking(),
        transform.CallTIRRewrite(),
        transform.StaticPlanBlockMemory(),
        transform.LowerAllocTensor(),
    ]
    planned = tvm.transform.Sequential(passes)(module)
    sizes: list[int] = []

    def visit(node: Any) -> None:
        if isinstance(node, relax.Call) and str(getattr(node.op, "name", "")) == (
            "relax.memory.alloc_storage"
        ):
            # In bytes, whatever the data type.
            sizes.append(math.prod(int(extent) for extent in node.args[0].values))

    relax.analysis.post_order_visit(planned["main"], visit)
    return sum(sizes)


def main() -> None:
    """Print one row per network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=[], metavar="NETWORK")
    parser.add_argument("--size", type=int)
    parser.add_argument("--target", default="cuda:sm_90")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [
        arena_row(name, options.size, options.target) for name in options.networks or zoo.NETWORKS
    ]
    if options.json:
        print(json.dumps([asdict(row) | {"ratio": row.ratio} for row in rows], indent=2))
        return
    print(
        f"{'network':<20}{'size':>6}{'arena MB':>12}{'TVM VM MB':>12}{'ratio':>8}{'bound MB':>12}"
    )
    for row in rows:
        print(
            f"{row.network:<20}{row.size:>6}{row.arena_bytes / 1e6:>12.2f}"
            f"{row.vm_bytes / 1e6:>12.2f}{row.ratio:>8.3f}{row.bound_bytes / 1e6:>12.2f}"
        )


if __name__ == "__main__":
    main()
