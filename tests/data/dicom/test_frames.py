"""Fields of an enhanced object's frames: the standard's own count, whatever else is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.sequence import Sequence as Items

from medsegdiff.data.dicom import find_series, read_series
from tests.data.dicom.files import OBLIQUE, dataset, edit_all, enhance, made


def test_private_copies_of_the_position_are_not_read(tmp_path: Path) -> None:
    """Philips keeps a single image's fields in each frame, half a pixel off."""

    def add_copies(header: pydicom.Dataset) -> None:
        for item in header.PerFrameFunctionalGroupsSequence:
            position = item.PlanePositionSequence[0].ImagePositionPatient
            copy = dataset(ImagePositionPatient=[float(v) - 0.75 for v in position])
            block = item.private_block(0x2005, "Philips MR Imaging DD 005", create=True)
            block.add_new(0x0F, "SQ", Items([copy]))
            source = dataset(ImagePositionPatient=[0, 0, 0])
            item.DerivationImageSequence = Items([dataset(SourceImageSequence=source)])

    folder = edit_all(enhance(made(tmp_path / "a")), add_copies)
    _, geometry = read_series(find_series(folder)[0])
    np.testing.assert_allclose(geometry.affine, OBLIQUE, atol=1e-5)
