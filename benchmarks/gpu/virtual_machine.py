"""TVM's own virtual machine with the same kernels, on a GPU: the executor that ours is held to."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["VirtualMachine", "export_virtual_machine"]


def export_virtual_machine(model: Any, target: str, path: Path, is_captured: bool) -> None:
    """Compile a model with our kernels for TVM's virtual machine, to machine code.

    Parameters
    ----------
    model
        As `relay_passes.compile_graph` takes it.
    target
        ``cuda:sm_90`` and so on.
    path
        The shared library.
    is_captured
        Let the virtual machine capture CUDA graphs (one stream, one device).
    """
    import tvm
    from tvm import relax

    from relay_passes.compile import resolve_target
    from relay_passes.cuda.cubin import compile_cubin
    from relay_passes.cuda.packing import device_module, pack_imports
    from relay_passes.frontends import import_model
    from relay_passes.pipeline import lowering_pipeline

    resolved = resolve_target(target)
    module = import_model(model, None).mod
    config = {"relax.backend.use_cuda_graph": is_captured}
    with tvm.transform.PassContext(config=config), resolved:
        # The weights become parameters of the machine, on the device.
        lowered = lowering_pipeline(resolved)(module)
        executable = relax.build(lowered, resolved, relax_pipeline="default_build")
        device = device_module(executable.mod)
        cubin = compile_cubin(str(device.inspect_source("cuda")), str(resolved.attrs["arch"]))
        executable.export_library(str(path), fpack_imports=pack_imports(cubin))


class VirtualMachine:
    """A library of `export_virtual_machine`, ready to run on one GPU."""

    def __init__(self, path: Path, ordinal: int = 0) -> None:
        import tvm

        self._tvm = tvm
        self._device = tvm.runtime.device("cuda", ordinal)
        # The loader knows libraries by their paths: give each its own.
        self._folder = tempfile.TemporaryDirectory(prefix="hios-vm-")
        copy = Path(self._folder.name, path.parent.name + path.name)
        copy.write_bytes(path.read_bytes())
        module = tvm.runtime.load_module(str(copy))
        from tvm.runtime.vm import VirtualMachine as Machine

        self._machine = Machine(module, self._device)
        self._inputs: list[Any] = []

    def place(self, inputs: Sequence[np.ndarray[Any, Any]]) -> None:
        """Copy the inputs to the device."""
        self._inputs = [self._tvm.runtime.tensor(value, self._device) for value in inputs]
        self._device.sync()

    def run(self) -> Any:
        """Run once, from inputs on the device to outputs on the device."""
        found = self._machine["main"](*self._inputs)
        self._device.sync()
        return found
