"""The one adapter to TVM's runtime; no other file of this package imports it.

TVM's Python API moves at every release, so what the executor needs is named here in its own
words (`graph_executor.tvm_runtime.protocol`): load a library, look up a kernel, allocate memory
of a device, see a part of it as a tensor, copy, and set the threads that a kernel uses. Two
generations are known: TVM on ``tvm_ffi`` (Relax; `ffi_tvm`) and TVM ≤ 0.19 (Relay; `relay_tvm`).
The one that is installed is taken.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from graph_executor.tvm_runtime.protocol import Array, Kernel, TvmRuntime

if TYPE_CHECKING or find_spec("tvm_ffi") is not None:
    from graph_executor.tvm_runtime import ffi_tvm as _runtime
else:
    from graph_executor.tvm_runtime import relay_tvm as _runtime

__all__ = [
    "Array",
    "Kernel",
    "Memory",
    "bind_copy",
    "bind_launch",
    "device_tensor",
    "export_executable",
    "find_kernel",
    "load_library",
    "open_executable",
    "runtime_version",
    "set_stream",
    "set_threads",
    "target_features",
]

_checked: TvmRuntime = _runtime

Memory = _runtime.Memory
bind_copy = _runtime.bind_copy
bind_launch = _runtime.bind_launch
device_tensor = _runtime.device_tensor
export_executable = _runtime.export_executable
find_kernel = _runtime.find_kernel
load_library = _runtime.load_library
open_executable = _runtime.open_executable
runtime_version = _runtime.runtime_version
set_stream = _runtime.set_stream
set_threads = _runtime.set_threads
target_features = _runtime.target_features
