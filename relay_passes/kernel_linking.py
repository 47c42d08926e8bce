"""Object files of kernels as one shared library, under the names that a network uses."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from tvm.support import cc

from hios.errors import StorageError
from hios.linking import check_linking, find_compiler, linking_failure
from relay_passes.kernel_objects import KernelObject

__all__ = ["link_objects"]

_PREFIX = "__tvm_ffi_"
"""What the runtime puts before the name of a function to find its symbol."""


def link_objects(objects: Mapping[str, KernelObject]) -> bytes:
    """Link kernels.

    Parameters
    ----------
    objects : mapping
        Objects by the name under which each shall be found; several names may mean one symbol.

    Returns
    -------
    bytes
        The shared library.

    Raises
    ------
    MissingDependency
        When there is no C compiler to link with.
    StorageError
        When the temporary folder has no room, or linking fails.
    """
    check_linking()
    try:
        with tempfile.TemporaryDirectory(prefix="hios-link-") as folder:
            files = {}
            for found in objects.values():
                path = Path(folder) / f"{found.symbol}.o"
                if found.symbol not in files:
                    path.write_bytes(found.data)
                    files[found.symbol] = str(path)
            # A second name costs no code: --defsym makes it a symbol of the same address.
            names = Path(folder) / "names.rsp"
            names.write_text(
                "".join(
                    f"--defsym={_PREFIX}{name}={_PREFIX}{found.symbol}\n"
                    for name, found in objects.items()
                    if name != found.symbol
                )
            )
            library = Path(folder) / "kernels.so"
            cc.create_shared(
                str(library),
                list(files.values()),
                options=[f"-Wl,@{names}"],
                cc=find_compiler(),
            )
            return library.read_bytes()
    except (OSError, RuntimeError) as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"cannot link kernels: {linking_failure(error)}; a C compiler (cc) and space are needed"
        ) from None
