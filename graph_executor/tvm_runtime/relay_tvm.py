"""TVM with Relay (≤ 0.19): ``DLTensor`` structures and bare calls of its C interface.

Kernels of a stock ``relay.build`` refuse tensors with a byte offset. They take any ``DLTensor``
though, so a part of an arena is given to them as a structure whose data pointer already stands
at the offset: the planned arenas hold here as well, and no kernel is changed.

The Python interface of this generation is ctypes where it was built without Cython, 6 µs a
call. Arguments never change between runs, so they are packed once and a launch is one call of
``TVMFuncCall``.
"""

import ctypes
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm._ffi import base

from graph_executor.dtypes import numpy_dtype
from graph_executor.graph_json import read_notes
from graph_executor.host import vector_features
from graph_executor.tvm_runtime.huge_pages import prefer_huge_pages
from graph_executor.tvm_runtime.protocol import Array, Kernel
from hios.errors import ArtifactMismatch, StorageError
from hios.linking import check_linking, linking_failure

__all__ = [
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

_SPECIFY_ONE_CORE_PER_THREAD = -2
_ALIGNMENT_BYTES = 256

# Argument codes of TVMFuncCall (tvm/runtime/c_runtime_api.h).
_INT = 0
_DLTENSOR = 7
_OBJECT = 8

# Kinds of devices (dlpack.h).
_CPU = 1
_CUDA = 2

# As in ffi_tvm: idle threads of a pool otherwise look for work for a tenth of a second.
os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", "10000")


class _Device(ctypes.Structure):
    _fields_ = (("device_type", ctypes.c_int), ("device_id", ctypes.c_int))


class _DType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int),
        ("dtype", _DType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Value(ctypes.Union):
    _fields_ = (
        ("v_int64", ctypes.c_int64),
        ("v_float64", ctypes.c_double),
        ("v_handle", ctypes.c_void_p),
    )


def _raise_failure(code: Any, _function: Any, _arguments: Any) -> Any:
    if code != 0:
        base.check_call(code)
    return code


# ctypes gives the interpreter lock away during this call, so kernels of two threads overlap.
_call = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_void_p,
)(("TVMFuncCall", base._LIB))
_call.errcheck = _raise_failure


def runtime_version() -> str:
    """Return the version of the TVM that is loaded."""
    return str(tvm.__version__)


class _Tensor:
    """A ``DLTensor`` and what it points to, which must live as long."""

    __slots__ = ("_keep", "data", "size_bytes", "struct")

    def __init__(
        self,
        owner: Any,
        data: int,
        shape: Sequence[int],
        dtype: str,
        index: int,
        device_type: int = _CPU,
    ) -> None:
        kind = tvm.DataType(dtype)
        extents = (ctypes.c_int64 * max(1, len(shape)))(*shape)
        self.data = data
        self.size_bytes = int(np.prod(shape, dtype=np.int64)) * numpy_dtype(dtype).itemsize
        self.struct = _DLTensor(
            data,
            _Device(device_type, index),
            len(shape),
            _DType(int(kind.type_code), int(kind.bits), int(kind.lanes)),
            ctypes.cast(extents, ctypes.POINTER(ctypes.c_int64)),
            None,
            0,
        )
        self._keep = (owner, extents)


class Memory:
    """One allocation on one device (see `graph_executor.tvm_runtime.protocol`)."""

    def __init__(self, kind: str, index: int, size_bytes: int) -> None:
        if kind != "cpu":
            raise ValueError(f"no memory of kind {kind!r} in this generation of TVM")
        raw: Array = np.empty(max(1, size_bytes) + _ALIGNMENT_BYTES, np.uint8)
        start = -raw.ctypes.data % _ALIGNMENT_BYTES
        self._bytes: Array = raw[start : start + max(1, size_bytes)]
        self._index = index
        prefer_huge_pages(self._bytes)

    def tensor(self, offset: int, shape: Sequence[int], dtype: str) -> Any:
        """Return a part of it as a tensor that kernels take."""
        return _Tensor(self._bytes, self._bytes.ctypes.data + offset, shape, dtype, self._index)

    def array(self, offset: int, shape: Sequence[int], dtype: str) -> Array:
        """Return the same part as a numpy array that shares its memory."""
        kind = numpy_dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        return self._bytes[offset : offset + size].view(kind).reshape(tuple(shape))

    def fill(self, byte: int) -> None:
        """Set every byte."""
        self._bytes.fill(byte)


