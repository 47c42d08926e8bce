"""Compile a model into an operator graph and the kernels it calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tvm

from hios.errors import HiosError, InvalidOption, UnsupportedModel
from hios.ir import CompiledGraph
from relay_passes.cuda.cubin import compile_cubin
from relay_passes.cuda.launches import with_resources
from relay_passes.cuda.packing import device_module
from relay_passes.cuda.resources import read_resources
from relay_passes.cuda.target import cuda_target
from relay_passes.extract import extract_graph
from relay_passes.frontends import import_model
from relay_passes.library import TvmKernelLibrary
from relay_passes.merge_convolutions import MergeConvolutions, OfferedConvolutions
from relay_passes.pipeline import lowering_phases

__all__ = ["compile_graph", "compile_offers", "resolve_target"]

Progress = Callable[[str, float], None]


def compile_graph(
    model: Any,
    target: Any = "llvm",
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    progress: Progress | None = None,
    name: str | None = None,
    merges: Sequence[Sequence[str]] = (),
) -> CompiledGraph:
    """Compile a model.

    Parameters
    ----------
    model : path, onnx.ModelProto, torch.export.ExportedProgram or tvm.IRModule
        The network, see `relay_passes.frontends.import_model`.
    target : str, dict or tvm.target.Target
        ``"llvm"`` means this very machine.
    shapes : mapping, optional
        Shapes of inputs with dynamic dimensions, by input name.
    progress : callable, optional
        Called with a phase and the fraction done so far, in [0, 1].
    name : str, optional
        Name of the graph; by default that of the model.
    merges : sequence of sequence of str
        Convolutions to merge into one, each merge the ``attrs["convolution"]`` of its members
        in the graph of the same model compiled without merges.

    Returns
    -------
    CompiledGraph
        The graph, its kernels and its weights.

    Raises
    ------
    HiosError
        One line on what is wrong: `MissingFile`, `UnsupportedModel`, `InvalidOption`.
    """
    return _compile(model, target, shapes, progress, name, merges, MergeConvolutions)


def compile_offers(
    model: Any,
    target: Any = "llvm",
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    progress: Progress | None = None,
    *,
    merges: Sequence[Sequence[str]],
) -> CompiledGraph:
    """Compile the merges on offer alone, so that their times can be found out.

    Parameters
    ----------
    model, target, shapes, progress, merges
        As in `compile_graph`; a convolution may be in several merges, and one alone stands
        for itself, for comparison.

    Returns
    -------
    CompiledGraph
        Its i-th input is read by the operators of the i-th merge and by no others: the merged
        convolution and the slices of its result.

    Raises
    ------
    HiosError
        As `compile_graph`.
    """
    return _compile(model, target, shapes, progress, "offers", merges, OfferedConvolutions)


def _compile(
    model: Any,
    target: Any,
    shapes: Mapping[str, tuple[int, ...]] | None,
    progress: Progress | None,
    name: str | None,
    merges: Sequence[Sequence[str]],
    merge: Any,
) -> CompiledGraph:
    report = progress or (lambda _phase, _done: None)
    resolved = resolve_target(target)
    report("import", 0.0)
    imported = import_model(model, shapes)
    mod = imported.mod
    phases = lowering_phases(resolved, merges, merge)
    with resolved:
        for index, (phase, passes) in enumerate(phases):
            report(phase, 0.1 + 0.4 * index / len(phases))
            try:
                mod = tvm.transform.Sequential(passes)(mod)
            except HiosError:
                raise
            except (RuntimeError, ValueError, TypeError) as error:
                raise UnsupportedModel(
                    f"model {imported.name!r} cannot be lowered ({phase}): {_last_line(error)}"
                ) from error
    is_whole = merge is MergeConvolutions
    extracted = extract_graph(
        mod,
        name or imported.name,
        imported.input_names if is_whole else None,
        imported.output_names if is_whole else None,
    )
    report("kernels", 0.5)
    try:
        executable = tvm.compile(tvm.IRModule(dict(extracted.kernels)), target=resolved)
    except (RuntimeError, ValueError, TypeError) as error:
        raise UnsupportedModel(
            f"kernels of model {imported.name!r} cannot be compiled: {_last_line(error)}"
        ) from error
    graph, cubin = extracted.graph, None
    if str(resolved.kind.name) == "cuda" and (device := device_module(executable.mod)) is not None:
        report("cubin", 0.8)
        arch = str(resolved.attrs["arch"])
        cubin = compile_cubin(str(device.inspect_source("cuda")), arch)
        graph = with_resources(graph, extracted.kernels, read_resources(cubin, arch), arch)
    library = TvmKernelLibrary(executable, resolved, cubin)
    report("done", 1.0)
    attrs = {"source": imported.source, "outputs": "\n".join(imported.output_names)}
    return CompiledGraph(graph, library, extracted.params, attrs)


def resolve_target(target: Any) -> tvm.target.Target:
    """Return a TVM target; plain ``llvm`` means this machine, ``cuda`` see `cuda_target`.

    Raises
    ------
    InvalidOption
        When TVM does not understand it.
    """
    if isinstance(target, tvm.target.Target):
        return target
    if target in ("llvm", "cpu", "native"):
        return tvm.target.Target({"kind": "llvm", "mcpu": tvm.target.codegen.llvm_get_system_cpu()})
    if isinstance(target, str) and target.partition(":")[0] == "cuda":
        return cuda_target(target)
    try:
        return tvm.target.Target(target)
    except (RuntimeError, ValueError, TypeError) as error:
        raise InvalidOption(
            f"target {target!r} is not understood: {_last_line(error)}; "
            "use llvm, cuda, cuda:sm_80 or a TVM target"
        ) from None


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
