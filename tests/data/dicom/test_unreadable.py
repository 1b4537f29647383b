"""A series beside files that cannot be read does not pass as whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.data.dicom import Series, find_series, read_series
from tests.data.dicom.files import compress, made, write_dicomdir


def empty(file: Path) -> None:
    file.write_bytes(b"")


def cut(file: Path, length: int) -> None:
    file.write_bytes(file.read_bytes()[:length])


def lfs(file: Path) -> None:
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def linked(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.parent / "nowhere")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (empty, "empty"),
    "cut in the meta header": (lambda f: cut(f, 140), "damaged"),
    "cut before the series": (lambda f: cut(f, 400), "damaged"),
    "cut before the size": (lambda f: cut(f, f.read_bytes().find(b"\x28\0\x10\0")), "damaged"),
    "zeros": (lambda f: f.write_bytes(bytes(1000)), "damaged"),
    "Git LFS": (lfs, "a Git LFS pointer"),
    "broken link": (linked, "a link to nowhere"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A series of nine slices."""
    return made(tmp_path / "series")


def refused(series: Series) -> str:
    with pytest.raises(InputError) as caught:
        read_series(series)
    return str(caught.value)


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("ending", [".dcm", ""])
def test_a_damaged_end_is_told_and_its_remedy_works(
    kind: str, ending: str, folder: Path, tmp_path: Path
) -> None:
    for file in list(folder.iterdir()):
        file.rename(file.with_suffix(ending))
    last = sorted(folder.iterdir())[-1]
    change, why = DAMAGE[kind]
    change(last)
    (series,) = find_series(folder)
    told = refused(series)
    assert f"1 of the 9 files in its folder cannot be read (number 9 is {why}" in told
    assert "Fetch them again, or move them elsewhere" in told
    last.rename(tmp_path / "elsewhere")
    assert read_series(find_series(folder)[0])[0].shape[2] == 8


@pytest.mark.parametrize("syntax", ["JPEGLSLossless", "JPEG2000Lossless", "RLELossless"])
def test_compressed_pixels_that_end_too_early(syntax: str, folder: Path) -> None:
    compress(folder, syntax)
    last = sorted(folder.iterdir())[-1]
    cut(last, last.stat().st_size - 40)
    (series,) = find_series(folder)
    assert "file 9 of 9 (by name) is truncated. Fetch it again" in refused(series)


def test_other_files_are_nothing_of_it(folder: Path) -> None:
    for name in ("notes.txt", "README", "Thumbs.db", ".hidden", "._0003.dcm"):
        (folder / name).write_text("no image")
    assert read_series(find_series(folder)[0])[0].shape[2] == 9


def test_beside_several_series_each_gets_a_note(folder: Path) -> None:
    for file in made(folder.parent / "other", 2).iterdir():
        shutil.move(file, folder / f"b{file.name}")
    (folder / "b0008.dcm").write_bytes(b"")
    for series in find_series(folder):
        _, geometry = read_series(series)
        (note,) = geometry.notes
        assert "1 of the 18 files in its folder cannot be read" in note and "may belong" in note


def test_a_series_elsewhere_is_whole(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder.parent / "other").mkdir()
    (folder.parent / "other" / "lost.dcm").write_bytes(b"")
    (series,) = find_series(folder.parent)
    assert read_series(series)[1].notes == ()
    assert "1 file of DICOM cannot be read" in caplog.text


def test_alone_it_is_named(tmp_path: Path) -> None:
    lfs(tmp_path / "a.dcm")
    with pytest.raises(InputError, match="is not a DICOM image: it is a Git LFS pointer"):
        find_series(tmp_path / "a.dcm")


def test_what_a_dicomdir_lists_and_is_not_there_is_in_the_record(folder: Path) -> None:
    directory = write_dicomdir(folder.parent, sorted(folder.iterdir()))
    (folder / "0008.dcm").unlink()
    (note,) = read_series(find_series(directory)[0])[1].notes
    assert note == "1 of 9 files that its DICOMDIR lists are not there"
