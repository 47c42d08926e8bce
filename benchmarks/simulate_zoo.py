"""The zoo on simulated machines: schedulers on real networks, without compiler or device.

``python -m benchmarks.simulate_zoo`` takes networks at several image sizes, costs their units by
the roofline of each machine's data sheets (`hios.costs.analytic`), and reports each scheduler's
predicted speed-up over one device and its gap to the lower bound. Inputs and outputs live on the
first device; links carry one copy at a time.

A unit is what the network's builder calls one (a convolution with its activation, a separable
convolution), not a compiled kernel: this ranks schedules, it forecasts no milliseconds.
"""

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from hios.bounds import lower_bound
from hios.costs.analytic import AnalyticCosts
from hios.errors import HiosError, InvalidOption
from hios.ir import Machine, Operator, OpGraph, OpId, Tensor, TensorId
from hios.ir.presets import preset
from hios.ir.serial import write_bytes
from hios.schedulers import get_scheduler, schedule
from hios.simulator import makespan
from hios_tvm.cli.terminal import print_json, progress_bar
from hios_tvm.models import zoo
from hios_tvm.models.graph import Graph

DEFAULT_MODELS = "inception_v3,nasnet_large,randwire_large,squeezenet_bypass,resnet50"
DEFAULT_MACHINES = "2xA40-NVLink,4xV100-NVLink2,8xH200-NVLink4"
DEFAULT_SIZES = "331,512,768,1024,1280"
DEFAULT_SCHEDULERS = "sequential,ios,hios-mr,hios-lp,heft,auto"

_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Row:
    """One scheduler on one network, size and machine.

    Attributes
    ----------
    makespan_us, lower_bound_us
        Predicted; no schedule beats the bound.
    speedup
        Sequential makespan over this one.
    gap
        makespan / bound − 1.
    seconds
        To decide.
    """

    model: str
    size: int
    machine: str
    operators: int
    scheduler: str
    makespan_us: float
    lower_bound_us: float
    speedup: float
    gap: float
    seconds: float


def unit_operator_graph(graph: Graph) -> OpGraph:
    """Return the units of a network as an operator graph with float32 tensors.

    Parameters
    ----------
    graph
        From the zoo or the builder.

    Returns
    -------
    OpGraph
        One operator and one output tensor a unit; weights are one tensor a unit; the network's
        input and its last units' outputs are inputs and outputs. ``launch["grid"]`` is left to
        the costs.
    """
    nodes = [node for block in graph.blocks for node in block.nodes()]
    shape = tuple(graph.input.shape)
    tensors = [Tensor(TensorId(0), graph.input.name, shape, "float32", _bytes(shape))]
    made = {id(graph.input): TensorId(0)}
    readers: dict[TensorId, list[OpId]] = {TensorId(0): []}
    operators = []
    for index, node in enumerate(nodes):
        op = OpId(index)
        values = [value.node for term in node.terms for value in term]
        read = list(dict.fromkeys(made[id(one)] for one in values))
        if node.parameters():
            weight = TensorId(len(tensors))
            size = (node.parameters(),)
            tensors.append(Tensor(weight, f"{node.name}.weight", size, "float32", _bytes(size)))
            readers[weight] = []
            read.append(weight)
        out = TensorId(len(tensors))
        tensors.append(Tensor(out, node.name, node.shape, "float32", _bytes(node.shape), op))
        readers[out] = []
        made[id(node)] = out
        for tensor in read:
            readers[tensor].append(op)
        operators.append(
            Operator(
                op,
                node.name,
                node.type,
                "",
                tuple(read),
                (out,),
                flops=float(node.flops()),
                bytes_read=sum(tensors[t].bytes for t in read),
                bytes_written=tensors[out].bytes,
            )
        )
    whole = OpGraph(
        graph.name,
        tuple(operators),
        tuple(
            Tensor(t.id, t.name, t.shape, t.dtype, t.bytes, t.producer, tuple(readers[t.id]))
            for t in tensors
        ),
        (TensorId(0),),
        tuple(t.id for t in tensors if t.producer is not None and not readers[t.id]),
    )
    whole.validate()
    return whole