def load_library(path: Path, origin: Path | None = None) -> Any:
    """Load an exported kernel library.

    Parameters
    ----------
    path
        The file. The dynamic loader knows libraries by their paths: where one was loaded from
        before, the old kernels come again, whatever the file holds by now.
    origin
        What to call it in messages, if it is a copy.

    Raises
    ------
    ArtifactMismatch
        When it is no library that this TVM can load.
    """
    try:
        return tvm.runtime.load_module(str(path))
    except (RuntimeError, ValueError, OSError) as problem:
        first = str(problem).strip().splitlines()[-1] if str(problem).strip() else "no reason given"
        raise ArtifactMismatch(
            f"{str(origin or path)!r} cannot be loaded as a kernel library ({first}); compile it "
            "again"
        ) from problem


def open_executable(executable: Any) -> tuple[Callable[[str], Any], Any]:
    """Open what ``relay.build`` returned to read what it carries.

    Parameters
    ----------
    executable
        A graph executor factory, the library loaded after its ``export_library``, or the triple
        (graph JSON, library, parameters).

    Returns
    -------
    tuple
        As `graph_executor.tvm_runtime.ffi_tvm.open_executable`.

    Raises
    ------
    ArtifactMismatch
        When it is something else.
    """
    graph_json, module, params = _parts(executable)
    notes = read_notes(graph_json)

    def value(name: str) -> Any:
        if name != "hios_weights":
            return notes.texts.get(name)
        missing = [label for label in notes.weights.values() if label not in params]
        if missing:
            raise ArtifactMismatch(
                f"parameter {missing[0]!r} of the graph is not among the {len(params)} given; "
                "pass the parameters that relay.build returned"
            )
        return [params[notes.weights[tensor]].numpy() for tensor in sorted(notes.weights)]

    return value, module


def _parts(executable: Any) -> tuple[str, Any, Any]:
    if isinstance(executable, tuple) and len(executable) == 3:
        graph_json, module, params = executable
        if isinstance(graph_json, str) and isinstance(module, tvm.runtime.Module):
            if isinstance(params, bytes | bytearray):
                params = tvm.runtime.load_param_dict(bytes(params))
            return graph_json, module, {str(key): value for key, value in params.items()}
    if all(hasattr(executable, name) for name in ("graph_json", "lib", "params")):
        return str(executable.graph_json), executable.lib, dict(executable.params)
    kind = type(executable).__name__
    if isinstance(executable, tvm.runtime.Module):
        kind = f"module of type {executable.type_key!r}"
        if executable.type_key == "GraphExecutorFactory":
            params = executable["get_graph_params"]()
            return (
                str(executable["get_graph_json"]()),
                executable,
                {str(key): value for key, value in params.items()},
            )
    raise ArtifactMismatch(
        f"a {kind} is no graph executor factory; pass a CompiledGraph, or what relay.build(...) "
        "returned with its default executor inside hios_tvm.pass_context(...)"
    )


def export_executable(executable: Any, path: Path) -> None:
    """Write a factory or module as a shared library.

    Raises
    ------
    StorageError
        When it cannot be written.
    MissingDependency
        When there is no C compiler to link with.
    """
    check_linking()
    module = executable[1] if isinstance(executable, tuple) else executable
    try:
        if getattr(module, "type_key", "") == "library":
            raise StorageError(
                f"cannot write kernels to {str(path)!r}: a loaded library cannot be exported "
                "again; copy its file"
            )
        module.export_library(str(path))
    except (OSError, RuntimeError, ValueError) as problem:
        if isinstance(problem, StorageError):
            raise
        raise StorageError(
            f"cannot link kernels to {str(path)!r}: {linking_failure(problem)}; a C compiler (cc) "
            "and space are needed"
        ) from problem


