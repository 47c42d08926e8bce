"""From whatever names a model to a compiled graph."""

import re
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from hios.errors import InvalidOption
from hios.ir.kernels import CompiledGraph
from hios.ir.machine import Machine
from hios_tvm.caching import CacheChoice, cache_folder

__all__ = ["Progress", "choose_target", "compile_model", "compile_offers", "resolve_model"]

Progress = Callable[[str, float], None]
"""Called with what is being done and the fraction done, in [0, 1]."""


def resolve_model(model: Any, seed: int = 0) -> Any:
    """Build the network of a reference (``zoo:NAME@SIZE``, ``light:NAME``); pass on all else.

    Raises
    ------
    UnsupportedModel
        When the reference names no known network.
    """
    if isinstance(model, str):
        from hios_tvm.models.reference import is_model_reference, load_model_reference

        if is_model_reference(model):
            return load_model_reference(model, seed)
    return model


def choose_target(target: Any, machine: Machine | None, allow_tf32: bool = False) -> Any:
    """Return the target given, else the one that the devices say; with TF32 where allowed.

    Raises
    ------
    InvalidOption
        When TF32 is allowed for what has none.
    """
    kinds = set() if machine is None else {device.kind for device in machine.devices}
    chosen = target or ("cuda" if kinds == {"cuda"} else "llvm")
    if not allow_tf32:
        return chosen
    from relay_passes import resolve_target

    return resolve_target(chosen, allow_tf32=True)


def compile_model(
    model: Any,
    target: Any = None,
    *,
    machine: Machine | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    merges: Sequence[Sequence[str]] = (),
    cache: CacheChoice = False,
    database: str | PathLike[str] | None = None,
) -> CompiledGraph:
    """Compile a model to an operator graph and its kernels.

    Parameters
    ----------
    model, target, shapes, progress
        As in `hios_tvm.build`; a `CompiledGraph` is returned as it is, and that of a factory
        which ``relay.build`` made inside `hios_tvm.pass_context` is read from it.
    machine
        Where the kernels will run: its devices say the target when none is given, and a
        target that does not fit them is refused. None: anywhere.
    seed
        Of the weights of a network that comes by reference.
    merges
        Convolutions to merge, see `relay_passes.compile_graph`.
    cache
        Where compiled kernels and whole builds are kept: a folder, None for the user's cache
        folder, False to keep and look up nothing.
    database
        Folder of tuned kernels, see `relay_passes.tuning`.

    Raises
    ------
    MissingFile, UnsupportedModel, InvalidOption
        When the model or the target cannot be used, or does not fit the machine.
    """
    kinds = set() if machine is None else {device.kind for device in machine.devices}
    chosen = choose_target(target, machine)
    compiled = _compile(model, chosen, shapes, seed, progress, merges, cache, database)
    _require_fit(compiled, kinds)
    return compiled


def _require_fit(compiled: CompiledGraph, kinds: set[str]) -> None:
    """Refuse kernels that none of the devices could run."""
    found = re.search(r'"kind"\s*:\s*"(\w+)"', compiled.library.target)
    kernels = compiled.library.target.split()[0] if found is None else found[1]
    wanted = {"cpu": "llvm", "cuda": "cuda"}
    for kind in sorted(kinds & wanted.keys()):
        if kernels != wanted[kind]:
            raise InvalidOption(
                f"kernels for target {kernels!r} cannot run on {kind} devices; use target "
                f"{wanted[kind]!r} or other devices"
            )


def _compile(
    model: Any,
    target: Any,
    shapes: Mapping[str, tuple[int, ...]] | None,
    seed: int,
    progress: Progress | None,
    merges: Sequence[Sequence[str]],
    cache: CacheChoice,
    database: str | PathLike[str] | None,
) -> CompiledGraph:
    if isinstance(model, CompiledGraph):
        return model
    from hios_tvm.relay import is_relay_factory

    if is_relay_factory(model):
        from graph_executor.embedded import read_embedded

        return read_embedded(model).compiled
    from relay_passes import compile_graph

    name = model.replace(":", "_") if isinstance(model, str) and ":" in model else None
    resolved = resolve_model(model, seed)
    if resolved is model:
        name = None
    return compile_graph(
        resolved,
        target,
        shapes,
        progress,
        name,
        merges,
        cache_folder(cache),
        None if database is None else Path(database),
    )


def compile_offers(
    model: Any,
    target: Any = None,
    *,
    merges: Sequence[Sequence[str]],
    machine: Machine | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    cache: CacheChoice = False,
    database: str | PathLike[str] | None = None,
) -> CompiledGraph:
    """Compile merges of a model alone; see `relay_passes.compile_offers` and `compile_model`."""
    from relay_passes import compile_offers as compile_them

    chosen = choose_target(target, machine)
    network = resolve_model(model, seed)
    return compile_them(
        network,
        chosen,
        shapes,
        progress,
        merges=merges,
        cache=cache_folder(cache),
        database=None if database is None else Path(database),
    )
