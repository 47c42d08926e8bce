"""Compile a model into an operator graph and the kernels it calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tvm

from hios.errors import HiosError, InvalidOption, UnsupportedModel
from hios.ir import CompiledGraph
from relay_passes.build_kernels import build_kernels
from relay_passes.compile_cache import CompileCache
from relay_passes.cuda.launches import with_resources
from relay_passes.cuda.resources import read_resources
from relay_passes.cuda.target import cuda_target, with_tf32
from relay_passes.extract import extract_graph
from relay_passes.frontends import import_model
from relay_passes.library import TvmKernelLibrary
from relay_passes.merge_convolutions import MergeConvolutions, OfferedConvolutions
from relay_passes.pipeline import lowering_phases
from relay_passes.tuning.choose import with_tuned_kernels
from relay_passes.tuning.database import TuningDatabase

__all__ = ["compile_graph", "compile_offers", "resolve_target"]

Progress = Callable[[str, float], None]


def compile_graph(
    model: Any,
    target: Any = "llvm",
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    progress: Progress | None = None,
    name: str | None = None,
    merges: Sequence[Sequence[str]] = (),
    cache: Path | None = None,
    database: Path | None = None,
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
    cache : Path, optional
        Folder where kernels and whole builds are kept, see `relay_passes.compile_cache`;
        without, everything is compiled now. The result is the same.
    database : Path, optional
        Folder of tuned kernels (`relay_passes.tuning`), taken where they measured faster than
        those of our rules. What was never compared is compared now, on this machine.

    Returns
    -------
    CompiledGraph
        The graph, its kernels and its weights.

    Raises
    ------
    HiosError
        One line on what is wrong: `MissingFile`, `UnsupportedModel`, `InvalidOption`.
    """
    return _compile(
        model, target, shapes, progress, name, merges, MergeConvolutions, cache, database
    )


def compile_offers(
    model: Any,
    target: Any = "llvm",
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    progress: Progress | None = None,
    *,
    merges: Sequence[Sequence[str]],
    cache: Path | None = None,
    database: Path | None = None,
) -> CompiledGraph:
    """Compile the merges on offer alone, so that their times can be found out.

    Parameters
    ----------
    model, target, shapes, progress, merges, cache, database
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
    return _compile(
        model, target, shapes, progress, "offers", merges, OfferedConvolutions, cache, database
    )


def _compile(
    model: Any,
    target: Any,
    shapes: Mapping[str, tuple[int, ...]] | None,
    progress: Progress | None,
    name: str | None,
    merges: Sequence[Sequence[str]],
    merge: Any,
    cache: Path | None,
    database: Path | None,
) -> CompiledGraph:
    report = progress or (lambda _phase, _done: None)
    resolved = resolve_target(target)
    tuned = None if database is None else TuningDatabase(database, resolved)
    kept, key = None if cache is None else CompileCache(cache), None
    if kept is not None:
        report("look for a build", 0.0)
        variant = f"{merge.__name__} {'' if tuned is None else tuned.digest()}"
        key = kept.build_key(model, resolved, shapes, name, merges, variant)
        if (known := kept.load_build(key)) is not None:
            report("done", 1.0)
            return known
    report("import", 0.0)
    imported = import_model(model, shapes)
    mod = imported.mod
    phases = lowering_phases(resolved, merges, merge)
    if tuned is not None:
        phases = with_tuned_kernels(phases, tuned, None if kept is None else kept.kernels)
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
        library = build_kernels(
            extracted.kernels,
            resolved,
            None if kept is None else kept.kernels,
            lambda done: report("kernels", 0.5 + 0.5 * done),
        )
    except HiosError:
        raise
    except (RuntimeError, ValueError, TypeError) as error:
        raise UnsupportedModel(
            f"kernels of model {imported.name!r} cannot be compiled: {_last_line(error)}"
        ) from error
    graph = extracted.graph
    if isinstance(library, TvmKernelLibrary) and library.cubin is not None:
        arch = str(resolved.attrs["arch"])
        graph = with_resources(graph, extracted.kernels, read_resources(library.cubin, arch), arch)
    report("done", 1.0)
    attrs = {"source": imported.source, "outputs": "\n".join(imported.output_names)}
    compiled = CompiledGraph(graph, library, extracted.params, attrs)
    if kept is not None:
        kept.keep_build(key, compiled)
        kept.trim()
    return compiled


def resolve_target(target: Any, allow_tf32: bool = False) -> tvm.target.Target:
    """Return a TVM target; plain ``llvm`` means this machine, ``cuda`` see `cuda_target`.

    With `allow_tf32` kernels for it may round the factors of float32 products to TF32.

    Raises
    ------
    InvalidOption
        When TVM does not understand it, or TF32 is allowed for what has none.
    """
    resolved = _resolved(target)
    return with_tf32(resolved) if allow_tf32 else resolved


def _resolved(target: Any) -> tvm.target.Target:
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