def find_kernel(module: Any, name: str) -> Kernel:
    """Return the function called `name` of a loaded library.

    Raises
    ------
    ArtifactMismatch
        When the library has none.
    """
    try:
        found: Kernel = module.get_function(name, query_imports=True)
    except (AttributeError, RuntimeError, ValueError) as problem:
        raise ArtifactMismatch(
            f"the kernel library has no function {name!r}; graph and kernels do not belong "
            "together, compile the model again"
        ) from problem
    return found


def bind_launch(kernel: Kernel, tensors: Sequence[Any]) -> Callable[[], Any]:
    """Return a call of `kernel` with its tensors; 1 µs of Python each time."""
    values = [(_DLTENSOR, ctypes.addressof(tensor.struct)) for tensor in tensors]
    return _bind(kernel, values, tuple(tensors))


def device_tensor(owner: Any, pointer: int, index: int, shape: Sequence[int], dtype: str) -> Any:
    """Return memory of a CUDA device as a tensor that kernels take."""
    return _Tensor(owner, pointer, shape, dtype, index, _CUDA)


def set_stream(index: int, handle: int) -> None:
    """Make kernels of the calling thread go to a stream of a CUDA device; 0: the legacy one."""
    base.check_call(base._LIB.TVMSetStream(_CUDA, index, ctypes.c_void_p(handle)))


def _bind(kernel: Any, arguments: Sequence[tuple[int, int]], keep: Any) -> Callable[[], Any]:
    """Return a call of a packed function with arguments packed now."""
    count = len(arguments)
    values = (_Value * max(1, count))()
    codes = (ctypes.c_int * max(1, count))()
    for position, (code, argument) in enumerate(arguments):
        codes[position] = code
        if code == _INT:
            values[position].v_int64 = argument
        else:
            values[position].v_handle = argument
    result, result_code = _Value(), ctypes.c_int()
    call = partial(
        _call,
        kernel.handle.value,
        ctypes.addressof(values),
        ctypes.addressof(codes),
        count,
        ctypes.addressof(result),
        ctypes.addressof(result_code),
    )
    # The call knows addresses only: what stands there has to live as long as it does.
    call.__dict__["keep"] = (kernel, values, codes, result, result_code, keep)
    return call


def bind_copy(source: Any, target: Any) -> Callable[[], Any]:
    """Return a call that copies one tensor to another of the same shape, on any devices."""
    call = partial(ctypes.memmove, target.data, source.data, source.size_bytes)
    call.__dict__["keep"] = (source, target)
    return call


def set_threads(cores: Sequence[int]) -> Callable[[], Any]:
    """Return a call that makes the kernels of the calling thread run on `cores`.

    See `graph_executor.tvm_runtime.ffi_tvm.set_threads`.
    """
    configure = tvm.get_global_func("runtime.config_threadpool")
    names = tvm.runtime.convert([str(core) for core in cores])
    arguments = [
        (_INT, _SPECIFY_ONE_CORE_PER_THREAD),
        (_INT, len(cores)),
        (_OBJECT, names.handle.value),
    ]
    return _bind(configure, arguments, names)


def target_features(target: str) -> tuple[str, ...]:
    """Return the vector extensions that kernels for an LLVM target may use, sorted.

    See `graph_executor.tvm_runtime.ffi_tvm.target_features`.
    """
    features = tvm.get_global_func("target.llvm_get_cpu_features", allow_missing=True)
    try:
        described = json.loads(target)
    except ValueError:
        return ()
    if features is None or described.get("kind") != "llvm":
        return ()
    names = [str(name) for name in features(tvm.target.Target(described))]
    return tuple(sorted(vector_features(names)))
