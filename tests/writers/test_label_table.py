"""Names and colours survive: in the table beside a label map, and in the header of it."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medsegdiff.core.types import Geometry
from medsegdiff.writers.label_table import caret_extension, write_colour_table
from medsegdiff.writers.nifti import write_nifti
from medsegdiff.writers.segments import Code, segments_of

SEGMENTS = segments_of({0: "background", 1: "Läsion <1>", 2: "GD-enhancing tumour"})


def test_the_colour_table_is_slicers(tmp_path: Path) -> None:
    path = tmp_path / "a_seg.ctbl"
    write_colour_table(path, SEGMENTS)
    lines = path.read_text("utf-8").splitlines()
    assert lines[0].startswith("# Color table file")
    rows = [line.split() for line in lines if not line.startswith("#")]
    assert [row[:2] for row in rows] == [
        ["0", "Background"],
        ["1", "Läsion_<1>"],
        ["2", "GD-enhancing_tumour"],
    ]
    numbers = np.array([row[2:] for row in rows], int)
    assert numbers.shape == (3, 4) and numbers[:, 3].tolist() == [0, 255, 255]
    for row, segment in zip(numbers[1:], SEGMENTS, strict=True):
        np.testing.assert_allclose(row[:3] / 255, segment.colour, atol=1e-6)
    assert any("(label-2, 99MEDSEGDIFF, GD-enhancing tumour)" in line for line in lines)


@pytest.mark.parametrize("members", [(), (3,)])
def test_the_header_extension_names_each_value(tmp_path: Path, members: tuple[int, ...]) -> None:
    geometry = Geometry((5, 6, 4), np.diag([0.7, 1.1, 3.0, 1.0]))
    label_map = np.random.default_rng(1).integers(0, 3, (5, 6, 4, *members))
    named, plain = tmp_path / "named.nii.gz", tmp_path / "plain.nii.gz"
    write_nifti(named, label_map, geometry, dtype="uint8", segments=SEGMENTS)
    write_nifti(plain, label_map, geometry, dtype="uint8")
    image = nib.load(named)
    np.testing.assert_array_equal(np.asarray(image.dataobj), label_map)
    (extension,) = image.header.extensions
    assert extension.get_code() == 30
    root = ElementTree.fromstring(extension.content.rstrip(b"\0"))
    tables = root.findall("VolumeInformation/LabelTable")
    assert len(tables) == np.prod(members, dtype=int)
    for table in tables:
        assert [(e.get("Key"), e.text) for e in table] == [
            ("0", "background"),
            ("1", "Läsion <1>"),
            ("2", "GD-enhancing tumour"),
        ]
        assert float(table[1].get("Red", "")) == pytest.approx(SEGMENTS[0].colour[0], abs=1e-5)
    for path in (named, plain):
        read = sitk.ReadImage(str(path))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(read).T, label_map)
    ours, other = (sitk.ReadImage(str(path)) for path in (named, plain))
    assert ours.GetOrigin() == other.GetOrigin() and ours.GetDirection() == other.GetDirection()
    saved = tmp_path / "again.nii"
    nib.save(image, saved)
    assert len(nib.load(saved).header.extensions) == 1


def test_the_whole_colour_table(tmp_path: Path) -> None:
    codes = {
        2: {
            "category": ("49755003", "SCT", "Abnormal"),
            "type": ("27925004", "SCT", "Nodule"),
            "modifier": ("255549009", "SCT", "Anterior"),
            "region": ("39607008", "SCT", "Lung"),
        }
    }
    segments = segments_of({0: "background", 1: " Two  words", 2: "b"}, codes)
    write_colour_table(tmp_path / "a.ctbl", segments)
    assert (tmp_path / "a.ctbl").read_text("utf-8") == (
        "# Color table file\n"
        "# 3 values\n"
        "# 1: (91723000, SCT, Anatomical Structure) (label-1, 99MEDSEGDIFF,  Two  words)\n"
        "# 2: (49755003, SCT, Abnormal) (27925004, SCT, Nodule) (255549009, SCT, Anterior) "
        "(39607008, SCT, Lung)\n"
        "0 Background 0 0 0 0\n"
        "1 Two_words 86 180 233 255\n"
        "2 b 230 159 0 255\n"
    )


def test_the_whole_header_extension() -> None:
    content = caret_extension(segments_of({0: "background", 2: "b"}), volumes=2)
    assert content.startswith(b"<?xml version='1.0' encoding='utf-8'?>")
    root = ElementTree.fromstring(content)
    assert root.tag == "CaretExtension"
    assert [(one.tag, one.attrib) for one in root] == [
        ("VolumeInformation", {"Index": "0"}),
        ("VolumeInformation", {"Index": "1"}),
    ]
    for volume in root:
        table, kind = volume
        assert (table.tag, kind.tag, kind.text) == ("LabelTable", "VolumeType", "Label")
        background, label = ({**one.attrib, "": one.text} for one in table)
        assert [one.tag for one in table] == ["Label", "Label"]
        black = {"Red": "0", "Green": "0", "Blue": "0", "Alpha": "0"}
        assert background == black | {"Key": "0", "": "background"}
        orange = {"Red": "0.901961", "Green": "0.623529", "Blue": "0", "Alpha": "1"}
        assert label == orange | {"Key": "2", "": "b"}


def test_segments_are_sorted_and_their_colours_begin_again() -> None:
    labels = {9: "y" * 70, 0: "background", 8: "h", 1: "a"}
    codes = {1: {"category": ("1", "S", "c"), "type": ("2", "S", "t"), "region": ("3", "S", "r")}}
    first, second, third = segments_of(labels, codes)
    assert [one.value for one in (first, second, third)] == [1, 8, 9]
    assert first.colour == second.colour != third.colour and first.rgb == (86, 180, 233)
    assert (first.category, first.type) == (Code("1", "S", "c"), Code("2", "S", "t"))
    assert (first.modifier, first.region) == (None, Code("3", "S", "r"))
    assert third.category == Code("91723000", "SCT", "Anatomical Structure")
    assert third.type == Code("label-9", "99MEDSEGDIFF", "y" * 64) and third.name == "y" * 70
