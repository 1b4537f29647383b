"""Images whose header announces what no scanner makes: refused before room is made for it."""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medsegdiff.core import limits
from medsegdiff.core.errors import InputError
from medsegdiff.data.images import read_geometry, read_image
from medsegdiff.data.readers import apart
from tests.conftest import MakeNifti
from tests.data.dicom.files import as_ct, compress, edit_all, made


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may inflate to 1 MiB without a question."""
    monkeypatch.setattr(limits, "FREE_GIB", 2.0**-10)


def refused(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    return caught.value


def followed(error: InputError, monkeypatch: pytest.MonkeyPatch) -> None:
    """Does what the error's remedy says, in its text, since a header's error holds another."""
    found = re.search(r"set (MEDSEGDIFF_\w+) to a greater number", str(error))
    assert found
    monkeypatch.setenv(found[1], "1e30")


def zeros(path: Path, megabytes: int) -> Path:
    image = nib.Nifti1Image(np.zeros((2**10, 2**10, megabytes), np.uint8), np.eye(4))
    path.write_bytes(gzip.compress(image.to_bytes()))
    return path


def greatest_memory_of_worker() -> int:
    """Bytes that the process which read last has had."""
    status = Path(f"/proc/{apart._idle[-1]._process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    assert found
    return 1024 * int(found[1])


@pytest.mark.usefixtures("strict")
class TestInflation:
    def test_nifti(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = zeros(tmp_path / "a.nii.gz", 8)
        error = refused(path)
        assert "when it is unpacked" in error.rule
        followed(error, monkeypatch)
        assert read_image(path)[0].shape == (2**10, 2**10, 8)

    def test_nifti_with_more_behind_its_values(self, tmp_path: Path, make_nifti: MakeNifti) -> None:
        path = make_nifti("a.nii.gz")
        with path.open("ab") as stream:
            stream.write(gzip.compress(bytes(2**23)))
        assert "when it is unpacked" in refused(path).rule

    def test_nifti_whose_values_begin_far_behind(self, tmp_path: Path) -> None:
        content = bytearray(nib.Nifti1Image(np.ones((3, 3, 3)), np.eye(4)).to_bytes())
        content[108:112] = np.float32(2**30).tobytes()
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content))
        assert "begin at byte 1.074e+09" in refused(tmp_path / "a.nii.gz").rule
        with pytest.raises(InputError):
            read_geometry(tmp_path / "a.nii.gz")

    def test_nrrd(self, tmp_path: Path) -> None:
        head = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 1024 1024 8\nencoding: gzip\n\n"
        path = tmp_path / "a.nrrd"
        path.write_bytes(head.encode() + gzip.compress(bytes(2**23)))
        assert "when it is unpacked" in refused(path).rule

    @pytest.mark.parametrize(("ending", "wbits"), [(".nrrd", 31), (".mha", 15)])
    def test_what_follows_the_values_is_not_unpacked(
        self, ending: str, wbits: int, tmp_path: Path
    ) -> None:
        path, packer = tmp_path / f"a{ending}", zlib.compressobj(1, wbits=wbits)
        values = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
        sitk.WriteImage(sitk.GetImageFromArray(values), str(path))
        np.testing.assert_array_equal(read_image(path)[0], values.T)
        before = greatest_memory_of_worker()
        zeros = bytes(2**24)
        stream = packer.compress(values.tobytes())
        stream += b"".join(packer.compress(zeros) for _ in range(8)) + packer.flush()
        head = path.read_bytes().removesuffix(values.tobytes())
        sizes = b"CompressedData = True\nCompressedDataSize = %d" % len(stream)
        head = head.replace(b"encoding: raw", b"encoding: gzip")
        path.write_bytes(head.replace(b"CompressedData = False", sizes) + stream)
        np.testing.assert_array_equal(read_image(path)[0], values.T)
        assert greatest_memory_of_worker() < before + 2**25  # it would be 2**27

    def test_deflated_dicom(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (file,) = list(made(tmp_path / "a").iterdir())[:1]
        header = pydicom.dcmread(file)
        header.Rows, header.Columns = 2048, 2048
        header.PixelData = bytes(2**23)
        header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        folder = tmp_path / "b"
        folder.mkdir()
        header.save_as(folder / "1.dcm", enforce_file_format=True)
        error = refused(folder)
        assert str(folder) in error.subject
        monkeypatch.setenv("MEDSEGDIFF_MAX_INFLATION", "1e9")
        assert read_image(folder)[0].shape[:2] == (2048, 2048)


class TestSize:
    @pytest.mark.parametrize("frames", [10**9, 10**6])
    def test_frames_that_a_file_cannot_hold(self, frames: int, tmp_path: Path) -> None:
        folder = edit_all(made(tmp_path / "a"), lambda h: setattr(h, "NumberOfFrames", frames))
        assert f"{frames} frames, more than the file can hold" in refused(folder).rule

    @pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha", ".nrrd", ".tif", ".png", ".dcm"])
    def test_values_beyond_the_limit(
        self, ending: str, tmp_path: Path, make_nifti: MakeNifti, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if ending == ".dcm":
            path = compress(as_ct(made(tmp_path / "a")), "JPEG2000Lossless")
        elif ending in (".mha", ".nrrd"):
            path = tmp_path / f"a{ending}"
            sitk.WriteImage(sitk.GetImageFromArray(np.ones((9, 9, 9), np.float32)), str(path))
        elif ending in (".tif", ".png"):
            path = tmp_path / f"a{ending}"
            Image.fromarray(np.ones((20, 30), np.uint8)).save(path)
        else:
            path = make_nifti(f"a{ending}")
        monkeypatch.setenv("MEDSEGDIFF_MAX_GIB", "1e-7")
        error = refused(path)
        assert "would take" in error.rule
        followed(error, monkeypatch)
        read_image(path)

    def test_a_tiff_beyond_the_limit_of_pillow(self, tmp_path: Path) -> None:
        path, width = tmp_path / "a.tif", struct.pack("<HHI", 256, 4, 1)
        Image.new("L", (20, 30)).save(path)
        content = path.read_bytes()
        assert content.count(width + struct.pack("<I", 20)) == 1
        wide = width + struct.pack("<I", 10**7)
        path.write_bytes(content.replace(width + struct.pack("<I", 20), wide))
        assert "exceeds limit of 178956970 pixels" in refused(path).rule

    def test_a_png_beyond_the_limit_of_pillow(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        Image.new("L", (20, 30)).save(path)
        content = path.read_bytes()
        chunk = b"IHDR" + struct.pack(">I", 10**7) + content[20:29]
        checksum = struct.pack(">I", zlib.crc32(chunk))
        path.write_bytes(content[:12] + chunk + checksum + content[33:])
        assert "exceeds limit of 178956970 pixels" in refused(path).rule

    def test_an_extent_that_nothing_has(
        self, make_nifti: MakeNifti, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = make_nifti("a.nii.gz", shape=(8, 9, 7), affine=np.diag([1.0, 1e6, 1, 1]))
        error = refused(path)
        assert "voxels of 1 x 1e+06 x 1 mm make an image of 9e+06 mm" in error.rule
        followed(error, monkeypatch)
        read_image(path)
