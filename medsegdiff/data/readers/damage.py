"""What a reader raises for a file that is broken."""

from __future__ import annotations

import zlib
from pathlib import Path

from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from medsegdiff.core.errors import InputError

DAMAGED = (
    ImageFileError,
    HeaderDataError,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    MemoryError,
    zlib.error,
)
"""What the libraries raise for a damaged file."""


def unreadable(path: Path, error: Exception | str) -> InputError:
    """The error for a file that its library could not read, in one line."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(path, f"cannot be read as an image ({reason})", "Export the file again")
