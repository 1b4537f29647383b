"""Where in a scan is segmented: places of the user, a whole head, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import pytest
from scipy import ndimage

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.cases.demonstration import load_template
from medsegdiff.cases.job import segment
from medsegdiff.cases.run_record import whole_scan
from medsegdiff.core.errors import UsageError
from medsegdiff.core.types import Geometry

AFFINE = np.array([[-1.0, 0, 0, 90], [0, 1, 0, -60], [0, 0, 1, -20], [0, 0, 0, 1]])
MAPS = ("seg", "members", "anchor", "mean_anterior", "variance_posterior", "entropy")
BOX = (slice(60, 84), slice(40, 66), slice(10, 32))


def scan_file(folder: Path) -> Path:
    values = np.random.default_rng(0).normal(100, 20, (120, 110, 50)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, AFFINE), folder / "scan.nii.gz")
    return folder / "scan.nii.gz"


def corners(box: tuple[slice, ...]) -> str:
    """The box of voxels as ``--roi``."""
    ends = np.array([[part.start, part.stop - 1] for part in box], dtype=float)
    world = AFFINE[:3, :3] @ ends + AFFINE[:3, 3:]
    return ",".join(f"{v:g}" for v in (*world.min(axis=1), *world.max(axis=1)))


def run(image: Path, bundle: Bundle, output: Path, **options: Any) -> dict[str, str]:
    settings = {"members": 4, "steps": 1, "device": "cpu", "save_members": True, **options}
    return segment(image, bundle, output, **settings)


def maps_of(output: Path) -> dict[str, Any]:
    folder = output / "scan"
    return {name: nib.load(folder / f"scan_{name}.nii.gz").get_fdata() for name in MAPS}


def record_of(output: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((output / "scan" / "scan_run.json").read_text())
    return content


def test_a_box_is_segmented_as_if_it_were_a_file_of_its_own(bundle: Bundle, tmp_path: Path) -> None:
    image = scan_file(tmp_path)
    assert run(image, bundle, tmp_path / "whole", roi=corners(BOX)) == {}
    (tmp_path / "crop").mkdir()
    crop = tmp_path / "crop" / "scan.nii.gz"
    nib.save(nib.load(image).slicer[BOX], crop)
    assert run(crop, bundle, tmp_path / "part") == {}
    whole, part = maps_of(tmp_path / "whole"), maps_of(tmp_path / "part")
    for name in MAPS:
        np.testing.assert_array_equal(whole[name][BOX], part[name], err_msg=name)
        outside = whole[name].copy()
        outside[BOX] = 0
        assert not outside.any(), name
    a, b = record_of(tmp_path / "whole"), record_of(tmp_path / "part")
    assert a["volume_ml"] == b["volume_ml"] and b["location"] is None
    assert a["location"]["by"] == "user" and a["location"]["score"] is None
    (volumes,) = a["location"]["volume_ml"].values()
    assert volumes == pytest.approx({n: one["ensemble"] for n, one in a["volume_ml"].items()})


def test_points_may_lie_near_each_other(bundle: Bundle, tmp_path: Path) -> None:
    image = scan_file(tmp_path)
    at = "20,-10,5; 30,-10,5"
    assert run(image, bundle, tmp_path / "out", at=at, place_mm=[24, 24, 24]) == {}
    location = record_of(tmp_path / "out")["location"]
    assert set(location["box_mm"]) == {"point-1", "point-2"}
    assert location["box_mm"]["point-1"] == [[8.0, -22.0, -7.0], [32.0, 2.0, 17.0]]
    assert maps_of(tmp_path / "out")["seg"].any()


def test_another_place_is_another_result(bundle: Bundle, tmp_path: Path) -> None:
    image = scan_file(tmp_path)
    assert run(image, bundle, tmp_path / "out", at="20,-10,5") == {}
    failed = run(image, bundle, tmp_path / "out", at="21,-10,5")
    assert "was made with another places" in failed["scan"]
    assert run(image, bundle, tmp_path / "out", at="20,-10,5") == {}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"locate": "off"}, "measures 110 mm along one axis.*--anyway"),
        ({}, "does not look like the template icbm152.*--at X,Y,Z"),
        ({"at": "500,0,0"}, "lies outside the scan.*--at X,Y,Z"),
        ({"placing#coarsest_mm": 0.9}, "voxels of 1.0 mm.*needs 0.9 or less.*--anyway"),
    ],
)
def test_what_makes_no_sense_is_refused(
    options: dict[str, Any], told: str, bundle: Bundle, tmp_path: Path
) -> None:
    failed = run(scan_file(tmp_path), bundle, tmp_path / "out", **options)
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(failed["scan"])
    assert not (tmp_path / "out" / "scan").exists()


def test_anyway_segments_all_of_it_with_a_warning(bundle: Bundle, tmp_path: Path) -> None:
    assert run(scan_file(tmp_path), bundle, tmp_path / "out", anyway=True) == {}
    record = record_of(tmp_path / "out")
    assert record["location"] is None
    assert any("crop it around the structure" in warning for warning in record["warnings"])


def test_a_place_that_cannot_be_understood_is_wrong_usage(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be understood"):
        run(scan_file(tmp_path), bundle, tmp_path / "out", at="here")


def test_both_hippocampi_of_a_whole_head(tmp_path: Path) -> None:
    head = tmp_path / "scan.nii.gz"
    nib.save(load_template().as_reoriented(np.array([[2, -1], [0, 1], [1, -1]])), head)
    assert segment(head, "hippocampus_mr", tmp_path / "out", members=2) == {}
    seg = nib.load(tmp_path / "out" / "scan" / "scan_seg.nii.gz")
    pieces, count = ndimage.label(np.asarray(seg.dataobj) > 0, structure=np.ones((3, 3, 3)))
    assert count == 2
    for k in (1, 2):
        x, y, z = seg.affine[:3, :3] @ np.argwhere(pieces == k).mean(axis=0) + seg.affine[:3, 3]
        assert np.linalg.norm(np.array([abs(x), y, z]) - [26, -22, -14]) < 5.0
        assert 2000 < (pieces == k).sum() < 6000
    location = record_of(tmp_path / "out")["location"]
    assert location["by"] == "template" and set(location["box_mm"]) == {"left", "right"}
    page = (tmp_path / "out" / "report.html").read_text()
    for side, volumes in location["volume_ml"].items():
        row = page[page.index(f"scan: {side}") :].partition("</tr>")[0]
        for name, volume in volumes.items():
            low, high = location["volume_interval_90_ml"][side][name]
            assert f"{volume:.2f}<small>{low:.2f} – {high:.2f}" in row


def test_left_and_right_are_segments_of_their_own(bundle: Bundle, tmp_path: Path) -> None:
    points = {"left": [30.0, -10.0, 5.0], "right": [-12.0, -10.0, 5.0]}
    control = [{"label": name, "position": place} for name, place in points.items()]
    markups = {"markups": [{"coordinateSystem": "RAS", "controlPoints": control}]}
    (tmp_path / "p.mrk.json").write_text(json.dumps(markups))
    at, out = str(tmp_path / "p.mrk.json"), tmp_path / "out"
    options = {"at": at, "place_mm": [24, 24, 24], "formats": ["nifti", "nrrd"]}
    assert run(scan_file(tmp_path), bundle, out, **options) == {}
    assert "p.mrk.json" not in (out / "scan" / "scan_run.json").read_text()  # may name a patient
    (tmp_path / "p.mrk.json").write_text(json.dumps(markups).replace("30.0", "31.0"))
    assert "another places" in run(scan_file(tmp_path), bundle, out, **options)["scan"]
    seg = maps_of(out)["seg"]
    values, header = nrrd.read(str(out / "scan" / "scan_seg.seg.nrrd"))
    names = {header[f"Segment{i}_Name"]: int(header[f"Segment{i}_LabelValue"]) for i in range(4)}
    assert set(names) == {f"{side} {part}" for side in points for part in ("anterior", "posterior")}
    marked = seg > 0
    assert (values > 0).sum() == marked.sum() and marked.any()
    for side, sign in (("left", 1), ("right", -1)):
        for part, value in (("anterior", 1), ("posterior", 2)):
            x = 90 - np.argwhere(seg == value)[:, 0]  # in the world, of which left is above 9 mm
            assert (values == names[f"{side} {part}"]).sum() == (sign * (x - 9) > 0).sum()


PREPARATION = {
    "_target_": "Compose",
    "transforms": [
        {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
        {"_target_": "Spacingd", "keys": "image", "pixdim": [1.3, 1.3, -1]},
    ],
}
PLACING = {
    "_target_": "medsegdiff.cases.Placing",
    **{key: f"@{key}" for key in ("place_mm", "locate", "at", "roi", "anyway")},
}


def test_a_place_is_prepared_and_comes_back_to_the_scan_but_a_crop_is_left_as_it_is(
    bundle: Bundle, tmp_path: Path
) -> None:
    image, prepared = scan_file(tmp_path), {"placing": {**PLACING, "preparation": PREPARATION}}
    assert run(image, bundle, tmp_path / "plain", roi=corners(BOX)) == {}
    assert run(image, bundle, tmp_path / "placed", roi=corners(BOX), **prepared) == {}
    plain, placed = (maps_of(tmp_path / name)["mean_anterior"] for name in ("plain", "placed"))
    assert placed.shape == plain.shape and not np.array_equal(placed, plain)
    assert (placed[BOX] > 0).mean() > 0.95  # comes back to all of the box, and no further
    placed[BOX] = 0
    assert not placed.any()
    (tmp_path / "crop").mkdir()
    nib.save(nib.load(image).slicer[BOX], tmp_path / "crop" / "scan.nii.gz")
    assert run(tmp_path / "crop" / "scan.nii.gz", bundle, tmp_path / "left", **prepared) == {}
    np.testing.assert_array_equal(maps_of(tmp_path / "left")["mean_anterior"], plain[BOX])


def test_each_place_has_the_interval_of_its_own_volume(bundle: Bundle, tmp_path: Path) -> None:
    options = {"at": "26,-20,5; 60,20,5", "place_mm": [24, 24, 24]}
    placing = {**PLACING, "clicked_mm": 8}
    assert run(scan_file(tmp_path), bundle, tmp_path / "out", placing=placing, **options) == {}
    record, members = record_of(tmp_path / "out"), maps_of(tmp_path / "out")["members"]
    for name, box in record["location"]["box_mm"].items():
        index = np.linalg.solve(AFFINE[:3, :3], np.array(box).T - AFFINE[:3, 3:]).T
        low, high = index.min(axis=0).astype(int), index.max(axis=0).astype(int) + 1
        part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        volumes = (members[part] == 1).sum(axis=(0, 1, 2)) / 1000.0  # voxels of 1 mm
        found = record["location"]["volume_interval_90_ml"][name]["anterior"]
        np.testing.assert_allclose(found, np.quantile(volumes, [0.05, 0.95]), atol=1e-9)
    assert record["clicked_mm"] == 8


def test_the_extent_of_a_plane_stored_as_one_slice() -> None:
    geometry = Geometry((40, 30, 1), np.diag([2.0, 2.0, 5.0, 1.0]))
    assert whole_scan((40, 30), geometry, [[1, 96], [1, 96], [1, 1000]]) == ""
    assert "parts of 1 to 20 mm" in whole_scan((40, 30), geometry, [[1, 20], [1, 20], [1, 1000]])
