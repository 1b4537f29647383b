"""The error that a reader raises for a damaged file."""

from __future__ import annotations

import zlib
from pathlib import Path

from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from medsegdiff.core.errors import InputError

DAMAGED = (
    ImageFileError,
    HeaderDataError,
    WrapStructError,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    MemoryError,
    zlib.error,
)
"""Exceptions that the libraries raise for a damaged file."""


_LFS = b"version https://git-lfs"


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file only stands for one that Git LFS has not fetched."""
    try:
        with path.open("rb") as stream:
            return stream.read(len(_LFS)) == _LFS
    except OSError:
        return False


def is_broken_link(path: Path) -> bool:
    """Whether a path is a link to a file that is not there."""
    return path.is_symlink() and not path.exists()


def broken_link(path: Path) -> InputError:
    """The error for such a link."""
    remedy = "Fetch what it points to, such as by git annex or datalad, or remove it"
    return InputError(path, "is a link to a file that is not there", remedy)


def unreadable(path: Path, error: Exception | str) -> InputError:
    """The error, in one line, for a file that its library could not read."""
    if is_lfs_pointer(path):
        rule = "is no image but a Git LFS pointer to one"
        return InputError(path, rule, "Fetch the image itself: git lfs pull")
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(path, f"cannot be read as an image ({reason})", "Export the file again")