def rows_of(
    model: str, size: int, graph: OpGraph, machine: Machine, schedulers: Sequence[str]
) -> list[Row]:
    """Return the row of each scheduler on one network and machine."""
    costs = AnalyticCosts(graph, machine)
    bound = lower_bound(graph, machine, costs)
    rows = []
    alone = makespan(graph, machine, costs, schedule("sequential", graph, machine, costs))
    for name in schedulers:
        began = time.perf_counter()
        decided = schedule(name, graph, machine, costs)
        seconds = time.perf_counter() - began
        took = makespan(graph, machine, costs, decided)
        rows.append(
            Row(
                model,
                size,
                machine.name,
                len(graph.operators),
                name,
                took,
                bound,
                alone / took,
                took / bound - 1.0,
                seconds,
            )
        )
    return rows


@click.command()
@click.option("--models", default=DEFAULT_MODELS, show_default=True)
@click.option("--machines", default=DEFAULT_MACHINES, show_default=True, help="Presets.")
@click.option("--sizes", default=DEFAULT_SIZES, show_default=True, help="Image sizes.")
@click.option("--schedulers", default=DEFAULT_SCHEDULERS, show_default=True)
@click.option("--streams", default=2, show_default=True, help="Streams of each GPU.")
@click.option("--quick", is_flag=True, help="The first model, machine and size only.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the rows as CSV.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    models: str,
    machines: str,
    sizes: str,
    schedulers: str,
    streams: int,
    quick: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Predict how much schedulers gain on the zoo."""
    try:
        names, places, wanted = models.split(","), machines.split(","), sizes.split(",")
        if quick:
            names, places, wanted = names[:1], places[:1], wanted[:1]
        for scheduler in schedulers.split(","):
            get_scheduler(scheduler)
        described = [preset(place).with_streams(streams) for place in places]
        rows: list[Row] = []
        n_points = len(names) * len(wanted) * len(described)
        n_done = 0
        with progress_bar("zoo", is_quiet=as_json) as progress:
            for name in names:
                for size in map(_size, wanted):
                    graph = unit_operator_graph(zoo.graph(name, size))
                    for machine in described:
                        progress(f"{name}@{size} on {machine.name}", n_done / n_points)
                        rows += rows_of(name, size, graph, machine, schedulers.split(","))
                        n_done += 1
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(out, _csv(rows))
    except HiosError as problem:
        raise click.ClickException(str(problem)) from problem
    if as_json:
        print_json({"streams": streams, "rows": [asdict(row) for row in rows]})
    else:
        click.echo(markdown_table(rows))


def markdown_table(rows: Sequence[Row]) -> str:
    """Return one line a network, size and machine: speed-up and gap of each scheduler."""
    schedulers = list(dict.fromkeys(row.scheduler for row in rows))
    lines = ["| network | size | machine | " + " | ".join(f"`{s}`" for s in schedulers) + " |"]
    lines.append("|---|--:|---|" + "--:|" * len(schedulers))
    points = dict.fromkeys((row.model, row.size, row.machine) for row in rows)
    for point in points:
        own = {r.scheduler: r for r in rows if (r.model, r.size, r.machine) == point}
        cells = [f"{own[s].speedup:.2f} ({100 * own[s].gap:.1f} %)" for s in schedulers]
        lines.append(f"| {point[0]} | {point[1]} | {point[2]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _size(text: str) -> int:
    if not text.isdecimal():
        raise InvalidOption(f"image size {text!r}; need a whole number")
    return int(text)


def _bytes(shape: Sequence[int]) -> int:
    size = _FLOAT_BYTES
    for extent in shape:
        size *= extent
    return size


def _csv(rows: Sequence[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(asdict(rows[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue().encode()


if __name__ == "__main__":
    main()
