"""Arrays that others saved: npz files of probabilities, and pickles of a geometry.

A pickle can call any program. Only plain values and NumPy's arrays are let out of one.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.core.limits import check_inflation, check_size

PROBABILITIES = ("probabilities", "softmax")
"""Names of the array in nnU-Net's files, of version 2 and version 1."""

_ALLOWED = {
    *(("numpy", name) for name in ("dtype", "ndarray")),
    *(
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")
        for module, name in (
            ("multiarray", "_reconstruct"),
            ("multiarray", "scalar"),
            ("numeric", "_frombuffer"),
        )
    ),
    ("_codecs", "encode"),
}
"""Modules and names that a pickle of plain values and arrays refers to."""

_DAMAGE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, MemoryError)


def read_probabilities(path: Path, names: Sequence[str] = PROBABILITIES) -> NDArray[Any]:
    """The array of probabilities in an npz file.

    Args:
        path: Path of the file.
        names: Names that the array may have.

    Returns:
        Array (C, ...) with three or four axes, of the file's own type.

    Raises:
        InputError: the file cannot be read, would take too much memory, or has no such array.
    """
    remedy = "It may be half written: predict the case again"
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(one.file_size for one in archive.infolist())
        check_inflation(path, path.stat().st_size, size)
        check_size(path, size)
        with np.load(path, allow_pickle=False) as arrays:
            known = [name for name in names if name in arrays]
            if not known:
                rule = f"holds no array {' or '.join(names)}, but {', '.join(arrays) or 'nothing'}"
                raise InputError(path, rule, "Give files that nnU-Net wrote with probabilities")
            found: NDArray[Any] = arrays[known[0]]
    except _DAMAGE as error:
        rule = f"cannot be read as an npz file ({type(error).__name__})"
        raise InputError(path, rule, remedy) from error
    if found.ndim not in (3, 4) or found.dtype.kind not in "fu" or not found.size:
        rule = f"holds an array {found.shape} of {found.dtype}, not maps of numbers"
        raise InputError(path, rule, remedy)
    return found


class _PlainUnpickler(pickle.Unpickler):
    """Lets out plain values and arrays; anything else is refused before it is called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"refers to {module}.{name}")
        return super().find_class(module, name)


def read_plain_pickle(path: Path) -> Any:
    """The plain values and arrays in a pickle.

    Args:
        path: Path of the file.

    Raises:
        InputError: it cannot be read, or holds something that is neither.
    """
    try:
        return _PlainUnpickler(io.BytesIO(path.read_bytes())).load()
    except (pickle.UnpicklingError, AttributeError, ImportError, IndexError, TypeError) as error:
        rule = f"is not a pickle of plain values and arrays ({error})"
        raise InputError(path, rule, "Let the program that made it write it again") from error
    except _DAMAGE as error:
        rule = f"cannot be read as a pickle ({type(error).__name__})"
        raise InputError(path, rule, "It may be half written: predict the case again") from error
