"""From a folder of predictions to a report, on a data set that the test writes."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import rankdata

from medsegdiff.evaluation import report as report_module
from medsegdiff.evaluation.evaluate import evaluate
from medsegdiff.types import InputError

SHAPE = (14, 12, 10)
AFFINE = np.array([[-1.0, 0, 0, 5], [0, 0, 2.0, -3], [0, 1.5, 0, 7], [0, 0, 0, 1]])
CLASSES = {1: "head", 2: "body-tail"}
METRICS = (
    "dice iou precision recall f1 hd95_mm surface_dice ece ece_roi brier nll "
    "uncertainty_error_auroc uncertainty_error_correlation aurc"
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
                "uncertainty_error_auroc": naive_auroc(variance[value], wrong),
                "uncertainty_error_correlation": np.corrcoef(
                    variance[value].ravel(), wrong.ravel()
                )[0, 1],
            }
            if inside.any():
                expected["ece_roi"] = naive_ece(mean[value][roi], inside[roi])
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
        if metric != "aurc":
            values = [record[metric]["head"] for record in cases]
            assert summary[metric]["head"] == pytest.approx(np.mean(values))
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
    assert page.count("data:image/png;base64,") == 3
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
    assert report["failures"] == failures
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


def test_missing_counterparts_are_counted(
    cohort: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    data, predictions, _ = cohort
    (predictions / "b").rename(predictions / "stranger")
    assert evaluate(data, predictions, tmp_path / "report") == {}
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert (report["without_prediction"], report["without_reference"]) == (1, 1)
    assert report["summary"]["n_cases"] == 2


def test_nothing_in_common_is_an_error(
    cohort: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    data, _, _ = cohort
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no folder named like"):
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
    assert report["undefined"]["ece"] == {"head": 3, "body-tail": 3}
    assert "members" not in report["summary"]


def test_several_raters_of_planes(tmp_path: Path) -> None:
    """Majority, soft reference, and sample sets plane by plane, without unmarked planes."""
    rng = np.random.default_rng(0)
    raters = np.zeros((8, 9, 4, 3), np.uint8)
    raters[2:6, 2:7, :3] = rng.integers(0, 2, (4, 5, 3, 3))
    members = raters[..., [0, 1]]
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
    assert evaluate(data, tmp_path / "predictions", tmp_path / "report") == {}
    record = json.loads((tmp_path / "report" / "report.json").read_text())["cases"][0]

    majority = raters.sum(axis=-1) >= 2
    assert record["dice"]["nodule"] == pytest.approx(naive_dice(mean > 0.5, majority))
    assert record["brier"]["nodule"] == pytest.approx(np.mean((mean - raters.mean(axis=-1)) ** 2))

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        union = int((a | b).sum())
        return 1 - int((a & b).sum()) / union if union else 0.0

    def mean_distance(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.mean([distance(a, b) for a in x.T for b in y.T]))

    planes = [(members[:, :, z], raters[:, :, z]) for z in range(3)]  # nobody marked the last one
    expected = np.mean(
        [2 * mean_distance(s, r) - mean_distance(s, s) - mean_distance(r, r) for s, r in planes]
    )
    assert record["ged2"]["nodule"] == pytest.approx(expected)
    assert record["ged2"]["mean"] == pytest.approx(expected)
    assert not math.isclose(record["diversity"]["nodule"], 0.0)
