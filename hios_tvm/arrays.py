"""Arrays of a run as ``.npz`` files, in and out."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hios.errors import InputMismatch, MissingFile
from hios.ir.serial import write_atomically

__all__ = ["read_arrays", "write_arrays"]


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of an ``.npz`` file; nothing in it is unpickled.

    Raises
    ------
    MissingFile
        When it does not exist or may not be read.
    InputMismatch
        When it is no ``.npz`` file, or holds Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise InputMismatch(
                    f"{path} holds one array without a name; write it with np.savez"
                )
            return {name: file[name] for name in file.files}
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise MissingFile(f"cannot read {str(path)!r}: {reason}; check the path") from problem
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as problem:
        raise InputMismatch(f"{path} is no .npz file of plain arrays: {problem}") from problem


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays as an ``.npz`` file that `numpy.load` reads.

    Unlike `numpy.savez` it takes any name, and leaves no half-written file.

    Raises
    ------
    StorageError
        When it cannot be written.
    """

    def fill(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)

    write_atomically(path, fill)
