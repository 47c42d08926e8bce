"""What compiled code depends on besides the model and its target.

Two fingerprints serve as parts of cache keys. Code for one scheduled kernel depends on TVM, on
LLVM, and on the pass context in force; a whole lowering depends on these, on the packages that
read the model and fold its constants, and on our own passes, whose source is hashed: whoever
changes a rule sees the change in the next build.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from functools import cache
from pathlib import Path
from typing import Any

import tvm

import hios.ir

__all__ = ["compiler_fingerprint", "is_observed", "lowering_fingerprint"]

_SCHEMA = 1
"""Version of everything that is kept; raise it when the meaning of a key changes."""

_PACKAGES = ("apache-tvm", "apache-tvm-ffi", "numpy", "onnx", "torch", "ml-dtypes")


def compiler_fingerprint() -> str:
    """Return a hash of what turns a scheduled kernel into code, here and now."""
    return _digest([_SCHEMA, *_compiler(), _context()])


def lowering_fingerprint() -> str:
    """Return a hash of what turns a model into scheduled kernels and code, here and now."""
    return _digest([_SCHEMA, *_compiler(), _context(), _versions(), _own_source()])


def is_observed() -> bool:
    """Return whether somebody watches the passes, who would see nothing of a kept result."""
    return len(tvm.transform.PassContext.current().instruments or ()) > 0


def _compiler() -> list[Any]:
    return [str(tvm.__version__), int(tvm.target.codegen.llvm_version_major())]


def _context() -> list[Any]:
    context: Any = tvm.transform.PassContext.current()
    settings = sorted((str(key), str(value)) for key, value in dict(context.config).items())
    required = [str(name) for name in context.required_pass]
    disabled = [str(name) for name in context.disabled_pass]
    return [int(context.opt_level), required, disabled, settings]


@cache
def _versions() -> list[Any]:
    found: list[Any] = []
    for package in _PACKAGES:
        try:
            found.append([package, importlib.metadata.version(package)])
        except importlib.metadata.PackageNotFoundError:
            found.append([package, None])
    return found


@cache
def _own_source() -> str:
    digest = hashlib.sha256()
    for folder in (Path(__file__).parent, Path(hios.ir.__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            digest.update(str(path.relative_to(folder)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
