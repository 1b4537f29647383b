"""Headers of NRRD and MetaImage that ITK would read wrongly without a word, or crash on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from medsegdiff.core.errors import InputError
from medsegdiff.data.readers.itk import read_itk, read_itk_geometry

VALUES = np.arange(60, dtype=np.int16).reshape(5, 4, 3)


def written(path: Path) -> Path:
    image = sitk.GetImageFromArray(VALUES)
    image.SetSpacing((0.8, 1.3, 2.5))
    image.SetOrigin((12.5, -3.75, 4.25))
    sitk.WriteImage(image, str(path))
    return path


def changed(path: Path, old: bytes, new: bytes) -> Path:
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    return path


@pytest.mark.parametrize(
    "name, old, new",
    [
        ("x.nrrd", b"-3.75,", b"-3.\xb45,"),
        ("x.nrrd", b"-3.75,", b"-3.x5,"),
        ("x.nrrd", b"space origin", b"space\x00origin"),
        ("x.nrrd", b"space directions", b"space\xe4directions"),
        ("x.mha", b"1.3 2.5", b"1?3 2.5"),
        ("x.mha", b"ElementSpacing", b"\xa7lementSpacing"),
        ("x.mha", b"DimSize = 3", b"DimSize = 3_"),
    ],
)
def test_a_damaged_line_of_the_header_is_refused(
    tmp_path: Path, name: str, old: bytes, new: bytes
) -> None:
    path = changed(written(tmp_path / name), old, new)
    for read in (read_itk, read_itk_geometry):
        with pytest.raises(InputError, match=r"the header's line .* is damaged"):
            read(path)


@pytest.mark.parametrize("name", ["x.nhdr", "x.mhd"])
def test_a_file_of_values_that_does_not_exist_is_named(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name)
    (values,) = set(tmp_path.iterdir()) - {path}
    values.unlink()
    with pytest.raises(InputError, match=f"names '{values.name}' as the file with its values"):
        read_itk(path)
    values.write_bytes(VALUES.tobytes())  # the remedy
    np.testing.assert_array_equal(read_itk(path)[0], VALUES.T)


@pytest.mark.parametrize(
    "name, old, new",
    [
        ("x.nrrd", b"\nencoding: raw", b"\r\nencoding: raw\r"),
        ("x.nrrd", b"\nencoding", b"\nsite:=M\xfcnchen\nencoding"),
        ("x.nrrd", b"\nencoding", b"\n# \xc3\xbcber alles 3.x\nencoding"),
        ("x.mha", b"DimSize", b"Comment = M\xfcller 3.x\nDimSize"),
    ],
)
def test_text_of_others_is_accepted(tmp_path: Path, name: str, old: bytes, new: bytes) -> None:
    before = read_itk(written(tmp_path / name))
    values, geometry = read_itk(changed(tmp_path / name, old, new))
    np.testing.assert_array_equal(values, before[0])
    np.testing.assert_array_equal(geometry.affine, before[1].affine)
