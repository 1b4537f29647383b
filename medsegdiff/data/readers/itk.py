"""Reads values and geometry of NRRD and MetaImage files, by SimpleITK."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.core.limits import check_inflation, check_size
from medsegdiff.core.types import LPS_TO_RAS, Geometry
from medsegdiff.core.worker_process import WorkerError
from medsegdiff.data.readers.apart import read_apart
from medsegdiff.data.readers.damage import unreadable

_DATA_FILE = re.compile(r"^\s*(?:data ?file\s*:|ElementDataFile\s*=)\s*(.+?)\s*$", re.I | re.M)
_END = re.compile(rb"\r?\n\r?\n|(?<=LOCAL)\s*\n")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_FREE = re.compile(
    r"\s*(#|content\s*:|data ?file\s*:|(comment|name|elementdatafile)\s*=|.*:=)", re.I
)
_NUMBERS = re.compile(
    r"\s*(dimension|space dimension|sizes|spacings|space directions|space origin|line ?skip|"
    r"byte ?skip|ndims|dimsize|elementspacing|elementsize|offset|origin|position|transformmatrix|"
    r"rotation|orientation|centerofrotation|headersize|elementnumberofchannels)\s*[:=](?!=)",
    re.I,
)
_WORDS = re.compile(r"[^\s,()]+")
_LONGEST_HEADER = 2**20  # bytes; a header whose data lie in other files is far shorter


def read_itk(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Values (X, Y[, Z]), channels or time in a further axis, and the geometry in RAS+ mm.

    Raises:
        InputError: the file is unreadable or truncated, its values are not real or too many, or its
            geometry is not usable.
    """
    header = _header(path)
    array = _values(header, path)
    if array.dtype.kind not in "buif":
        rule = f"must hold one real number per voxel, not {array.dtype}"
        raise InputError(path, rule, "Store complex parts as separate channels")
    axes = len(header["size"])
    array = array.transpose(*reversed(range(axes)), *range(axes, array.ndim))
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim > 4:
        rule = f"has {array.ndim} axes {array.shape}, at most four are understood"
        raise InputError(path, rule, "Give one volume of it")
    return array, _geometry(header, path)


def read_itk_geometry(path: Path) -> Geometry:
    """The geometry alone, from the header.

    Raises:
        InputError: as for :func:`read_itk`, for faults of the header.
    """
    return _geometry(_header(path), path)


def _check_header(path: Path) -> None:
    """Refuse what ITK reads wrongly without a word, or ends the process by.

    It takes a number up to the first character that is none (``-3.93?6`` for -3.93), leaves out
    what it does not understand, and where a file with values does not exist, it may crash.

    Raises:
        InputError: a line of the header is damaged, or a file with values does not exist.
    """
    try:
        with path.open("rb") as stream:
            header = _END.split(stream.read(_LONGEST_HEADER))[0].decode("latin-1")
    except OSError:  # the reader reports what is wrong
        return
    for line in header.replace("\r\n", "\n").split("\n"):
        free, numbers = _FREE.match(line), _NUMBERS.match(line)
        damaged = _CONTROL.search(line) or not (free or line.isascii())
        if damaged or (numbers and not _are_numbers(line[numbers.end() :])):
            rule = f"the header's line {line[:60]!r} is damaged"
            raise InputError(path, rule, "Export or copy the file again")
    named = _DATA_FILE.search(header)
    if named and named[1].upper() != "LOCAL" and itk_files(path) == (path,):
        rule = f"names {named[1][:60]!r} as the file with its values, which does not exist"
        raise InputError(path, rule, "Copy that file beside the header, or export the image again")


def _are_numbers(text: str) -> bool:
    try:
        _ = [float(word) for word in _WORDS.findall(text) if word != "none"]
    except ValueError:
        return False
    return True


def itk_files(path: Path) -> tuple[Path, ...]:
    """A header and the files with its values; the file alone if it contains its values."""
    try:
        with path.open("rb") as stream:
            text = stream.read(_LONGEST_HEADER).split(b"\n\n")[0].decode("latin-1")
    except OSError:  # the reader reports what is wrong
        return (path,)
    found = _DATA_FILE.search(text)
    if not found or found[1].upper() == "LOCAL":
        return (path,)
    if found[1].upper().startswith("LIST"):
        names = text[found.end() :].split("\n")
        named = [path.parent / name.strip() for name in names if name.strip()]
    elif "%" in found[1]:  # a pattern, followed by the numbers to insert
        named = sorted(path.parent.glob(re.sub(r"%\d*d", "*", found[1].split()[0])))
    else:
        named = [path.parent / found[1]]
    return (path, *(file for file in named if file.is_file()))


def _header(path: Path) -> dict[str, Any]:
    """What ITK finds in the header: what ``itk_header`` of the worker says."""
    _check_header(path)
    try:
        return read_apart("itk_header", itk_files(path))[0]
    except (WorkerError, OSError) as error:
        raise unreadable(path, error) from None


def _values(header: dict[str, Any], path: Path) -> NDArray[Any]:
    """The values (Z, Y, X[, channels]); refused by what the header says, before room is made."""
    files, count = itk_files(path), math.prod(header["size"]) * header["channels"]
    check_inflation(path, sum(file.stat().st_size for file in files), count)
    check_size(path, 4.0 * count)
    try:
        return read_apart("itk_values", files, needed=8.0 * count)[1]
    except (WorkerError, OSError) as error:
        raise unreadable(path, error) from None


def _geometry(header: dict[str, Any], path: Path) -> Geometry:
    axes = len(header["size"])
    used = min(axes, 3)
    affine = np.eye(4)
    directions = np.array(header["directions"]).reshape(axes, axes)
    affine[:used, :used] = (directions * np.array(header["spacing"]))[:used, :used]
    affine[:used, 3] = header["origin"][:used]
    affine = LPS_TO_RAS @ affine
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine) < 4:
        rule = "its directions and spacings are singular or not finite"
        raise InputError(path, rule, "Correct the header")
    return Geometry(tuple(header["size"][:used]), affine, sources=itk_files(path))
