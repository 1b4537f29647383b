"""From masks of a tiny bundle to its calibration, and back to masks with a guarantee."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from medsegdiff.bundle.bundle import CALIBRATION, Bundle
from medsegdiff.calibration import calibrate_bundle
from medsegdiff.calibration.application import read_bundle_calibration
from medsegdiff.calibration.calibrate_bundle import calibrate, fitted_triage, summary_lines
from medsegdiff.calibration.conformal import THRESHOLDS
from medsegdiff.calibration.scaling import Scaling
from medsegdiff.calibration.voxels import near_structure, read_case_voxels
from medsegdiff.cases.job import segment
from medsegdiff.cli.main import app
from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.data.manifest import load_manifest
from medsegdiff.evaluation.folder import evaluate
from medsegdiff.metrics.overlap import dice

RUNNER = CliRunner()
SMALL: dict[str, Any] = {"members": 3, "steps": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def images(cohort: Path) -> list[Path]:
    return sorted((cohort.parent / "imagesTr").glob("*.nii.gz"))


@pytest.fixture(scope="module")
def uncalibrated(
    bundle: Bundle, images: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """All cases of the cohort, segmented without calibration."""
    output = tmp_path_factory.mktemp("uncalibrated")
    assert segment(images, bundle, output, calibration="off", **SMALL) == {}
    return output


@pytest.fixture(scope="module")
def calibrated(
    bundle: Bundle, cohort: Path, uncalibrated: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bundle]:
    """A copy of the tiny bundle with a calibration, fitted to four of the five cases."""
    root = tmp_path_factory.mktemp("calibrated") / bundle.name
    shutil.copytree(bundle.root, root)
    four = root.parent / "four"
    shutil.copytree(uncalibrated, four)
    shutil.rmtree(four / "phantom_004")
    calibrate(Bundle(root), cohort, four, splits=3)
    yield Bundle(root)


def maps(folder: Path, kind: str) -> dict[str, np.ndarray]:
    names = ("anterior", "posterior")
    return {
        name: nib.load(folder / f"{folder.name}_{kind}_{name}.nii.gz").get_fdata() for name in names
    }


def record_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"{folder.name}_run.json").read_text())
    return content


def test_the_file_says_what_it_was_fitted_on_and_what_it_reaches(calibrated: Bundle) -> None:
    content = json.loads((calibrated.root / CALIBRATION).read_text())
    assert content["method"] == "none" and content["n"] == 4
    assert "4 patients are too few" in content["checked"]["choice"]["reason"]
    assert len(content["temperature"]) == len(content["bias"]) == 3
    on = content["fitted_on"]
    assert (on["cases"], on["patients"], on["bundle"]) == (4, 4, "tiny_mr")
    assert on["weights_hash"] == calibrated.weights_hash() and len(on["inputs"]) == 4
    assert on["settings"]["members"] == 3
    assert "phantom_000" not in json.dumps(content)
    checked = content["checked"]
    assert checked["splits"] == 3 and set(checked["levels"]) == {"0.9", "0.95"}
    assert set(checked["choice"]) == {"reason", "before", "candidates"}
    fitted = read_bundle_calibration(calibrated)
    assert fitted is not None
    assert any("4 cases of 4 patients" in line for line in summary_lines(fitted))


def test_masks_and_maps_are_of_the_calibrated_mean(
    calibrated: Bundle, uncalibrated: Path, images: list[Path], tmp_path: Path
) -> None:
    assert segment(images[4:], calibrated, tmp_path, **SMALL) == {}
    before, after = uncalibrated / "phantom_004", tmp_path / "phantom_004"
    raw = np.stack(list(maps(before, "mean").values()))
    raw = np.concatenate([1.0 - raw.sum(0, keepdims=True), raw])
    fitted = read_bundle_calibration(calibrated)
    assert fitted is not None
    expected, found = fitted.scaling(raw), maps(after, "mean")
    for value, mean in enumerate(found.values(), start=1):
        np.testing.assert_allclose(mean, expected[value], atol=1e-4)
    seg = nib.load(after / "phantom_004_seg.nii.gz").get_fdata()
    p = np.stack([1.0 - sum(found.values()), *found.values()])
    chosen = np.take_along_axis(p, seg.astype(int)[None], axis=0)[0]
    np.testing.assert_allclose(chosen, p.max(0), atol=1e-6)
    for kind in ("variance",):
        for name, values in maps(before, kind).items():
            np.testing.assert_array_equal(values, maps(after, kind)[name])
    record = record_of(after)
    assert record["calibrated"] is True and record["guarantee"] is None
    assert record["calibration"]["temperature"] == list(fitted.scaling.temperature)
    assert record["calibration"]["includes_this_case"] is False
    plain = record_of(before)
    assert plain["calibrated"] is False and plain["calibration"] is None
    assert record["bundle_hash"] == calibrated.fingerprint(True) != plain["bundle_hash"]


def test_a_guarantee_is_written_kept_and_changed(
    calibrated: Bundle, images: list[Path], tmp_path: Path
) -> None:
    case = tmp_path / "phantom_000"
    assert segment(images[:1], calibrated, tmp_path, **SMALL) == {}
    assert not list(case.glob("*_inner_*"))
    assert segment(images[:1], calibrated, tmp_path, guarantee=0.7, **SMALL) == {}
    record = record_of(case)
    assert record["guarantee"]["level"] == 0.7 and record["calibration"]["includes_this_case"]
    for kind in ("inner", "outer"):
        image = nib.load(case / f"phantom_000_{kind}_anterior.nii.gz")
        assert image.get_data_dtype() == np.uint8 and image.shape == nib.load(images[0]).shape
        np.testing.assert_allclose(image.affine, nib.load(images[0]).affine)
    inner, outer, mean = (maps(case, kind) for kind in ("inner", "outer", "mean"))
    for name, one in record["guarantee"]["classes"].items():
        low, high = one["volume_ml"]
        assert low >= 0.0 and (high is None or high > low)
        assert (outer[name] >= inner[name]).all() and set(np.unique(outer[name])) <= {0, 1}
        np.testing.assert_array_equal(outer[name], mean[name] >= one["outer_threshold"])
        least = np.inf if one["inner_threshold"] is None else one["inner_threshold"]
        np.testing.assert_array_equal(inner[name], mean[name] >= least)
        assert one["outer_threshold"] == 0.0 or one["outer_threshold"] in THRESHOLDS
    file = case / "phantom_000_outer_anterior.nii.gz"
    at = file.stat().st_mtime_ns
    for same in (0.7, None):
        assert segment(images[:1], calibrated, tmp_path, guarantee=same, **SMALL) == {}
        assert file.stat().st_mtime_ns == at
    assert segment(images[:1], calibrated, tmp_path, guarantee=0.6, **SMALL) == {}
    assert record_of(case)["guarantee"]["level"] == 0.6 and file.stat().st_mtime_ns > at


def test_a_level_that_the_cases_do_not_allow_is_told(
    calibrated: Bundle, images: list[Path], tmp_path: Path
) -> None:
    assert segment(images[:1], calibrated, tmp_path, guarantee=0.95, **SMALL) == {}
    case = tmp_path / "phantom_000"
    record = record_of(case)
    assert sum("the 4 cases of the calibration allow no" in w for w in record["warnings"]) == 6
    one = record["guarantee"]["classes"]["anterior"]
    nothing = {"inner_threshold": None, "outer_threshold": 0.0, "volume_ml": [0.0, None]}
    assert one == nothing | {"vacuous": ["outer", "inner", "volume"]}
    assert maps(case, "outer")["anterior"].all() and not maps(case, "inner")["anterior"].any()


def test_other_settings_than_those_of_the_fit_are_told(
    calibrated: Bundle, images: list[Path], tmp_path: Path
) -> None:
    assert segment(images[:1], calibrated, tmp_path, **SMALL | {"members": 2}) == {}
    warnings = record_of(tmp_path / "phantom_000")["warnings"]
    assert ["fitted with members 3, not 2" in w for w in warnings if "calibration" in w] == [True]


def test_the_report_says_whether_it_held(
    calibrated: Bundle, cohort: Path, images: list[Path], tmp_path: Path
) -> None:
    assert segment(images[3:], calibrated, tmp_path / "out", guarantee=0.7, **SMALL) == {}
    assert evaluate(cohort, tmp_path / "out", tmp_path / "report") == {}
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    found = report["summary"]["guarantee"]
    assert found["level"] == 0.7 and found["n_cases"] == 2 and report["summary"]["n_fitted"] == 1
    for slug in ("anterior", "posterior", "mean"):
        values = [case["guarantee"]["missed_fraction"][slug] for case in report["cases"]]
        assert found["missed_fraction"][slug] == pytest.approx(np.mean(values))
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Guarantee of 70 %" in page and "fitted on 1 of these cases" in page


def test_a_guarantee_needs_a_calibration(
    bundle: Bundle, calibrated: Bundle, images: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"tiny_mr has no models/calibration\.json.*calibrate"):
        segment(images[:1], bundle, tmp_path, guarantee=0.9, **SMALL)
    with pytest.raises(UsageError, match="used without calibration"):
        segment(images[:1], calibrated, tmp_path, guarantee=0.9, calibration="off", **SMALL)
    for level in (0.0, 1.0, 95.0):
        with pytest.raises(UsageError, match=f"between 0 and 1, not be {level}"):
            segment(images[:1], calibrated, tmp_path, guarantee=level, **SMALL)
    with pytest.raises(UsageError, match="auto or 'off', not False"):
        segment(images[:1], calibrated, tmp_path, calibration=False, **SMALL)


def test_a_calibration_of_other_weights_is_refused(
    calibrated: Bundle, images: list[Path], tmp_path: Path
) -> None:
    root = tmp_path / "other"
    shutil.copytree(calibrated.root, root)
    path = root / CALIBRATION
    content = json.loads(path.read_text())
    content["fitted_on"]["weights_hash"] = "0"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="fitted to other weights"):
        segment(images[:1], Bundle(root), tmp_path / "out", **SMALL)
    assert segment(images[:1], Bundle(root), tmp_path / "out", calibration="off", **SMALL) == {}


def test_what_cannot_be_calibrated_is_refused(
    bundle: Bundle, calibrated: Bundle, cohort: Path, images: list[Path], tmp_path: Path
) -> None:
    def refused(folder: Path, words: str) -> None:
        with pytest.raises(InputError, match=words):
            calibrate(calibrated, cohort, folder, tmp_path / "c.json", splits=0)
        assert not (tmp_path / "c.json").exists()

    segment(images[:1], calibrated, tmp_path / "again", **SMALL)
    refused(tmp_path / "again", "on top of itself.*--calibration off")
    mixed = tmp_path / "mixed"
    segment(images[:1], bundle, mixed, **SMALL)
    segment(images[1:2], bundle, mixed, **SMALL | {"members": 2})
    refused(mixed, "phantom_001: differs from phantom_000 in members")
    record = mixed / "phantom_000" / "phantom_000_run.json"
    record.write_text(re.sub(r'"bundle_hash": "\w+"', '"bundle_hash": "0"', record.read_text()))
    refused(mixed, "not made with the weights")
    record.unlink()
    refused(mixed, "the case was not finished")
    alone = tmp_path / "alone" / "phantom_000"
    alone.mkdir(parents=True)
    shutil.copy(mixed / "phantom_000" / "phantom_000_seg.nii.gz", alone)
    refused(alone.parent, "a mask alone")
    with pytest.raises(UsageError, match="one of auto, none, temperature, vector"):
        calibrate(bundle, cohort, mixed, method="platt")  # type: ignore[arg-type]


def test_one_patient_is_too_few_for_a_scaling(
    bundle: Bundle, cohort: Path, images: list[Path], tmp_path: Path
) -> None:
    segment(images[:1], bundle, tmp_path / "out", **SMALL)
    fitted = calibrate(bundle, cohort, tmp_path / "out", tmp_path / "c.json", method="temperature")
    assert fitted.method == "none" and not fitted.scaling.changes
    assert "levels" not in fitted.checked and not (bundle.root / CALIBRATION).exists()


def test_what_cannot_be_promised_is_not_printed_as_kept(
    bundle: Bundle, cohort: Path, uncalibrated: Path, tmp_path: Path
) -> None:
    fitted = calibrate(bundle, cohort, uncalibrated, tmp_path / "c.json", splits=2)
    told = summary_lines(fitted)
    assert any("nothing can be said (vacuous)" in line for line in told)
    assert not any("1.000" in line or "100.0 %" in line for line in told if "level 0.95" in line)


def test_a_case_that_the_scaling_moves_far_is_told(
    calibrated: Bundle, images: list[Path], tmp_path: Path
) -> None:
    root = tmp_path / calibrated.name
    shutil.copytree(calibrated.root, root)
    content = json.loads((root / CALIBRATION).read_text())
    content |= {"temperature": [3.0] * 3, "largest_shift": 0.0, "method": "temperature"}
    (root / CALIBRATION).write_text(json.dumps(content))
    assert segment(images[:1], Bundle(root), tmp_path / "out", **SMALL) == {}
    record = record_of(tmp_path / "out" / "phantom_000")
    assert record["calibration"]["shift"] > 0.05
    assert sum("more than of any of the 4 cases" in text for text in record["warnings"]) == 1


def test_the_command(bundle: Bundle, cohort: Path, uncalibrated: Path, tmp_path: Path) -> None:
    root = tmp_path / "tiny_mr"
    shutil.copytree(bundle.root, root)
    line = ["calibrate", str(root), "--data", str(cohort), "--predictions", str(uncalibrated)]
    result = RUNNER.invoke(app, [*line, "--splits", "2", "--method", "temperature"])
    assert result.exit_code == 0, result.output
    assert "fitted on 5 cases" in result.output and "level 0.95" in result.output
    assert json.loads((root / CALIBRATION).read_text())["method"] == "temperature"
    assert RUNNER.invoke(app, [*line, "--method", "platt"]).exit_code == 2


def test_the_voxels_of_a_case_are_those_of_its_files(cohort: Path, uncalibrated: Path) -> None:
    manifest = load_manifest(cohort)
    for case in manifest.cases:
        folder = uncalibrated / case.id
        found = read_case_voxels(case, folder, manifest)
        reference = np.asarray(nib.load(case.labels[0]).dataobj)
        spacing = nib.load(case.images[0]).header.get_zooms()[:3]
        mean = np.stack(list(maps(folder, "mean").values()))
        probability = np.concatenate([1.0 - mean.sum(axis=0, keepdims=True), mean])
        share = np.stack([reference == value for value in range(3)]).astype(float)
        inside = near_structure(probability, share, spacing)
        region = found.region
        assert region.sum() == inside.sum()
        for shown, whole in ((found.probability, probability), (found.share, share)):
            np.testing.assert_allclose(shown[:, region], whole[:, inside], atol=1e-6)
        np.testing.assert_array_equal(found.share.argmax(axis=0), found.reference)
        assert found.weight.sum() == pytest.approx(reference.size)
        assert (found.patient, found.run) == (case.patient, record_of(folder))


def test_triage_learns_the_dice_of_the_scaled_masks(
    cohort: Path, uncalibrated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, given = load_manifest(cohort), []
    cases = [read_case_voxels(c, uncalibrated / c.id, manifest) for c in manifest.cases]
    monkeypatch.setattr(calibrate_bundle, "fit_triage", lambda known, *_, **__: given.extend(known))
    fitted_triage(cases, ("anterior", "posterior"), Scaling.identity(3))
    for case, known in zip(manifest.cases, given, strict=True):
        mask = np.asarray(nib.load(uncalibrated / case.id / f"{case.id}_seg.nii.gz").dataobj)
        reference = np.asarray(nib.load(case.labels[0]).dataobj)
        for value, slug in ((1, "anterior"), (2, "posterior")):
            expected = dice(mask == value, reference == value)
            assert known.dice[slug] == pytest.approx(expected, abs=1e-3) and known.present[slug]
    absent = replace(cases[0], reference=np.zeros_like(cases[0].reference))
    given.clear()
    fitted_triage([absent], ("anterior", "posterior"), Scaling.identity(3))
    assert np.isnan(list(given[0].dice.values())).all() and not any(given[0].present.values())
