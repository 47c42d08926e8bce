"""The rows of `hios models`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hios_tvm.models import zoo
from hios_tvm.models.reference import parse_zoo_reference
from hios_tvm.models.summary import summarize, with_compiled_operators

__all__ = ["ModelRow", "list_models"]


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One network at one size.

    Attributes
    ----------
    name
        In the zoo.
    size
        Side of the image, or number of tokens.
    batch
        Images or sequences in one run.
    operators, width, critical_path, parameters, macs, flops, critical_flops
        As in `hios_tvm.models.summary.ModelSummary`.
    source
        Paper and variant.
    """

    name: str
    size: int
    batch: int
    operators: int
    width: int
    critical_path: int
    parameters: int
    macs: int
    flops: int
    critical_flops: int
    source: str

    @property
    def parallelism(self) -> float:
        """Work over critical path."""
        return self.flops / self.critical_flops if self.critical_flops else 1.0


def list_models(
    references: Sequence[str] = (),
    report: Callable[[str, float], None] | None = None,
    *,
    compiled: bool = False,
) -> list[ModelRow]:
    """Return one row per network.

    Parameters
    ----------
    references : sequence of str
        ``NAME``, ``NAME@SIZE`` or ``NAME@SIZExBATCH``, with or without ``zoo:`` in front; the
        whole zoo at its own sizes when empty.
    report : callable, optional
        Told of progress as ``(network, fraction)``.
    compiled : bool
        Compile each network and count the operators after fusion, instead of counting on the
        ONNX graph without drawing weights.

    Raises
    ------
    UnsupportedModel
        When there is no such network.
    InvalidOption
        When a size is out of range.

    Notes
    -----
    About three seconds for the whole zoo, most of it for the width of the NASNets; compiling
    it takes minutes.
    """
    wanted = [parse_zoo_reference(f"zoo:{text.removeprefix('zoo:')}") for text in references]
    chosen = wanted or [(name, None, 1) for name in zoo.NETWORKS]
    rows = []
    for done, (name, size, batch) in enumerate(chosen):
        if report is not None:
            report(name, done / len(chosen))
        summary = summarize(zoo.draft(name, size, batch))
        if compiled:
            from relay_passes import compile_graph

            model = compile_graph(zoo.build(name, size, batch), name=name)
            summary = with_compiled_operators(summary, model.graph)
        network = zoo.NETWORKS[name]
        rows.append(
            ModelRow(
                name=name,
                size=network.image_size if size is None else size,
                batch=batch,
                operators=summary.operators,
                width=summary.width,
                critical_path=summary.critical_path,
                parameters=summary.parameters,
                macs=summary.macs,
                flops=summary.flops,
                critical_flops=summary.critical_flops,
                source=network.source,
            )
        )
    return rows
