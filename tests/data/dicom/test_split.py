"""Several acquisitions in one series become several, or are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.data.dicom import case_id, find_series, read_series
from tests.data.dicom.files import (
    Change,
    add,
    compress,
    each,
    edit,
    edit_all,
    enhance,
    halve,
    made,
    move_along_normal,
    phantom_volume,
    plane_affine,
)


def field(tag: Any, value: Any) -> Change:
    return lambda header: setattr(header, tag, value)


def siemens_b(value: int) -> Change:
    def change(header: Any) -> None:
        block = header.private_block(0x0019, "SIEMENS MR HEADER", create=True)
        block.add_new(0x0C, "IS", value)

    return change


def at_time(start: float) -> Change:
    """Slices one after the other, as they are acquired."""
    return lambda h: setattr(h, "AcquisitionTime", f"{120000 + start + h.InstanceNumber:.1f}")


MIXED: dict[str, tuple[Change, Change, list[str]]] = {
    "echo times": (field("EchoTime", 3), field("EchoTime", 12.5), ["TE 3 ms", "TE 12.5 ms"]),
    "echo numbers": (field("EchoNumbers", 1), field("EchoNumbers", 2), ["echo 1", "echo 2"]),
    "magnitude and phase": (
        field("ImageType", ["ORIGINAL", "PRIMARY", "M"]),
        field("ImageType", ["ORIGINAL", "PRIMARY", "P"]),
        ["M", "P"],
    ),
    "Dixon": (
        field("ImageType", ["DERIVED", "PRIMARY", "DIXON", "WATER"]),
        field("ImageType", ["DERIVED", "PRIMARY", "DIXON", "FAT"]),
        ["FAT", "WATER"],
    ),
    "b-values": (field("DiffusionBValue", 0.0), field("DiffusionBValue", 800.0), ["b 0", "b 800"]),
    "Siemens' b-values": (siemens_b(0), siemens_b(50), ["b 0", "b 50"]),
    "directions": (
        field("DiffusionGradientOrientation", [0.0, 1.0, 0.0]),
        field("DiffusionGradientOrientation", [1.0, 0.0, 0.0]),
        ["direction 1", "direction 2"],
    ),
    "energies": (field("KVP", 80), field("KVP", 140), ["kVp 80", "kVp 140"]),
    "positions in time": (
        field("TemporalPositionIdentifier", 1),
        field("TemporalPositionIdentifier", 2),
        ["time 1", "time 2"],
    ),
    "acquisitions": (
        field("AcquisitionNumber", 4), field("AcquisitionNumber", 7),
        ["acquisition 4", "acquisition 7"],
    ),
    "trigger times": (
        field("TriggerTime", 0), field("TriggerTime", 350.5), ["trigger 0 ms", "trigger 350.5 ms"]
    ),
    "times": (at_time(0), at_time(30), ["time 1", "time 2"]),
}  # fmt: skip


def mixed(folder: Path, kind: str) -> Path:
    """Two volumes in one series; the second has half of the first's values."""
    first, second, _ = MIXED[kind]
    add(made(folder), each(second, halve))
    for file in sorted(folder.iterdir())[:9]:
        edit(file, first)
    return folder


