"""What linking kernels into a shared library takes, looked at before it begins.

LLVM ends the whole process when it cannot write an object file, and without a compiler TVM
calls a program named None. Neither can be caught, so both are looked for first.
"""

import os
import resource
import shutil
import tempfile

from hios.errors import MissingDependency, StorageError

__all__ = ["check_linking", "find_compiler", "linking_failure"]

_OBJECT_BYTES = 32 << 20
"""Room for the object files; those of networks take 1 to 10 MB."""

_COMPILERS = ("g++", "gcc", "clang++", "clang", "c++", "cc")


def find_compiler() -> str:
    """Return the path of the C compiler that links kernels: ``CXX``, ``CC``, or one on the path.

    Raises
    ------
    MissingDependency
        When there is none.
    """
    for variable in ("CXX", "CC"):
        if chosen := os.environ.get(variable):
            found = shutil.which(chosen)
            if found is None:
                raise MissingDependency(
                    f"cannot link kernels: {variable}={chosen!r} is no program; set {variable} to "
                    "the path of gcc or clang, or unset it"
                )
            return found
    for name in _COMPILERS:
        if (found := shutil.which(name)) is not None:
            return found
    raise MissingDependency(
        "cannot link kernels: there is no C compiler on the path; install gcc or clang, or set "
        "CXX to its path"
    )


def check_linking() -> None:
    """Check that kernels can be linked: a compiler, and room for object files.

    The room is taken and given back, which also finds quotas and limits.

    Raises
    ------
    MissingDependency
        When there is no C compiler.
    StorageError
        When the temporary folder cannot take the object files.
    """
    find_compiler()
    needed = f"needs {_OBJECT_BYTES >> 20} MiB for object files"
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit != resource.RLIM_INFINITY and limit < _OBJECT_BYTES:
        raise StorageError(
            f"cannot link kernels: files may have {limit >> 10} KiB here (ulimit -f), linking "
            f"{needed}; raise the limit"
        )
    try:
        folder = tempfile.gettempdir()
    except OSError as problem:
        raise StorageError(
            f"cannot link kernels: no temporary folder can be written; linking {needed}, set TMPDIR"
        ) from problem
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, _OBJECT_BYTES)
    except OSError as problem:
        raise StorageError(
            f"cannot link kernels: {folder!r}: {problem.strerror}; linking {needed}; free some, "
            "or set TMPDIR"
        ) from problem


def linking_failure(problem: Exception) -> str:
    """Return the line of a failed link that says why: neither the heading nor the command."""
    lines = [line.strip() for line in str(problem).splitlines()]
    telling = [
        line
        for line in lines
        if line and not line.startswith(("Compilation error:", "Command line:"))
    ]
    return telling[0] if telling else type(problem).__name__
