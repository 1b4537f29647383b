"""From a folder of predictions to a report, on a data set that the test writes."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score

from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.data.manifest import load_manifest
from medsegdiff.data.predictions import read_reference
from medsegdiff.evaluation import folder as evaluate_module
from medsegdiff.evaluation import report as report_module
from medsegdiff.evaluation.case_figures import evaluate_case
from medsegdiff.evaluation.folder import evaluate, patient_names
from medsegdiff.evaluation.summary import summarise
from medsegdiff.metrics.sample_sets import collective_insight, s_ncc
from medsegdiff.metrics.table import TABLE
from medsegdiff.phantoms.anatomy import Raters
from medsegdiff.phantoms.cohort import write_cohort
from medsegdiff.writers.nifti import write_nifti

SHAPE = (14, 12, 10)
AFFINE = np.array([[-1.0, 0, 0, 5], [0, 0, 2.0, -3], [0, 1.5, 0, 7], [0, 0, 0, 1]])
CLASSES = {1: "head", 2: "body-tail"}
METRICS = (
    "dice iou precision recall f1 hd95_mm surface_dice ece ece_roi ace ace_roi mce mce_roi "
    "members_ece_roi brier nll uncertainty_error_auroc uncertainty_error_auprc "
    "uncertainty_error_overlap uncertainty_error_correlation pavpu aurc e_aurc"
).split()


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def reference(seed: int, *, without: int = 0) -> np.ndarray:
    """Two classes side by side; optionally without one of them."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[3 + seed : 8, 3:9, 2:8], mask[8:12, 3:9, 2:7] = 1, 2
    mask[mask == without] = 0
    return mask


def predict(mask: np.ndarray, seed: int, members: int = 5) -> np.ndarray:
    """(N, 3, *SHAPE) probabilities of members that scatter around a mask."""
    rng = np.random.default_rng(seed)
    one_hot = np.stack([mask == c for c in range(3)])
    noise = ndimage.gaussian_filter(rng.normal(size=(members, 3, *SHAPE)), (0, 0, 1, 1, 1)) * 14
    logits = 4.0 * one_hot + noise
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def write_prediction(folder: Path, case: str, p: np.ndarray, anchor: np.ndarray) -> None:
    """The files of a segmented case."""
    mean, variance = p.mean(axis=0), p.var(axis=0)
    save(folder / case / f"{case}_seg.nii.gz", mean.argmax(axis=0).astype(np.uint8))
    members = np.moveaxis(p.argmax(axis=1), 0, -1).astype(np.uint8)
    save(folder / case / f"{case}_members.nii.gz", members)
    save(folder / case / f"{case}_anchor.nii.gz", anchor)
    for value, slug in CLASSES.items():
        save(folder / case / f"{case}_mean_{slug}.nii.gz", mean[value].astype(np.float32))
        save(folder / case / f"{case}_variance_{slug}.nii.gz", variance[value].astype(np.float32))
    entropy = -(mean * np.log(mean)).sum(axis=0)
    save(folder / case / f"{case}_entropy.nii.gz", entropy.astype(np.float32))
    run = {"bundle": "tiny", "members": len(p), "steps": 2, "sampler": "ddim", "seed": 0}
    (folder / case / f"{case}_run.json").write_text(json.dumps(run))


@pytest.fixture
def cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, dict[str, Any]]:
    """Data of three cases, the last without the second class; predictions; both as arrays.

    No pictures are drawn, which takes most of the time, unless the test undoes that.
    """
    monkeypatch.setattr(report_module, "case_picture", lambda *of: "data:,")
    data, predictions, known = tmp_path / "data", tmp_path / "predictions", {}
    entries = []
    for seed, case in enumerate(("a", "b", "c")):
        mask = reference(seed, without=2 if case == "c" else 0)
        image = np.random.default_rng(seed).normal(100, 10, SHAPE) + 20 * mask
        save(data / "images" / f"{case}.nii.gz", image.astype(np.float32))
        save(data / "labels" / f"{case}.nii.gz", mask)
        entries.append({"image": f"images/{case}.nii.gz", "label": f"labels/{case}.nii.gz"})
        probability = predict(mask, seed)
        write_prediction(predictions, case, probability, mask)
        known[case] = (mask, probability)
    described = {
        "name": "Tiny",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "Head", "2": "Body/Tail"},
        "tensorImageSize": "3D",
        "training": entries,
    }
    (data / "dataset.json").write_text(json.dumps(described))
    return data, predictions, known


def naive_dice(a: np.ndarray, b: np.ndarray) -> float:
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def naive_auroc(score: np.ndarray, error: np.ndarray) -> float:
    ranks, n = rankdata(score.ravel())[error.ravel()], int(error.sum())
    return (ranks.sum() - n * (n + 1) / 2) / (n * (error.size - n))


def naive_ece(p: np.ndarray, y: np.ndarray) -> float:
    index = np.digitize(p, np.linspace(0, 1, 16)[1:-1])
    gaps = [abs(p[index == b].sum() - y[index == b].sum()) for b in range(15)]
    return sum(gaps) / p.size


