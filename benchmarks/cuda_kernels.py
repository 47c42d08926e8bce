"""What the kernels of a network take of an NVIDIA GPU, read from their machine code.

``python -m benchmarks.cuda_kernels`` compiles networks ahead of time (no GPU is needed), prints a
row a kernel, and ends with exit code 1 unless for every network and architecture

* each convolution and each matrix product is scheduled by a rule of its own family, none by the
  generic one,
* no kernel needs a workspace that the runtime would allocate,
* no kernel keeps more than a few spilled registers in local memory.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from hios.ir.serial import write_bytes
from hios_tvm.cli.terminal import print_json, progress_bar
from hios_tvm.models.reference import load_model_reference

ARCHITECTURES = "sm_80,sm_90"
ZOO = (
    "zoo:inception_v3,zoo:nasnet_large,zoo:nasnet_mobile,zoo:randwire_small,zoo:randwire_regular,"
    "zoo:randwire_large,zoo:squeezenet_bypass,zoo:resnet50,zoo:vgg16,zoo:alexnet,zoo:retinanet,"
    "zoo:bert_base,zoo:moe_block,light:densenet121,light:inception_v1,light:inception_v2,light:shufflenet,"
    "light:zfnet512"
)

_RULES = {
    "conv2d": {"product", "tensor cores"},
    "depthwise": {"depthwise"},
    "dense": {"product", "rows", "tensor cores"},
}
"""Rules that may schedule a kernel of these families."""


_SPILLED_BYTES = 64
"""A few spilled registers may be ptxas' price for more resident warps; an array is a mistake."""


@dataclass(frozen=True, slots=True)
class Row:
    """One distinct kernel of a network on one architecture.

    Attributes
    ----------
    operators
        That call it.
    flops
        Of one call.
    rule
        That scheduled it.
    grid, block
        Blocks of the largest launch of a call, threads of a block.
    shared_bytes, registers, local_bytes
        Of a block; of a thread.
    resident_blocks, occupancy_percent
        Of a multiprocessor, at most.
    launches, workspaces
        Of a call; scratch tensors that the arena holds for it.
    """

    model: str
    arch: str
    kernel: str
    kind: str
    operators: int
    flops: float
    rule: str
    grid: int
    block: int
    shared_bytes: int
    registers: int
    local_bytes: int
    resident_blocks: int
    occupancy_percent: int
    launches: int
    workspaces: int


def kernel_rows(model: str, arch: str, allow_tf32: bool = False) -> Iterator[Row]:
    """Compile `model` for `arch` and yield its kernels in the order in which they run."""
    from relay_passes import compile_graph, resolve_target

    target = resolve_target(f"cuda:{arch}", allow_tf32)
    graph = compile_graph(load_model_reference(model), target).graph
    callers: dict[str, int] = {}
    for op in graph.operators:
        callers[op.kernel] = callers.get(op.kernel, 0) + 1
    for op in graph.operators:
        if op.kernel not in callers:
            continue
        yield Row(
            model=f"{model}, TF32" if allow_tf32 else model,
            arch=arch,
            kernel=op.kernel,
            kind=op.kind,
            operators=callers.pop(op.kernel),
            flops=op.flops,
            rule=str(op.attrs.get("rule", "")),
            workspaces=int(op.attrs.get("workspaces", 0)),
            **{
                key: int(op.launch.get(key, 0))
                for key in (
                    "grid",
                    "block",
                    "shared_bytes",
                    "registers",
                    "local_bytes",
                    "resident_blocks",
                    "occupancy_percent",
                    "launches",
                )
            },
        )


@dataclass(frozen=True, slots=True)
class NetworkSummary:
    """All kernels of one network on one architecture.

    Attributes
    ----------
    operators, kernels
        Calls in a run, and distinct kernels among them.
    rules
        Distinct kernels by the rule that scheduled them.
    most_registers, most_local_bytes, most_shared_bytes
        Of any kernel: of a thread, of a thread, of a block.
    workspaces
        Of all kernels.
    complaints
        What breaks the promises of this page.
    """

    model: str
    arch: str
    operators: int
    kernels: int
    rules: dict[str, int]
    most_registers: int
    most_local_bytes: int
    most_shared_bytes: int
    workspaces: int
    complaints: list[str]


