"""The network of a comparison, in every form that an engine may want.

Each form is made when first asked for and then shared: kernels are compiled once for all rows
of ours, and the network is one ONNX model for all others.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from hios.errors import InvalidOption
from hios.ir.kernels import CompiledGraph
from hios.ir.machine import Machine
from hios.ir.presets import available_cores
from hios_tvm.costing import KnownCosts, resolve_costs
from hios_tvm.engines.protocol import Arrays
from hios_tvm.sources import Progress, compile_model, resolve_model

__all__ = ["Subject"]


class Subject:
    """A network and the devices that it is compared on.

    Parameters
    ----------
    source
        As `hios_tvm.build` takes a model, or the path of an artifact (then only engines of ours
        can run it).
    machine
        The devices of our schedules; other engines use the same cores.
    target, shapes, seed
        As in `hios_tvm.build`; `seed` is also that of the inputs.
    costs
        As in `hios_tvm.build`; by default measured on a CPU and estimated elsewhere.
    """

    def __init__(
        self,
        source: Any,
        machine: Machine,
        *,
        target: Any = None,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        seed: int = 0,
        costs: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.source = source
        self.machine = machine
        self.target = target
        self.shapes = dict(shapes or {})
        self.seed = seed
        self.progress = progress
        self._executables: dict[str, Any] = {}
        is_here = all(device.kind == "cpu" for device in machine.devices)
        self._costs = costs or ("profile" if is_here else "analytic")

    @property
    def name(self) -> str:
        """What the network is called: the path or reference, else the name of its graph."""
        return str(self.source) if isinstance(self.source, str | Path) else self.graph_name

    @property
    def graph_name(self) -> str:
        """The name of the compiled graph."""
        return self.compiled.graph.name

    @property
    def is_artifact(self) -> bool:
        """Whether only kernels are at hand, and no model that another engine could read."""
        if isinstance(self.source, CompiledGraph):
            return True
        text = str(self.source) if isinstance(self.source, str | Path) else ""
        return text.rstrip("/").endswith(".hios")

    @cached_property
    def cores(self) -> tuple[int, ...]:
        """The cores of the devices; on other devices, all that this process may use."""
        owned = {core for device in self.machine.devices for core in device.cores}
        return tuple(sorted(owned)) or available_cores()

    @cached_property
    def network(self) -> Any:
        """The model, built where the source is a reference (``zoo:``, ``light:``)."""
        return resolve_model(self.source, self.seed)

    @cached_property
    def compiled(self) -> CompiledGraph:
        """Our graph and kernels."""
        if self.is_artifact and not isinstance(self.source, CompiledGraph):
            from graph_executor.artifact import load_artifact

            return load_artifact(Path(self.source)).compiled
        return compile_model(
            self.network if self.factory is None else self.factory,
            self.target,
            machine=self.machine,
            shapes=self.shapes,
            seed=self.seed,
            progress=self.progress,
        )

    @cached_property
    def factory(self) -> Any | None:
        """What ``relay.build`` makes of the network where TVM has Relay; None elsewhere."""
        from relay_passes.relay.availability import has_relay

        if not has_relay() or self.onnx is None:
            return None
        from hios_tvm.relay import pass_context
        from relay_passes.relay.onnx_factory import build_onnx

        context = pass_context(machine=self.machine, scheduler="sequential")
        return build_onnx(self.onnx, context, self.shapes)

    def executable(self, kernels: str) -> Any:
        """Return the network compiled for TVM's virtual machine; once for each kind of kernels.

        Parameters
        ----------
        kernels
            ``default`` (TVM's own pipeline) or ``ours``.
        """
        if kernels not in self._executables:
            from hios_tvm.api import pipeline
            from relay_passes.virtual_machine import compile_executable

            # Any scheduler: the kernels are the same, and the VM runs in its own order.
            passes: Any = "default"
            if kernels == "ours":
                passes = pipeline(machine=self.machine, scheduler="sequential")
            self._executables[kernels] = compile_executable(
                self.network, self.target or "llvm", self.shapes, passes
            )
        return self._executables[kernels]

    @cached_property
    def known(self) -> KnownCosts:
        """The costs of the graph on the machine, and the machine with the links they used."""
        return resolve_costs(self._costs, self.compiled, self.machine, progress=self.progress)

    @cached_property
    def onnx(self) -> Any | None:
        """The network as an ``onnx.ModelProto``; None where it came in another form."""
        if self.is_artifact:
            return None
        network = self.network
        if type(network).__name__ == "ModelProto":
            return network
        if isinstance(network, str | Path) and str(network).lower().endswith(".onnx"):
            import onnx

            return onnx.load(str(network))
        return None

    @cached_property
    def program(self) -> Any | None:
        """The network as a ``torch.export.ExportedProgram``; None where it came otherwise."""
        if self.is_artifact:
            return None
        network = self.network
        if type(network).__name__ == "ExportedProgram":
            return network
        if isinstance(network, str | Path) and str(network).lower().endswith((".pt2", ".pt")):
            from relay_passes.frontends.torch_export import read_torch

            return read_torch(Path(network))
        return None

    @cached_property
    def inputs(self) -> Arrays:
        """The same random inputs for all engines, in the order of the signature."""
        from graph_executor.executor import random_inputs

        return random_inputs(self.compiled.graph, self.seed)

    def require_onnx(self) -> Any:
        """Return the network as ONNX.

        Raises
        ------
        InvalidOption
            When it came in another form.
        """
        if self.onnx is None:
            raise InvalidOption(f"{self.name} is no ONNX model; export it to ONNX")
        return self.onnx

    def lacks_onnx(self) -> str | None:
        """Return what an engine that reads ONNX has to say to this network."""
        if self.onnx is not None:
            return None
        if self.is_artifact:
            return "an artifact holds kernels only; give the model that it was compiled from"
        return "reads ONNX models only; export this one to ONNX"
