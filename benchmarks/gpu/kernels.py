"""Time of each kernel on a GPU against cuDNN through PyTorch, as ratios.

``python -m benchmarks.gpu.kernels --model zoo:inception_v3`` needs one NVIDIA GPU and PyTorch with
CUDA; without them it says so and ends. Convolutions of the network run as our kernel (with bias
and activation in it) and as ``torch.nn.functional.conv2d`` plus bias and activation, channels
last, TF32 off, after cuDNN has chosen its algorithm (``cudnn.benchmark``). Both are captured into
a CUDA graph of many calls, so that no launch from Python is timed, and measured in turns.
"""

import json
import sys

import click
import numpy as np

_CALLS = 50
_ROUNDS = 20


@click.command()
@click.option("--model", default="zoo:inception_v3", show_default=True)
def main(model: str) -> None:
    """Print the ratio of our kernels' time to cuDNN's, a line a convolution."""
    try:
        import torch
    except ImportError:
        sys.exit("PyTorch is not installed; python -m pip install torch")
    import tvm

    if not tvm.cuda(0).exist or not torch.cuda.is_available():
        sys.exit("no NVIDIA GPU here")
    from hios_tvm.models.reference import load_model_reference
    from relay_passes import compile_graph

    major, minor = torch.cuda.get_device_capability()
    compiled = compile_graph(load_model_reference(model), f"cuda:sm_{major}{minor}")
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False
    graph, module = compiled.graph, compiled.library.module
    rows = []
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
        rows.append({"kernel": op.kernel, "ratio": ratio, "ours_us": float(np.median(times[:, 0]))})
        print(f"{op.kernel}: {ratio:.2f} × cuDNN's time, {rows[-1]['ours_us']:.1f} µs")
    mean = float(np.exp(np.mean([np.log(row["ratio"]) for row in rows])))
    device = torch.cuda.get_device_name()
    print(json.dumps({"device": device, "model": model, "geometric_mean": mean, "rows": rows}))


def _captured(torch, call):
    """Return a CUDA graph of many calls, all on one stream."""
    import tvm

    stream = torch.cuda.Stream()
    tvm.cuda(0).set_raw_stream(stream.cuda_stream)
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