def summaries(rows: list[Row]) -> list[NetworkSummary]:
    """Return one summary for each network and architecture of `rows`, in their order."""
    found = []
    for model, arch in dict.fromkeys((row.model, row.arch) for row in rows):
        own = [row for row in rows if (row.model, row.arch) == (model, arch)]
        found.append(
            NetworkSummary(
                model=model,
                arch=arch,
                operators=sum(row.operators for row in own),
                kernels=len(own),
                rules=dict(sorted(Counter(row.rule for row in own).items())),
                most_registers=max(row.registers for row in own),
                most_local_bytes=max(row.local_bytes for row in own),
                most_shared_bytes=max(row.shared_bytes for row in own),
                workspaces=sum(row.workspaces for row in own),
                complaints=complaints(own),
            )
        )
    return found


def keep_summaries(path: Path, found: list[NetworkSummary]) -> None:
    """Put summaries into a JSON file, in the place of older ones of the same networks.

    So a list of networks may be compiled a few at a time.
    """
    import msgspec

    known = json.loads(path.read_text())["networks"] if path.exists() else []
    networks = {(entry["model"], entry["arch"]): entry for entry in known}
    networks |= {(entry.model, entry.arch): asdict(entry) for entry in found}
    listed = [networks[key] for key in sorted(networks)]
    write_bytes(path, msgspec.json.format(msgspec.json.encode({"networks": listed}), indent=1))


def complaints(rows: list[Row]) -> list[str]:
    """Return what breaks the promises of this page, a line each."""
    found = []
    for row in rows:
        where = f"{row.model}, {row.arch}, {row.kernel}"
        if row.kind in _RULES and row.rule not in _RULES[row.kind]:
            found.append(f"{where}: {row.kind} is scheduled by rule {row.rule or 'none'!r}")
        if row.workspaces:
            found.append(f"{where}: {row.workspaces} workspaces")
        if row.local_bytes > _SPILLED_BYTES:
            found.append(f"{where}: {row.local_bytes} bytes of local memory a thread")
        if row.registers == 0:
            found.append(f"{where}: no machine code")
    return found


@click.command()
@click.option("--models", default="zoo:inception_v3", show_default=True, help="Or: zoo, for all.")
@click.option("--arch", "architectures", default=ARCHITECTURES, show_default=True)
@click.option("--allow-tf32", is_flag=True, help="As of `hios compile`.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the raw figures as JSON.")
@click.option(
    "--summary",
    type=click.Path(path_type=Path),
    help="Write a row a network as JSON, next to the other networks there.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def main(
    models: str,
    architectures: str,
    allow_tf32: bool,
    out: Path | None,
    summary: Path | None,
    as_json: bool,
) -> None:
    """Print what the kernels of networks take of a GPU."""
    import msgspec

    names = (ZOO if models == "zoo" else models).split(",")
    pairs = [(name, arch) for name in names for arch in architectures.split(",")]
    rows: list[Row] = []
    seconds: dict[str, float] = {}
    with progress_bar("compile", as_json) as progress:
        for index, (name, arch) in enumerate(pairs):
            progress(f"{name} for {arch}", index / len(pairs))
            start = time.perf_counter()
            rows += kernel_rows(name, arch, allow_tf32)
            seconds[f"{name} {arch}"] = round(time.perf_counter() - start, 1)
        progress("done", 1.0)
    wrong = complaints(rows)
    result = {"rows": [asdict(row) for row in rows], "seconds": seconds, "complaints": wrong}
    if out is not None:
        write_bytes(out, msgspec.json.format(msgspec.json.encode(result), indent=1))
    if summary is not None:
        keep_summaries(summary, summaries(rows))
    if as_json:
        print_json(result)
    else:
        _print(rows)
    for line in wrong:
        click.echo(line, err=True)
    sys.exit(1 if wrong else 0)


def _print(rows: list[Row]) -> None:
    from hios_tvm.cli.terminal import console
    from hios_tvm.report.summary import rows_table

    for model, arch in dict.fromkeys((row.model, row.arch) for row in rows):
        console().print(f"{model} for {arch}")
        headers = ["kernel", "family", "rule", "grid", "block", "shared", "registers"]
        headers += ["blocks/SM", "full"]
        chosen = [row for row in rows if (row.model, row.arch) == (model, arch)]
        cells = [
            (
                row.kernel,
                row.kind,
                row.rule,
                str(row.grid),
                str(row.block),
                str(row.shared_bytes),
                str(row.registers),
                str(row.resident_blocks),
                f"{row.occupancy_percent} %",
            )
            for row in chosen
        ]
        console().print(rows_table(headers, cells))


if __name__ == "__main__":
    main()