@pytest.mark.parametrize("kind", MIXED)
def test_is_split(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = find_series(mixed(tmp_path / "series", kind))
    parts = MIXED[kind][2]
    assert [first.part, second.part] == parts
    assert str(second) == f"{tmp_path / 'series'}, series 1, {parts[1]}"
    found = [read_series(one)[0] for one in (first, second)]
    expected = [phantom_volume(), phantom_volume() // 2]
    for values, volume in zip(found, expected if kind != "Dixon" else expected[::-1], strict=True):
        np.testing.assert_array_equal(values, volume)
    assert f"holds several acquisitions: {parts[0]} (9 slices), {parts[1]} (9" in caplog.text


def test_case_ids_are_stable_and_salted(tmp_path: Path) -> None:
    mixed(tmp_path / "series", "echo times")
    one, two = find_series(tmp_path / "series")
    ids = [case_id(one, "salt"), case_id(two, "salt")]
    assert len({name.partition("_")[0] for name in ids}) == 2
    assert [name.partition("_")[2] for name in ids] == ["1_te-3-ms", "1_te-12-5-ms"]
    assert ids == [case_id(s, "salt") for s in find_series(tmp_path)]
    assert case_id(one, "other") != ids[0]


def test_two_stacks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = made(tmp_path / "a", affine=plane_affine("axial"))
    other = made(tmp_path / "b", affine=plane_affine("sagittal"))
    add(folder, lambda h: None, sorted(other.iterdir()))
    axial, sagittal = find_series(folder)
    assert [axial.part, sagittal.part] == ["axial", "sagittal"]
    for one, plane in ((axial, "axial"), (sagittal, "sagittal")):
        values, geometry = read_series(one)
        np.testing.assert_array_equal(values, phantom_volume())
        np.testing.assert_allclose(geometry.affine, plane_affine(plane), atol=1e-6)


def test_echoes_at_several_times(tmp_path: Path) -> None:
    folder = made(tmp_path / "a")
    files = sorted(folder.iterdir())
    for time in (1, 2):
        for echo in (3.0, 9.0):
            if (time, echo) == (1, 3.0):
                edit_all(folder, field("TemporalPositionIdentifier", 1))
                continue
            changes = field("TemporalPositionIdentifier", time), field("EchoTime", echo)
            add(folder, each(*changes), files)
    parts = [one.part for one in find_series(folder)]
    assert parts == [f"TE {echo} ms time {time}" for echo in (3, 9) for time in (1, 2)]


def test_echoes_of_an_enhanced_object(tmp_path: Path) -> None:
    series = find_series(enhance(made(tmp_path / "a"), echoes=[3.0, 6.5]))
    assert [one.part for one in series] == ["TE 3 ms", "TE 6.5 ms"]
    for n, one in enumerate(series, start=1):
        values, geometry = read_series(one)
        np.testing.assert_array_equal(values, phantom_volume() * 2.0 * n - 3)
        assert len(geometry.sources) == 1 and geometry.shape == (14, 12, 9)


def test_fields_that_differ_do_not_split_one_volume(tmp_path: Path) -> None:
    folder = edit_all(made(tmp_path / "a"), lambda h: setattr(h, "EchoTime", h.InstanceNumber))
    (series,) = find_series(folder)
    assert series.part == "" and len(series.files) == 9


def test_nothing_tells_them_apart(tmp_path: Path) -> None:
    folder = made(tmp_path / "a")
    add(folder, halve)
    (series,) = find_series(folder)
    with pytest.raises(InputError, match="neither echo, image type, b-value nor time tells"):
        read_series(series)


def test_a_second_scan_of_one_half_is_no_volume(tmp_path: Path) -> None:
    """Acquisition 2 goes on where 1 ends, and repeats a slice: neither is the whole."""
    folder = made(tmp_path / "a")
    edit_all(folder, lambda h: setattr(h, "AcquisitionNumber", 1 + (h.InstanceNumber > 4)))
    add(folder, field("AcquisitionNumber", 2), [folder / "0002.dcm"])
    (series,) = find_series(folder)
    with pytest.raises(InputError, match="two slices lie at one place"):
        read_series(series)


def test_slice_missing_in_one_echo(tmp_path: Path) -> None:
    folder = mixed(tmp_path / "series", "echo times")
    (folder / "0003.dcm").unlink()
    first, second = find_series(folder)
    with pytest.raises(InputError, match="series 1, TE 3 ms: slices are not evenly spaced"):
        read_series(first)
    np.testing.assert_array_equal(read_series(second)[0], phantom_volume() // 2)


def test_damaged_field_is_no_telling(tmp_path: Path) -> None:
    folder = mixed(tmp_path / "series", "echo times")
    for file in folder.iterdir():
        header = pydicom.dcmread(file)
        del header.EchoTime
        header.save_as(file)
    assert len(find_series(folder)) == 1


DIRECTIONS = ((0.19, -0.2, 0.96), (0.16, -0.82, 0.55), (-0.76, -0.56, 0.33))


def ge(b: int, direction: tuple[float, ...]) -> Change:
    """GE's own fields: a billion is added to the b-value, and the direction is in three fields."""

    def change(header: Any) -> None:
        block = header.private_block(0x0019, "GEMS_ACQU_01", create=True)
        for element, value in zip((0xBB, 0xBC, 0xBD), direction, strict=True):
            block.add_new(element, "DS", f"{value:.6f}")
        block = header.private_block(0x0043, "GEMS_PARM_01", create=True)
        block.add_new(0x39, "IS", [1_000_000_000 + b, 8, 0, 0])

    return change


def toshiba(b: int, direction: tuple[float, ...]) -> Change:
    """Toshiba leaves b-value and direction out where the b-value is 0."""

    def change(header: Any) -> None:
        if b:
            header.DiffusionBValue, header.DiffusionGradientOrientation = float(b), list(direction)

    return change


def siemens(b: int, direction: tuple[float, ...]) -> Change:
    def change(header: Any) -> None:
        siemens_b(b)(header)
        if b:
            block = header.private_block(0x0019, "SIEMENS MR HEADER", create=True)
            block.add_new(0x0E, "FD", list(direction))

    return change


@pytest.mark.parametrize("vendor", [ge, toshiba, siemens])
@pytest.mark.parametrize("implicit", [False, True])
def test_diffusion_of_every_vendor(vendor: Any, implicit: bool, tmp_path: Path) -> None:
    """In implicit files, the vendors' fields are bytes of an unknown kind."""
    folder = made(tmp_path / "a")
    files = sorted(folder.iterdir())
    for direction in DIRECTIONS:
        add(folder, each(vendor(700, direction), halve), files)
    for file in files:
        edit(file, vendor(0, (0.0, 0.0, 0.0)))
    if implicit:
        compress(folder, "ImplicitVRLittleEndian")
    found = find_series(folder)
    parts = [f"b 700 direction {n}" for n in (1, 2, 3)]
    assert [series.part for series in found] == ["b 0", *parts]
    np.testing.assert_array_equal(read_series(found[0])[0], phantom_volume())
    for series in found[1:]:
        np.testing.assert_array_equal(read_series(series)[0], phantom_volume() // 2)


def test_a_mean_over_the_directions_beside_them(tmp_path: Path) -> None:
    folder = made(tmp_path / "a")
    files = sorted(folder.iterdir())
    for direction in DIRECTIONS[:2]:
        add(folder, each(toshiba(700, direction), halve), files)
    for file in files:
        edit(file, field("DiffusionBValue", 700.0))
    found = find_series(folder)
    assert [series.part for series in found] == ["no direction", "direction 1", "direction 2"]
    np.testing.assert_array_equal(read_series(found[0])[0], phantom_volume())


@pytest.mark.parametrize("shift", [15.0, 13.5])
def test_acquisitions_that_overlap(shift: float, tmp_path: Path) -> None:
    """The second begins before the first ends, at the same places or between them."""
    folder = edit_all(made(tmp_path / "a"), field("AcquisitionNumber", 1))
    further = each(field("AcquisitionNumber", 2), halve, lambda h: move_along_normal(h, shift))
    add(folder, further)
    first, second = find_series(folder)
    assert [first.part, second.part] == ["acquisition 1", "acquisition 2"]
    one, two = read_series(first), read_series(second)
    np.testing.assert_array_equal(one[0], phantom_volume())
    np.testing.assert_array_equal(two[0], phantom_volume() // 2)
    moved = np.linalg.norm((two[1].affine - one[1].affine)[:3, 3])
    assert moved == pytest.approx(shift, abs=1e-5)


@pytest.mark.parametrize("shift", [27.0, 0.0])
def test_frames_of_reference_are_no_volume_together(shift: float, tmp_path: Path) -> None:
    """Even if the one goes on where the other ends."""
    folder = made(tmp_path / "a")
    change = field("FrameOfReferenceUID", "1.2.3")
    add(folder, each(change, halve, lambda h: move_along_normal(h, shift)))
    found = find_series(folder)
    assert [one.part for one in found] == ["frame of reference 1", "frame of reference 2"]
    for one in found:
        assert read_series(one)[0].shape == (14, 12, 9)


def test_a_slice_of_another_frame_of_reference_is_not_left_out(tmp_path: Path) -> None:
    folder = made(tmp_path / "a")
    edit(folder / "0008.dcm", field("FrameOfReferenceUID", "1.2.3"))
    assert sorted(len(one.files) for one in find_series(folder)) == [1, 8]


def test_identifiers_rewritten_one_by_one_do_not_split(tmp_path: Path) -> None:
    folder = edit_all(
        made(tmp_path / "a"),
        lambda h: setattr(h, "FrameOfReferenceUID", f"1.2.{h.InstanceNumber}"),
    )
    (series,) = find_series(folder)
    np.testing.assert_array_equal(read_series(series)[0], phantom_volume())