def naive_gaps(p: np.ndarray, y: np.ndarray) -> list[float]:
    """Of the bins that are not empty."""
    index = np.digitize(p, np.linspace(0, 1, 16)[1:-1])
    return [abs(p[index == b].mean() - y[index == b].mean()) for b in np.unique(index)]


def test_report_agrees_with_independent_figures(
    cohort: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    data, predictions, known = cohort
    assert evaluate(data, predictions, tmp_path / "report") == {}
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [record["case"] for record in report["cases"]] == ["a", "b", "c"]
    for record in report["cases"]:
        mask, p = known[record["case"]]
        mean, variance = p.mean(axis=0).astype(np.float32), p.var(axis=0).astype(np.float32)
        seg = mean.argmax(axis=0)
        for value, slug in CLASSES.items():
            wrong, inside = (seg == value) != (mask == value), mask == value
            roi = ndimage.binary_dilation(inside, iterations=5)
            expected = {
                "dice": naive_dice(seg == value, inside),
                "brier": np.mean((mean[value].astype(float) - inside) ** 2),
                "nll": -np.log(np.where(inside, mean[value], 1 - mean[value])).mean(),
                "ece": naive_ece(mean[value], inside),
                "ace": np.mean(naive_gaps(mean[value], inside)),
                "mce": max(naive_gaps(mean[value], inside)),
                "uncertainty_error_auprc": average_precision_score(
                    wrong.ravel(), variance[value].ravel()
                ),
                "uncertainty_error_auroc": naive_auroc(variance[value], wrong),
                "uncertainty_error_correlation": np.corrcoef(
                    variance[value].ravel(), wrong.ravel()
                )[0, 1],
            }
            if inside.any():
                expected["ece_roi"] = naive_ece(mean[value][roi], inside[roi])
                gaps = naive_gaps(mean[value][roi], inside[roi])
                expected |= {"ace_roi": np.mean(gaps), "mce_roi": max(gaps)}
                votes = (p.argmax(axis=1) == value).mean(axis=0)
                expected["members_ece_roi"] = naive_ece(votes[roi], inside[roi])
            for metric, number in expected.items():
                assert record[metric][slug] == pytest.approx(number, abs=1e-6), metric
        by_class = [record["dice"][slug] for slug in CLASSES.values()]
        assert record["dice"]["mean"] == pytest.approx(np.mean(by_class))
        own = [naive_dice(m == 1, mask == 1) for m in p.argmax(axis=1)]
        assert record["members"]["dice"]["head"] == pytest.approx(np.mean(own))


def test_summary_means_counts_and_comparisons(
    cohort: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    data, predictions, _ = cohort
    evaluate(data, predictions, tmp_path / "report")
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    summary, cases = report["summary"], report["cases"]
    for metric in METRICS:
        assert set(summary[metric]) == {"mean", *CLASSES.values()}
        classes = [summary[metric][slug] for slug in CLASSES.values()]
        assert summary[metric]["mean"] == pytest.approx(np.mean(classes))
        if metric not in ("aurc", "e_aurc"):
            values = [record[metric]["head"] for record in cases]
            assert summary[metric]["head"] == pytest.approx(np.mean(values))
    risk = np.sort([1.0 - record["dice"]["head"] for record in cases])
    best = np.mean(np.cumsum(risk) / np.arange(1, len(risk) + 1))
    assert summary["e_aurc"]["head"] == pytest.approx(summary["aurc"]["head"] - best)
    # Case c has no second class in its reference: overlap 0, distances and region undefined.
    assert cases[2]["dice"]["body-tail"] == 0.0
    assert cases[2]["hd95_mm"]["body-tail"] is None
    assert report["undefined"]["hd95_mm"] == {"head": 0, "body-tail": 1}
    assert report["undefined"]["ece_roi"] == {"head": 0, "body-tail": 1}
    assert sum(report["undefined"]["dice"].values()) == 0
    present = [record["dice"]["body-tail"] for record in cases[:2]]
    assert summary["non_empty"]["dice"]["body-tail"] == pytest.approx(np.mean(present))
    assert summary["anchor"]["dice"]["mean"] == 1.0
    assert summary["anchor"]["ensemble_gain"] < 0
    gain = summary["dice"]["mean"] - summary["members"]["dice"]["mean"]
    assert summary["members"]["ensemble_gain"] == pytest.approx(gain)
    low, high = summary["confidence_95"]["dice"]["head"]
    assert low <= summary["dice"]["head"] <= high
    bins = summary["reliability"]["head"]
    assert sum(bins["image"]["count"]) == 3 * np.prod(SHAPE)
    assert sum(bins["members"]["count"]) == sum(bins["roi"]["count"]) < 3 * np.prod(SHAPE)
    assert "planes" not in summary and "variance_rater_correlation" not in summary
    assert summary["n_cases"] == 3
    chosen = {"bundle": "tiny", "members": 5, "steps": 2, "sampler": "ddim", "seed": 0}
    assert chosen.items() <= report["settings"].items()


def test_distances_are_in_millimetres_of_the_affine(
    cohort: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    data, predictions, known = cohort
    shifted = np.roll(known["a"][0], 1, axis=1)  # the axis with voxels of 1.5 mm
    save(predictions / "a" / "a_seg.nii.gz", shifted)
    evaluate(data, predictions, tmp_path / "report")
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["cases"][0]["hd95_mm"]["head"] == pytest.approx(1.5)


def test_table_and_page_hold_the_same_figures(
    cohort: tuple[Path, Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, predictions, _ = cohort
    monkeypatch.undo()
    evaluate(data, predictions, tmp_path / "report")
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    with (tmp_path / "report" / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["dice_head"]) for row in rows] == [c["dice"]["head"] for c in report["cases"]]
    assert rows[2]["hd95_mm_body-tail"] == ""
    page = (tmp_path / "report" / "report.html").read_text()
    assert f"{report['summary']['dice']['mean']:.3f}" in page
    assert page.count("data:image/png;base64,") == 3 * 3  # image, mean and variance
    assert page.count("<figcaption>Member ") == 3 * 4
    assert "Body/Tail" in page
    assert "worse than the single deterministic pass" in page
    assert "http://" not in page and "https://" not in page and "<link" not in page


def test_a_broken_case_is_named_and_the_others_are_done(
    cohort: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    data, predictions, known = cohort
    moved = AFFINE.copy()
    moved[0, 3] += 3
    save(predictions / "a" / "a_seg.nii.gz", known["a"][0], moved)
    save(predictions / "b" / "b_mean_head.nii.gz", np.zeros((3, 3, 3), np.float32))
    failures = evaluate(data, predictions, tmp_path / "report")
    assert set(failures) == {"a", "b"}
    assert "a_seg.nii.gz" in failures["a"] and "affine" in failures["a"]
    assert "b_mean_head.nii.gz" in failures["b"] and "(3, 3, 3)" in failures["b"]
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [record["case"] for record in report["cases"]] == ["c"]
    told = {case: reason.partition(": ")[2] for case, reason in failures.items()}
    assert report["failures"] == told  # without the paths, for a page that is shown to others
    assert json.loads((tmp_path / "report" / "failures.json").read_text()) == failures


@pytest.mark.parametrize(
    ("name", "array", "told"),
    [
        ("seg", np.full(SHAPE, 7, np.uint8), "[7]"),
        ("mean_head", np.full(SHAPE, 1.5, np.float32), "[0, 1]"),
        ("variance_head", np.full(SHAPE, 0.3, np.float32), "[0, 0.25]"),
        ("entropy", np.full(SHAPE, np.nan, np.float32), "nan"),
        ("members", np.zeros((*SHAPE[:2], 9, 2), np.uint8), "shape"),
    ],
)
def test_values_out_of_range_are_refused(
    cohort: tuple[Path, Path, dict[str, Any]],
    tmp_path: Path,
    name: str,
    array: np.ndarray,
    told: str,
) -> None:
    data, predictions, _ = cohort
    save(predictions / "a" / f"a_{name}.nii.gz", array)
    failures = evaluate(data, predictions, tmp_path / "report")
    assert list(failures) == ["a"]
    assert f"a_{name}.nii.gz" in failures["a"] and told in failures["a"]


@pytest.mark.parametrize("kept", ["mean_head", "variance_head", "entropy", "members", "anchor"])
def test_maps_without_a_record_are_a_case_that_was_not_finished(
    cohort: tuple[Path, Path, dict[str, Any]], tmp_path: Path, kept: str
) -> None:
    data, predictions, _ = cohort
    for path in (predictions / "a").iterdir():
        if path.name not in ("a_seg.nii.gz", f"a_{kept}.nii.gz"):
            path.unlink()
    failures = evaluate(data, predictions, tmp_path / "report")
    assert list(failures) == ["a"]
    for said in ("a_run.json", f"{kept} map", "not finished", "--overwrite"):
        assert said in failures["a"]


def test_labels_of_other_names_than_the_maps_are_refused(
    cohort: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    data, predictions, _ = cohort
    described = json.loads((data / "dataset.json").read_text())
    described["labels"]["2"] = "Tail"
    (data / "dataset.json").write_text(json.dumps(described))
    failures = evaluate(data, predictions, tmp_path / "report")
    assert set(failures) == {"a", "b", "c"}
    needed = "need the maps mean_head, mean_tail, variance_head, variance_tail; "
    found = "found: mean_body-tail, mean_head, variance_body-tail, variance_head. "
    assert needed + found in failures["a"]


def test_a_case_that_lacks_a_map_is_refused(
    cohort: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    data, predictions, _ = cohort
    (predictions / "a" / "a_variance_head.nii.gz").unlink()
    for path in (predictions / "b").glob("b_[mv]*"):
        path.unlink()
    failures = evaluate(data, predictions, tmp_path / "report")
    assert set(failures) == {"a", "b"}
    assert "found: mean_body-tail, mean_head, variance_body-tail. " in failures["a"]
    assert "found: none. " in failures["b"]


@pytest.mark.parametrize("error", [OSError, MemoryError, ValueError, RuntimeError])
def test_what_a_damaged_case_raises_does_not_stop_the_others(
    cohort: tuple[Path, Path, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
) -> None:
    def damaged(case: Any, *rest: Any, **options: Any) -> Any:
        if case.id == "a":
            raise error("no space\nleft")
        return evaluate_case(case, *rest, **options)

    monkeypatch.setattr(evaluate_module, "evaluate_case", damaged)
    failures = evaluate(*cohort[:2], tmp_path / "report")
    assert failures == {"a": f"a: {error.__name__}: no space"}
    told = json.loads((tmp_path / "report" / "report.json").read_text())["failures"]
    assert told == {"a": f"{error.__name__}: no space"}


def test_a_picture_that_cannot_be_drawn_does_not_stop_the_report(
    cohort: tuple[Path, Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*of: Any) -> str:
        raise OSError("disk went away")

    monkeypatch.setattr(report_module, "case_picture", fail)
    assert evaluate(*cohort[:2], tmp_path / "report") == {}
    assert "no picture. OSError: disk went away" in (tmp_path / "report/report.html").read_text()


def test_if_all_cases_fail_there_are_failures_and_no_report(
    cohort: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    data, predictions, _ = cohort
    evaluate(data, predictions, tmp_path / "report")
    for path in predictions.glob("*/*_seg.nii.gz"):
        path.unlink()
    failures = evaluate(data, predictions, tmp_path / "report")
    assert set(failures) == {"a", "b", "c"}
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["failures.json"]


def test_a_report_within_the_predictions_is_no_case(
    cohort: tuple[Path, Path, dict[str, Any]],
) -> None:
    data, predictions, _ = cohort
    (predictions / "empty").mkdir()
    for _ in range(2):
        assert evaluate(data, predictions, predictions / "report") == {}
        report = json.loads((predictions / "report" / "report.json").read_text())
        assert report["without_reference"] == 0


def test_the_folder_of_the_predictions_is_refused_for_the_report(
    cohort: tuple[Path, Path, dict[str, Any]],
) -> None:
    data, predictions, _ = cohort
    (predictions / "failures.json").write_text("{}")
    before = sorted(predictions.iterdir())
    with pytest.raises(UsageError, match="report"):
        evaluate(data, predictions, predictions / "a" / "..")
    assert sorted(predictions.iterdir()) == before


@pytest.mark.parametrize("tolerance_mm", [-1.0, math.nan, math.inf])
def test_a_tolerance_that_is_no_distance_is_refused(
    cohort: tuple[Path, Path, dict[str, Any]], tmp_path: Path, tolerance_mm: float
) -> None:
    with pytest.raises(UsageError, match="tolerance_mm: must be"):
        evaluate(*cohort[:2], tmp_path / "report", tolerance_mm=tolerance_mm)


def test_the_tolerance_is_that_of_the_surface_dice(
    cohort: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    data, predictions, known = cohort
    shifted = np.roll(known["a"][0], 1, axis=1)  # the axis with voxels of 1.5 mm
    save(predictions / "a" / "a_seg.nii.gz", shifted)
    found = {}
    for tolerance_mm in (1.0, 1.6):
        evaluate(data, predictions, tmp_path / "report", tolerance_mm=tolerance_mm)
        report = json.loads((tmp_path / "report" / "report.json").read_text())
        assert report["settings"]["tolerance_mm"] == tolerance_mm
        found[tolerance_mm] = report["cases"][0]["surface_dice"]["head"]
    assert found[1.0] < found[1.6] == 1.0


def test_missing_counterparts_are_counted(
    cohort: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    data, predictions, _ = cohort
    (predictions / "b").rename(predictions / "stranger")
    (predictions / "stranger" / "b_seg.nii.gz").rename(predictions / "stranger/stranger_seg.nii.gz")
    assert evaluate(data, predictions, tmp_path / "report") == {}
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert (report["without_prediction"], report["without_reference"]) == (1, 1)
    assert report["summary"]["n_cases"] == 2


def test_nothing_in_common_is_an_error(
    cohort: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    data, _, _ = cohort
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no folder with files of one of the 3"):
        evaluate(data, tmp_path / "empty", tmp_path / "report")
    with pytest.raises(InputError, match="no such folder"):
        evaluate(data, tmp_path / "absent", tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_masks_alone_give_the_overlap_and_leave_the_rest_undefined(
    cohort: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    data, predictions, _ = cohort
    for path in predictions.rglob("*"):
        if path.is_file() and not path.name.endswith("_seg.nii.gz"):
            path.unlink()
    assert evaluate(data, predictions, tmp_path / "report") == {}
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["summary"]["dice"]["head"] > 0
    assert report["summary"]["ece"]["mean"] is None
    for metric in ("ece", "mce_roi", "members_ece_roi", "pavpu", "e_aurc"):
        assert report["undefined"][metric] == {"head": 3, "body-tail": 3}
    assert "members" not in report["summary"]


def test_without_members_files_their_votes_are_undefined_and_the_rest_is_not(
    cohort: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    data, predictions, _ = cohort
    for case in "ab":
        (predictions / case / f"{case}_members.nii.gz").unlink()
    assert evaluate(data, predictions, tmp_path / "report") == {}
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["undefined"]["members_ece_roi"] == {"head": 2, "body-tail": 3}
    assert report["undefined"]["ece_roi"] == {"head": 0, "body-tail": 1}
    bins = report["summary"]["reliability"]["head"]
    assert 0 < sum(bins["members"]["count"]) < sum(bins["roi"]["count"])


def test_several_raters_of_planes(tmp_path: Path) -> None:
    """Majority, soft reference, and sample sets plane by plane, without unmarked planes."""
    rng = np.random.default_rng(0)
    raters = np.zeros((8, 9, 5, 3), np.uint8)
    raters[2:6, 2:7, :3] = rng.integers(0, 2, (4, 5, 3, 3))
    members = raters[..., [0, 1]]
    members[3:5, 3:5, 3, 0] = 1  # an invention; nobody marked the last plane
    members[..., 2, 1] = members[..., 2, 0]  # no variance
    mean = members.mean(axis=-1).astype(np.float32)
    data, folder = tmp_path / "data", tmp_path / "predictions" / "n"
    save(data / "n.nii.gz", rng.normal(size=raters.shape[:3]).astype(np.float32))
    save(data / "n_label.nii.gz", raters)
    described = {
        "labels": {"0": "background", "1": "nodule"},
        "modality": {"0": "CT"},
        "tensorImageSize": "2D",
        "raters": 3,
        "training": [{"image": "n.nii.gz", "label": "n_label.nii.gz"}],
    }
    (data / "dataset.json").write_text(json.dumps(described))
    save(folder / "n_seg.nii.gz", (mean > 0.5).astype(np.uint8))
    save(folder / "n_mean_nodule.nii.gz", mean)
    save(folder / "n_variance_nodule.nii.gz", members.var(axis=-1).astype(np.float32))
    save(folder / "n_members.nii.gz", members)
    (folder / "n_run.json").write_text("{}")
    assert evaluate(data, tmp_path / "predictions", tmp_path / "report") == {}
    record = json.loads((tmp_path / "report" / "report.json").read_text())["cases"][0]

    majority = raters.sum(axis=-1) >= 2
    assert record["dice"]["nodule"] == pytest.approx(naive_dice(mean > 0.5, majority))
    share, anywhere = raters.mean(axis=-1), raters.any(axis=-1)
    roi = ndimage.binary_dilation(anywhere, iterations=5)
    assert record["brier"]["nodule"] == pytest.approx(np.mean((mean - share) ** 2))
    assert record["ece"]["nodule"] == pytest.approx(naive_ece(mean, share))
    assert record["mce_roi"]["nodule"] == pytest.approx(max(naive_gaps(mean[roi], share[roi])))
    assert record["members_ece_roi"]["nodule"] == pytest.approx(naive_ece(mean[roi], share[roi]))
    variances = members.var(axis=-1).ravel(), raters.var(axis=-1).ravel()
    correlation = np.corrcoef(*variances)[0, 1]
    assert record["variance_rater_correlation"]["nodule"] == pytest.approx(correlation)

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        union = int((a | b).sum())
        return 1 - int((a & b).sum()) / union if union else 0.0

    def mean_distance(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.mean([distance(a, b) for a in x.T for b in y.T]))

    planes = [(members[:, :, z], raters[:, :, z]) for z in range(4)]
    expected = np.mean(
        [2 * mean_distance(s, r) - mean_distance(s, s) - mean_distance(r, r) for s, r in planes]
    )
    assert record["ged2"]["nodule"] == pytest.approx(expected)
    assert record["ged2"]["mean"] == pytest.approx(expected)
    assert not math.isclose(record["diversity"]["nodule"], 0.0)
    assert record["planes"] == {"judged": 4, "s_ncc": 3}
    defined = [s_ncc(members[:, :, z].T, raters[:, :, z].T) for z in (0, 1, 3)]
    assert record["s_ncc"]["nodule"] == pytest.approx(np.mean(defined))
    insights = [collective_insight(s.T, r.T) for s, r in planes]
    assert insights[3] == 0.0
    assert record["ci"]["mean"] == pytest.approx(np.mean(insights))
    patches = [(mean > 0.5) == majority, members.var(axis=-1)]
    right, doubt = ([a[x : x + 2, y : y + 2, z].mean() for x in range(0, 8, 2)
                     for y in range(0, 9, 2) for z in range(5)] for a in patches)  # fmt: skip
    uncertain = np.array(doubt) > (min(doubt) + max(doubt)) / 2
    assert record["pavpu"]["nodule"] == pytest.approx(np.mean((np.array(right) > 0.5) != uncertain))


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("stacked", [False, True], ids=["files", "axis"])
@pytest.mark.parametrize("repeats", [1, 2])
def test_members_that_are_the_raters_are_perfect(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spatial_dims: int,
    stacked: bool,
    repeats: int,
) -> None:
    """Two equal sets: nothing between them, and as much within the one as within the other."""
    monkeypatch.setattr(report_module, "case_picture", lambda *of: "data:,")
    cohort: dict[str, Any] = {"spatial_dims": spatial_dims, "stacked": stacked, "raters": 3}
    cohort["disagreement"] = Raters(omission=0.4)  # some see nothing, as in LIDC
    manifest = load_manifest(write_cohort(tmp_path, cases=4, classes=1, size=16, **cohort))
    expected = {}
    for case in manifest.cases:
        raters, geometry = read_reference(case, manifest)
        share = (raters == 1).mean(axis=0)
        maps = {"mean_structure-1": share, "variance_structure-1": share * (1 - share)}
        masks = {"seg": share > 0.5, "members": np.moveaxis(np.tile(raters.T, repeats).T, 0, -1)}
        path = f"{tmp_path}/out/{case.id}/{case.id}_"
        for name, array in maps.items():
            write_nifti(f"{path}{name}.nii.gz", array, geometry, dtype="float32")
        for name, array in masks.items():
            write_nifti(f"{path}{name}.nii.gz", array.astype(np.uint8), geometry, dtype="uint8")
        Path(f"{path}run.json").write_text(json.dumps({"members": 3 * repeats}))
        distances = [
            1 - np.sum(a & b) / np.sum(a | b) if (a | b).any() else 0.0
            for a in raters.astype(bool)
            for b in raters.astype(bool)
        ]
        expected[case.id] = float(np.mean(distances))
    assert max(expected.values()) > 0.3

    assert evaluate(tmp_path, tmp_path / "out", tmp_path / "report") == {}
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    for record in report["cases"]:
        for name in ("mean", "structure-1"):
            assert record["ged2"][name] == pytest.approx(0.0, abs=1e-9)
            assert record["hm_iou"][name] == record["d_max"][name] == 1.0
            assert record["dice"][name] == 1.0
            for error in ("ece", "mce", "ece_roi", "mce_roi", "members_ece_roi"):
                assert record[error][name] == pytest.approx(0.0, abs=1e-6)
            assert record["variance_rater_correlation"][name] == pytest.approx(1.0)
            if repeats == 1:  # otherwise some members are alike, and no raters
                assert record["ci"][name] == pytest.approx(1.0)
            assert record["diversity"][name] == pytest.approx(expected[record["case"]])
            assert record["rater_diversity"][name] == pytest.approx(expected[record["case"]])
    summary = report["summary"]
    figures = {name: summary[name]["mean"] for name in ("ged2", "hm_iou", "d_max", "diversity")}
    diversity = float(np.mean(list(expected.values())))
    assert figures == pytest.approx({"ged2": 0, "hm_iou": 1, "d_max": 1, "diversity": diversity})
    assert report["settings"]["raters"] == 3
    assert "HM-IoU" in (tmp_path / "report" / "report.html").read_text()


def test_the_page_shows_the_guarantee_and_metrics_that_it_does_not_know(
    cohort: tuple[Path, Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarantee: dict[str, Any] = {
        "level": 0.9,
        "missed_fraction": {"head": 0.084, "body-tail": 0.05, "mean": 0.067},
        "wrong_fraction": {"head": 0.2, "body-tail": 0.2, "mean": 0.2},
        "volume_coverage": {"head": 0.91, "body-tail": math.nan, "mean": 0.91},
        "n_cases": 3,
    }

    def promised(*of: Any) -> dict[str, Any]:
        return {**summarise(*of), "guarantee": guarantee}

    assert evaluate(*cohort[:2], tmp_path / "plain") == {}
    assert 'id="guarantee"' not in (tmp_path / "plain" / "report.html").read_text()
    monkeypatch.setattr(evaluate_module, "summarise", promised)
    monkeypatch.setitem(TABLE, "brier", replace(TABLE["brier"], heading="Unheard of"))
    assert evaluate(*cohort[:2], tmp_path / "report") == {}
    page = (tmp_path / "report" / "report.html").read_text()
    for shown in ("On 3 cases", "at most 10 %", "at least 90 %", "8.4 %", "91 %", "Unheard of"):
        assert shown in page
    guarantee["level"] = [0.9, 0.95]
    assert evaluate(*cohort[:2], tmp_path / "report") == {}
    assert "at most 10 %, at most 5 %" in (tmp_path / "report" / "report.html").read_text()


@pytest.mark.parametrize("installed", [True, False])
def test_the_viewer_is_there_or_the_page_says_how_to_get_it(
    cohort: tuple[Path, Path, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    installed: bool,
) -> None:
    monkeypatch.setattr(report_module, "niivue", lambda: "Y29kZQ==" if installed else None)
    assert evaluate(*cohort[:2], tmp_path / "report") == {}
    page = (tmp_path / "report" / "report.html").read_text()
    assert ('id="viewer-canvas"' in page) == ("Copyright (c) 2021, Niivue" in page) == installed
    assert ("medsegdiff[viewer]" in page) != installed


def test_the_page_says_where_the_ensemble_brings_nothing(
    cohort: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    data, predictions, known = cohort
    for case, (mask, _) in known.items():
        save(predictions / case / f"{case}_seg.nii.gz", np.roll(mask, 1, axis=0))
        save(predictions / case / f"{case}_members.nii.gz", np.stack([mask, mask], axis=-1))
        save(predictions / case / f"{case}_anchor.nii.gz", np.roll(mask, -1, axis=0))
    evaluate(data, predictions, tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "The ensemble is worse than the mean of its members: mean Dice 0." in page
    assert "The ensemble is no better than the single deterministic pass: mean Dice 0." in page


def test_what_is_to_be_ignored_counts_in_no_metric(
    cohort: tuple[Path, Path, dict[str, Any]],
) -> None:
    """Nothing that is predicted there changes a figure, and Dice is that of the rest."""
    data, predictions, arrays = cohort
    mask, probability = arrays["a"]
    ignored = np.zeros(SHAPE, bool)
    ignored[:, 6:] = True
    save(data / "labels" / "a.nii.gz", np.where(ignored, 3, mask).astype(np.uint8))
    described = json.loads((data / "dataset.json").read_text())
    described["labels"]["3"] = "ignore"
    (data / "dataset.json").write_text(json.dumps(described))
    manifest = load_manifest(data)
    (case,) = (case for case in manifest.cases if case.id == "a")
    before = evaluate_case(case, predictions / "a", manifest)
    seg = probability.mean(axis=0).argmax(axis=0)
    for value, slug in CLASSES.items():
        expected = naive_dice((seg == value) & ~ignored, (mask == value) & ~ignored)
        assert before.values["dice"][slug] == pytest.approx(expected)
    other = np.where(ignored, np.roll(probability, 1, axis=1), probability)
    write_prediction(predictions, "a", other, np.where(ignored, 0, mask).astype(np.uint8))
    after = evaluate_case(case, predictions / "a", manifest)
    for name in ("values", "uncertainty", "members_dice", "anchor_dice", "maps_auroc"):
        np.testing.assert_equal(getattr(after, name), getattr(before, name))
    for slug, bins in before.reliability.items():
        for part, one in bins.items():
            assert one.ece == after.reliability[slug][part].ece
    assert evaluate(data, predictions, predictions / "report") == {}


@pytest.mark.parametrize("spacing", [None, 0.5])
def test_lengths_of_photographs_are_in_pixels_unless_their_size_is_known(
    tmp_path: Path, spacing: float | None
) -> None:
    data, predictions = tmp_path / "data", tmp_path / "out"
    for folder in ("images", "masks"):
        (data / folder).mkdir(parents=True)
    for number, case in enumerate("ab"):
        picture = np.random.default_rng(number).integers(0, 255, (20, 30, 3)).astype(np.uint8)
        mask = np.zeros((20, 30), np.uint8)  # rows, columns
        mask[5:10, 5:15] = 1
        Image.fromarray(picture).save(data / "images" / f"{case}.png")
        Image.fromarray(mask).save(data / "masks" / f"{case}.png")
        moved = np.roll(mask, 4, axis=1).T
        save(predictions / case / f"{case}_seg.nii.gz", moved, np.eye(4))
    described: dict[str, Any] = {"labels": {"0": "background", "1": "x"}}
    described |= {"spacing": spacing} if spacing else {}
    (data / "dataset.json").write_text(json.dumps(described))
    assert evaluate(data, predictions, tmp_path / "report") == {}
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    page = (tmp_path / "report" / "report.html").read_text()
    assert report["summary"]["hd95_mm"]["x"] == pytest.approx(4 * (spacing or 1))
    assert report["settings"]["unit"] == ("mm" if spacing else "pixel")
    assert ("HD95 (mm)" in page) == bool(spacing)
    assert ("HD95 (pixels)" in page) != bool(spacing)
    if not spacing:
        assert not re.search(r"\bmm\b", re.sub(r"<(script|style).*?</\1>", "", page, flags=re.S))


def test_what_is_wrong_with_the_arguments_is_told(
    cohort: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    data, predictions, _ = cohort
    with pytest.raises(UsageError) as told:
        evaluate(data, predictions, tmp_path / "report", tolerance_mm=-1.0)
    assert str(told.value) == (
        "tolerance_mm: must be a number of millimetres of 0 or more, not -1.0. "
        "Give for instance 1.0"
    )
    with pytest.raises(UsageError) as told:
        evaluate(data, predictions, predictions / "a" / "..")
    assert str(told.value) == (
        f"{predictions / 'a' / '..'}: holds the predictions, whose own report.html the report "
        f"would replace. Choose another folder, such as {predictions / 'a' / '..' / 'report'}"
    )


def test_settings_that_differ_are_listed_once_each(
    cohort: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    data, predictions, _ = cohort
    for case, changed in (("b", {"steps": 9}), ("c", {"calibrated": True})):
        path = predictions / case / f"{case}_run.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    seen: list[list[str]] = []

    def progress(cases: Any) -> Any:
        seen.append([case.id for case in cases])
        return iter(cases)

    study = {"plan": {"spacing": 1.0}}
    evaluate(data, predictions, tmp_path / "report", study=study, progress=progress)
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert seen == [["a", "b", "c"]] and report["plan"] == {"spacing": 1.0}
    settings = report["settings"]
    assert settings["steps"] == [2, 9] and settings["calibrated"] == [None, True]
    assert settings["members"] == 5 and settings["sampler"] == "ddim"
    named = {
        "data": "Tiny",
        "labels": {"head": "Head", "body-tail": "Body/Tail"},
        "raters": 1,
        "tolerance_mm": 1.0,
        "unit": "mm",
        "bins": 15,
        "roi_voxels": 5,
    }
    assert {name: settings[name] for name in named} == named
    assert set(report["undefined"]) == set(METRICS) and report["failures"] == {}
    record = report["cases"][0]
    assert {"members", "anchor", "uncertainty"} <= set(record) and "planes" not in record
    assert "guarantee" not in record and record["patient"] == "a"


def test_patients_that_are_not_their_case_are_numbered() -> None:
    cases = [
        SimpleNamespace(id=i, patient=p)
        for i, p in zip("abcd", ("a", "Doe", "Doe", "d"), strict=True)
    ]
    manifest: Any = SimpleNamespace(cases=cases)
    assert patient_names(manifest) == {"a": "a", "Doe": "patient 2", "d": "d"}


def test_a_case_fails_in_words_without_paths(
    cohort: tuple[Path, Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, predictions, _ = cohort
    real = evaluate_module.evaluate_case

    def odd(case: Any, folder: Path, *rest: Any, **options: Any) -> Any:
        assert folder == predictions / case.id and options == {"tolerance_mm": 2.5}
        if case.id == "a":
            raise ValueError("first\nsecond")
        if case.id == "b":
            raise InputError("doe.nii", "is empty", "Get it again")
        return real(case, folder, *rest, **options)

    monkeypatch.setattr(evaluate_module, "evaluate_case", odd)
    found = evaluate(data, predictions, tmp_path / "report", tolerance_mm=2.5)
    assert found == {"a": "a: ValueError: first", "b": "doe.nii: is empty. Get it again"}
    assert json.loads((tmp_path / "report" / "failures.json").read_text()) == found
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["failures"] == {"a": "ValueError: first", "b": "is empty. Get it again"}
    assert [record["case"] for record in report["cases"]] == ["c"]
    assert report["settings"]["tolerance_mm"] == 2.5


def test_the_table_has_a_column_of_each_figure_and_class(
    cohort: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    data, predictions, _ = cohort
    evaluate(data, predictions, tmp_path / "report")
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    with (tmp_path / "report" / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    figures = [name for name in METRICS if name not in ("aurc", "e_aurc")]
    columns = [f"{name}_{slug}" for name in figures for slug in (*CLASSES.values(), "mean")]
    assert set(rows[0]) == {"case", "patient", *columns} and len(rows) == 3
    for row, record in zip(rows, report["cases"], strict=True):
        assert (row["case"], row["patient"]) == (record["case"], record["patient"])
        for name in figures:
            for slug in (*CLASSES.values(), "mean"):
                text, value = row[f"{name}_{slug}"], record[name][slug]
                assert (text == "") == (value is None)
                assert value is None or float(text) == pytest.approx(value)


def test_the_doubt_of_a_case_is_its_variance_over_its_volume(
    cohort: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    data, predictions, known = cohort
    evaluate(data, predictions, tmp_path / "report")
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    scores: dict[str, list[float]] = {"variance": [], "entropy": []}
    for record in report["cases"]:
        mask, p = known[record["case"]]
        mean, variance = p.mean(axis=0), p.var(axis=0)
        doubts = [variance[k].sum() / mean[k].sum() for k in (1, 2)]
        found = [record["uncertainty"][slug] for slug in (*CLASSES.values(), "mean")]
        assert found == pytest.approx([*doubts, np.mean(doubts)], rel=1e-4)
        assert record["anchor"]["dice"] == {"head": 1.0, "body-tail": 1.0, "mean": 1.0}
        wrong = mean.argmax(axis=0) != mask
        scores["variance"].append(naive_auroc((variance[1] + variance[2]).astype("f4"), wrong))
        entropy = -(mean * np.log(mean)).sum(axis=0)
        scores["entropy"].append(naive_auroc(entropy.astype("f4"), wrong))
    for name, values in scores.items():
        assert report["summary"]["any_class_auroc"][name] == pytest.approx(
            np.mean(values), abs=1e-3
        )
