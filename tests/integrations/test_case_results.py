"""What a real run leaves is found, and its record becomes rows of a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from MedSegDiffLib.case_results import DISPLAY_RANGES, CaseResults, read_results, rows_of

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.cases.job import segment

RECORD: dict[str, Any] = {
    "volume_ml": {
        "head": {
            **{"ensemble": 1624.5, "mean_of_members": 1600.0, "interval_90": [1500.0, 1700.4]},
            "members": [1500.0, 1700.0],
        },
        "nodule": {
            **{"ensemble": 0.06543, "mean_of_members": 0.06, "interval_90": [0.0, 0.0712]},
            "members": [0.0, 0.12],
        },
    },
    "review": {
        "expected_dice": {"head": {"dice": 0.8812, "interval": [0.8, 0.93]}},
        "level": 0.9,
        "score": 0.8,
    },
    "unlike_training": {"p_value": 0.01234, "reasons": ["volume of head is high", "the spacing"]},
    "present": {"head": 1.0, "nodule": 0.625},
    "warnings": ["the image measures 300 mm along one axis"],
}


@pytest.fixture(scope="module")
def folder(bundle: Bundle, cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a case that was segmented."""
    output = tmp_path_factory.mktemp("segmented")
    image = sorted((cohort.parent / "imagesTr").glob("*.nii.gz"))[0]
    settings: dict[str, Any] = {"members": 2, "steps": 1, "device": "cpu"}
    assert segment([image], bundle, output, formats=["nifti", "nrrd"], **settings) == {}
    return output / image.name.removesuffix(".nii.gz")


@pytest.fixture
def results(folder: Path) -> CaseResults:
    return read_results(folder)


def test_files_of_a_real_run_are_found(results: CaseResults, bundle: Bundle) -> None:
    classes = [name.lower() for value, name in bundle.labels.items() if value]
    assert results.segmentation.name.endswith("_seg.seg.nrrd")
    found = [(one.kind, one.of_class) for one in results.maps]
    assert found == [(kind, name) for kind in ("mean", "variance") for name in classes]


def test_maps_are_shown_in_the_range_that_their_header_names(results: CaseResults) -> None:
    for one in results.maps:
        header = nib.load(one.path).header
        assert (header["cal_min"], header["cal_max"]) == DISPLAY_RANGES[one.kind]


def test_rows_of_a_real_record(results: CaseResults) -> None:
    rows = rows_of(results.record)
    assert rows[0] == ("review score", "", "unknown: the bundle has no calibration that tells it")
    for name, volume in results.record["volume_ml"].items():
        (cell,) = (value for what, of, value in rows if (what, of) == ("volume", name))
        assert float(cell.split()[0]) == pytest.approx(volume["ensemble"], rel=5e-3)
        (cell,) = (value for what, of, value in rows if (what, of) == ("present", name))
        assert cell.endswith(" %")
    warnings = [value for what, _, value in rows if what == "warning"]
    assert warnings == results.record["warnings"]


def test_rows_of_a_calibrated_bundle() -> None:
    assert rows_of(RECORD) == [
        ("review score", "", "0.80"),
        ("like the known cases", "", "p = 0.012; volume of head is high; the spacing"),
        ("warning", "", "the image measures 300 mm along one axis"),
        ("volume", "head", "1624 ml (90 %: 1500 to 1700)"),
        ("expected Dice", "head", "0.88 (90 %: 0.80 to 0.93)"),
        ("present", "head", "100 %"),
        ("volume", "nodule", "0.0654 ml (90 %: 0 to 0.0712)"),
        ("present", "nodule", "62 %"),
    ]


@pytest.mark.parametrize("ending", ["_run.json", "_seg.seg.nrrd", "_variance_posterior.nii.gz"])
def test_a_missing_file_is_named(folder: Path, tmp_path: Path, ending: str) -> None:
    copied = tmp_path / folder.name
    copied.mkdir()
    for path in folder.iterdir():
        if not path.name.endswith(ending):
            (copied / path.name).symlink_to(path)
    with pytest.raises(FileNotFoundError, match=ending):
        read_results(copied)


def test_the_record_has_the_keys_that_the_table_reads(folder: Path) -> None:
    record = json.loads((folder / f"{folder.name}_run.json").read_text("utf-8"))
    assert set(RECORD) <= set(record)
    volume = next(iter(record["volume_ml"].values()))
    assert set(volume) == set(RECORD["volume_ml"]["head"])
    assert np.isfinite(volume["ensemble"])
