"""Time of each kernel on a GPU against cuDNN through PyTorch, as ratios.

``python -m benchmarks.gpu.kernels --networks networks zoo_inception_v3_299`` needs one NVIDIA GPU
and PyTorch with CUDA; without them it says so and ends. Convolutions of the network run as our
kernel (with bias and activation in it) and as ``torch.nn.functional.conv2d`` plus bias and
activation, channels last, after cuDNN has chosen its algorithm (``cudnn.benchmark``); TF32 is on
where the name ends in ``_tf32``. Both are captured into a CUDA graph of many calls, so that no
launch from Python is timed, and measured in turns.
"""

import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.gpu.networks import find_networks, load_network
from hios.errors import HiosError

_CALLS = 20
_ROUNDS = 15


@click.command()
@click.argument("names", nargs=-1)
@click.option("--networks", type=click.Path(path_type=Path), envvar="HIOS_NETWORKS", required=True)
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the rows here.")
def main(names: tuple[str, ...], networks: Path, path: Path | None) -> None:
    """Print the ratio of our kernels' time to cuDNN's, a line a convolution."""
    try:
        import torch
    except ImportError:
        sys.exit("PyTorch is not installed; python -m pip install torch")
    if not torch.cuda.is_available():
        sys.exit("no NVIDIA GPU here")
    device = torch.cuda.get_device_name()
    rows: list[dict[str, Any]] = []
    try:
        folders = find_networks(networks, names)
    except HiosError as problem:
        print(f"kernels: error: {problem}", file=sys.stderr)
        sys.exit(2)
    for folder in folders:
        own = _network(folder)
        rows += own
        for row in own:
            print(f"{row['kernel']}: {row['ratio']:.2f} × cuDNN's time, {row['ours_us']:.1f} µs")
        if own:
            mean = float(np.exp(np.mean([np.log(row["ratio"]) for row in own])))
            print(f"{folder.name} on {device}: {mean:.2f} × cuDNN's time, {len(own)} kernels")
    if path is not None:
        path.write_text(json.dumps({"device": device, "rows": rows}, indent=1))


def _network(folder: Path) -> list[dict[str, Any]]:
    """Return a row for each kind of convolution of a network."""
    import torch
    import tvm

    compiled = load_network(folder)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = folder.name.endswith("_tf32")
    graph, module = compiled.graph, compiled.library.module
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    for op in graph.operators:
        if op.kernel in seen or "kernel_size" not in op.attrs:
            continue
        seen.add(op.kernel)
        tensors = [
            torch.randn(*graph.tensors[t].shape, device="cuda") for t in (*op.inputs, *op.outputs)
        ]
        views = [tvm.runtime.from_dlpack(t) for t in tensors]
        kernel = module[op.kernel]
        stride, dilation = (
            tuple(map(int, str(op.attrs[key]).split("x"))) for key in ("stride", "dilation")
        )
        top, left, bottom, right = map(int, str(op.attrs["padding"]).split("x"))
        if (top, left) != (bottom, right):
            continue
        data, weight = tensors[0], tensors[1]
        x = data.permute(0, 3, 1, 2) if op.attrs["channel_axis"] == 3 else data
        if x.shape[1] != weight.shape[2] * int(op.attrs["groups"]):
            continue  # the first image is read as it comes, with its channels first
        w = weight.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
        bias = torch.randn(w.shape[0], device="cuda")

        def ours(kernel=kernel, views=views) -> None:
            kernel(*views)

        def theirs(x=x, w=w, bias=bias, s=stride, p=(top, left), d=dilation, op=op) -> None:
            torch.relu_(torch.nn.functional.conv2d(x, w, bias, s, p, d, int(op.attrs["groups"])))

        first, second = _captured(torch, ours), _captured(torch, theirs)
        times = np.array(
            [(_time_us(torch, first), _time_us(torch, second)) for _ in range(_ROUNDS)]
        )
        ratio = float(np.median(times[:, 0] / times[:, 1]))
        rows.append(
            {
                "network": folder.name,
                "kernel": op.kernel,
                "data": list(graph.tensors[op.inputs[0]].shape),
                "weight": list(graph.tensors[op.inputs[1]].shape),
                "stride": str(op.attrs["stride"]),
                "ours_us": float(np.median(times[:, 0])),
                "cudnn_us": float(np.median(times[:, 1])),
                "ratio": ratio,
                "gflops": op.flops / 1e9,
            }
        )
    return rows


def _captured(torch, call):
    """Return a CUDA graph of many calls, all on one stream."""
    from graph_executor.tvm_runtime import set_stream

    stream = torch.cuda.Stream()
    set_stream(0, stream.cuda_stream)
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured, stream=stream):
        for _ in range(_CALLS):
            call()
    return captured


def _time_us(torch, captured) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    captured.replay()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e3 / _CALLS


if __name__ == "__main__":
    main()
