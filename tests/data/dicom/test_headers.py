"""Bare data sets: DICOM without preamble, without meta header, or without both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from medsegdiff.data.dicom import find_series, read_series
from medsegdiff.data.dicom.headers import open_dicom
from tests.data.dicom.files import as_ct, compress, made


def bare(file: Path, syntax: str = "ExplicitVRLittleEndian", preamble: bool = False) -> None:
    """Leave the data set alone, with a preamble but without a meta header if asked for."""
    dataset = pydicom.dcmread(file)
    implicit = syntax.startswith("Implicit")
    dataset.file_meta, dataset.preamble = pydicom.dataset.FileMetaDataset(), None
    with file.open("wb") as stream:
        stream.write((bytes(128) + b"DICM") if preamble else b"")
        pydicom.dcmwrite(stream, dataset, implicit_vr=implicit, little_endian=True)


@pytest.mark.parametrize("preamble", [False, True])
@pytest.mark.parametrize("syntax", ["ExplicitVRLittleEndian", "ImplicitVRLittleEndian"])
def test_bare_data_sets_are_read(tmp_path: Path, syntax: str, preamble: bool) -> None:
    folder = as_ct(made(tmp_path / "a"))
    expected, where = read_series(find_series(folder)[0])
    for file in sorted(folder.iterdir())[:4]:  # the others are whole
        bare(file, syntax, preamble)
    (series,) = find_series(folder)
    values, geometry = read_series(series)
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(geometry.affine, where.affine)


def test_meta_header_without_a_preamble(tmp_path: Path) -> None:
    folder = compress(as_ct(made(tmp_path / "a")), "RLELossless")
    expected, _ = read_series(find_series(folder)[0])
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[132:])
    np.testing.assert_array_equal(read_series(find_series(folder)[0])[0], expected)


@pytest.mark.parametrize(
    "content", [b"", b"\x08", b"no DICOM at all, but a text of some length", bytes(500)]
)
def test_other_files_are_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(pydicom.errors.InvalidDicomError):
        open_dicom(tmp_path / "a")
