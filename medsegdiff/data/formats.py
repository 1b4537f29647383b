"""The formats of image files: one table of endings and readers.

DICOM is none of them: it is known by its content, not by a name, and read from whole series
(:mod:`medsegdiff.data.dicom`). A further format is a reader, and a line in ``FORMATS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from medsegdiff.core.types import Geometry
from medsegdiff.data.readers.itk import itk_files, read_itk, read_itk_geometry
from medsegdiff.data.readers.nifti import read_nifti, read_nifti_geometry
from medsegdiff.data.readers.photograph import read_mask_photograph, read_photograph

Kind = Literal["volume", "photograph", "segmentation"]
"""A volume lies in the world, in millimetres; a photograph has pixels, and colours in its last
axis; a segmentation is a volume of class numbers, and no image to segment."""

Reader = Callable[[Path], tuple[NDArray[Any], Geometry]]


@dataclass(frozen=True)
class Format:
    """A format of image files.

    Attributes:
        name: for people.
        endings: of file names, in lower case, with the dot.
        kind: of what is in such files.
        read: path -> values (X, Y[, Z][, channels or time]) and geometry.
        read_geometry: path -> geometry, from the header alone; None: it takes the whole file.
        read_label: the same as ``read`` of a file that holds class numbers; None: no difference.
        files: path -> all files that the values come from.
    """

    name: str
    endings: tuple[str, ...]
    kind: Kind
    read: Reader
    read_geometry: Callable[[Path], Geometry] | None = None
    read_label: Reader | None = None
    files: Callable[[Path], tuple[Path, ...]] = lambda path: (path,)


def _itk(name: str, *endings: str, kind: Kind = "volume") -> Format:
    return Format(name, endings, kind, read_itk, read_itk_geometry, files=itk_files)


def _photograph(name: str, *endings: str) -> Format:
    return Format(name, endings, "photograph", read_photograph, read_label=read_mask_photograph)


FORMATS = (
    Format("NIfTI", (".nii.gz", ".nii"), "volume", read_nifti, read_nifti_geometry),
    _itk("3D Slicer segmentation", ".seg.nrrd", kind="segmentation"),
    _itk("NRRD", ".nrrd", ".nhdr"),
    _itk("MetaImage", ".mha", ".mhd"),
    _photograph("PNG", ".png"),
    _photograph("JPEG", ".jpg", ".jpeg"),
    _photograph("TIFF", ".tif", ".tiff"),
    _photograph("GIF", ".gif"),
    _photograph("BMP", ".bmp"),
)
"""All formats; of two endings that fit, the first counts."""

DICOM_ENDING = ".dcm"
"""Usual, but neither needed nor enough."""


def format_of(source: object) -> Format | None:
    """The format of a file, by its name; None for a DICOM series, a folder or an unknown ending.

    >>> format_of("a/scan.NII.gz").name
    'NIfTI'
    >>> format_of("a/IM0001") is None
    True
    """
    if not isinstance(source, str | Path):
        return None
    name = Path(source).name.lower()
    return next((one for one in FORMATS if name.endswith(one.endings)), None)


def is_photograph(source: object) -> bool:
    """Whether a source is a photograph, by its name.

    >>> is_photograph("eye.JPG"), is_photograph("scan.nrrd")
    (True, False)
    """
    found = format_of(source)
    return found is not None and found.kind == "photograph"


def list_endings(*kinds: Kind) -> tuple[str, ...]:
    """Endings of the formats of these kinds; of all without any.

    >>> list_endings("volume")
    ('.nii.gz', '.nii', '.nrrd', '.nhdr', '.mha', '.mhd')
    """
    return tuple(end for one in FORMATS if one.kind in kinds or not kinds for end in one.endings)


def without_ending(name: str) -> str:
    """A file's name without the ending of its format, or of DICOM.

    >>> [without_ending(name) for name in ("x.y.nii.gz", "x.seg.nrrd", "x.dcm", "x.txt")]
    ['x.y', 'x', 'x', 'x.txt']
    """
    endings = (*list_endings(), DICOM_ENDING)
    ending = next((end for end in endings if name.lower().endswith(end)), "")
    return name[: len(name) - len(ending)]


def files_of(source: str | Path) -> tuple[Path, ...]:
    """All files that an image is read from: the file itself, and those that its header names."""
    found, path = format_of(source), Path(source)
    return found.files(path) if found else (path,)
