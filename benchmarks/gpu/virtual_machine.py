"""TVM's own virtual machine with the same kernels, on a GPU: the executor that ours is held to.

Weights would make its library as large as the network; they are turned into further inputs, whose
shapes stand in a file beside it, and drawn when it is opened: it is only timed.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["VirtualMachine", "export_virtual_machine"]

_LIFTED_BYTES = 4 << 10


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
        lowered, ports = _weights_as_inputs(lowering_pipeline(resolved)(module))
        executable = relax.build(lowered, resolved, relax_pipeline="default_build")
        device = device_module(executable.mod)
        cubin = compile_cubin(str(device.inspect_source("cuda")), str(resolved.attrs["arch"]))
        executable.export_library(str(path), fpack_imports=pack_imports(cubin))
    path.with_suffix(".json").write_text(json.dumps(ports))


def _weights_as_inputs(module: Any) -> tuple[Any, list[tuple[list[int], str]]]:
    """Return the module with large constants as parameters, and their shapes and dtypes."""
    from tvm import ir, relax

    from relay_passes.straight_line import StraightLineRewriter, dtype_of, static_shape

    main = module["main"]
    lifted: dict[Any, Any] = {}

    def visit(node: Any) -> None:
        if isinstance(node, ir.GenericConst) and node not in lifted:
            shape = static_shape(node) or ()
            if int(np.prod(shape, dtype=np.int64)) * 4 > _LIFTED_BYTES:
                lifted[node] = relax.Var(f"weight{len(lifted)}", node.ty)

    relax.analysis.post_order_visit(main, visit)

    class Rewriter(StraightLineRewriter):
        def rewrite_call(self, call: Any, name: str) -> Any:
            if name != "relax.call_tir":
                return call
            fields = [lifted.get(field, field) for field in call.args[1].fields]
            arguments = [call.args[0], relax.Tuple(fields), *call.args[2:]]
            return ir.Call(call.op, arguments, call.attrs, call.ty_args)

    wider = relax.Function(
        [*main.params, *lifted.values()], main.body, main.ret_ty, main.is_pure, main.attrs
    )
    functions = dict(module.functions_items())
    functions[module.get_global_var("main")] = wider
    ports = [(list(static_shape(var) or ()), dtype_of(var)) for var in lifted.values()]
    return Rewriter(_module_of(functions, module.attrs)).run(), ports


def _module_of(functions: Any, attrs: Any) -> Any:
    """Return a module of functions under new variables, since a signature has changed."""
    import tvm
    from tvm import ir

    renamed = {
        (ir.GlobalVar("main") if str(var.name_hint) == "main" else var): function
        for var, function in functions.items()
    }
    return tvm.IRModule(renamed, attrs=attrs)


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
        rng = np.random.default_rng(0)
        self._weights = [
            tvm.runtime.tensor(0.05 * rng.standard_normal(shape, np.float32), self._device)
            if dtype == "float32"
            else tvm.runtime.tensor(np.zeros(shape, dtype), self._device)
            for shape, dtype in json.loads(path.with_suffix(".json").read_text())
        ]

    def place(self, inputs: Sequence[np.ndarray[Any, Any]]) -> None:
        """Copy the inputs to the device."""
        self._inputs = [self._tvm.runtime.tensor(value, self._device) for value in inputs]
        self._device.sync()

    def run(self) -> Any:
        """Run once, from inputs on the device to outputs on the device."""
        found = self._machine["main"](*self._inputs, *self._weights)
        self._device.sync()
        return found
