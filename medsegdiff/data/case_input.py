"""One case to segment: its name, and the files of its channels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medsegdiff.data import dicom
from medsegdiff.data.formats import files_of
from medsegdiff.data.images import Source
from medsegdiff.data.pixel_spacing import PixelSpacing


@dataclass(frozen=True)
class CaseInput:
    """One case to segment.

    Attributes:
        id: Name of the case's folder and files, without anything that identifies a DICOM patient.
        image: Files or DICOM series, one per channel.
        spacing: Size of a photograph's pixels in mm, if it is known.
        service: Address of the DICOMweb server that the image came from; None for local files.
    """

    id: str
    image: tuple[Source, ...]
    service: str | None = None
    spacing: PixelSpacing | tuple[()] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the image, channel by channel."""
        return tuple(
            file
            for one in self.image
            for file in (one.files if isinstance(one, dicom.Series) else files_of(one))
        )
