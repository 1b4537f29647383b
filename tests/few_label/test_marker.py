"""From a few labelled phantoms to masks of others, with a tiny model of images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import run

from medsegdiff.bundle.bundle import Bundle, load_bundle
from medsegdiff.bundle.trusted_bundles import trust
from medsegdiff.cases.job import segment
from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.data.manifest import load_manifest
from medsegdiff.few_label.marker import label_efficient, teaching_cases
from medsegdiff.phantoms.cohort import write_cohort
from medsegdiff.training.run import train
from tests.docs.test_docs import DOCS, section, table_keys

SMALL = {
    "window: [40, 56, 40]": "window: [16, 16, 16]",
    "channels: [16, 32, 64, 192]": "channels: [8, 8, 8, 8]",
    "noises: [0.05, 0.2, 0.35, 0.5, 0.65, 0.8]": "noises: [0.1, 0.4]",
    "views: 40": "views: 8",
    "voxels: 3000": "voxels: 1000",
    "steps: 500": "steps: 150",
}


def tiny(folder: Path, dims: int) -> Bundle:
    """A copy of the bundle that ships, tiny and without weights, in two or three dimensions."""
    root = folder / f"tiny_{dims}d"
    shipped = load_bundle("hippocampus_label_efficient").root
    shutil.copytree(shipped, root, ignore=shutil.ignore_patterns("*.pt", "runs", "eval"))
    changes = dict(SMALL)
    if dims == 2:
        changes |= {
            "[16, 16, 16]": "[16, 16]",
            "[1.0, 1.0, 1.0]": "[1.0, 1.0]",
            "spatial_dims: 3": "spatial_dims: 2",
            "channels_last_3d": "channels_last",
            "axcodes: RAS": "axcodes: RA",
        }
    for name in ("train.yaml", "label_efficient.yaml"):
        path = root / "configs" / name
        text = path.read_text()
        for before, after in changes.items():
            text = text.replace(before, after)
        path.write_text(text)
    trust(root)
    return Bundle(root)


def phantoms(folder: Path, dims: int) -> Path:
    """Six phantoms; two are held out, and one has no label."""
    path = write_cohort(folder, cases=6, size=16, classes=2, spatial_dims=dims)
    described = json.loads(path.read_text())
    described["labels"] = load_bundle("hippocampus_mr").labels
    described["training"][-1].pop("label")
    names = [f"phantom_{n:03d}" for n in range(5)]
    described["folds"] = [names[:2], names[2:]]
    path.write_text(json.dumps(described))
    return path


@pytest.fixture(scope="module", params=[2, 3], ids=["2d", "3d"])
def study(request: pytest.FixtureRequest, tmp_path_factory: Any) -> tuple[Bundle, Path]:
    """A bundle that was trained for an epoch, and its data."""
    folder = tmp_path_factory.mktemp("study")
    bundle, data = tiny(folder, request.param), phantoms(folder / "data", request.param)
    changes = {
        "train#trainer#max_epochs": 1,
        "val_interval": 1,
        "tracking_uri": f"sqlite:///{folder}/mlruns.db",
    }
    train(bundle, data, folder / "run", device="cpu", overrides=changes)
    cases = json.loads((folder / "run" / "cases.json").read_text())
    assert cases["training"] == ["phantom_002", "phantom_003", "phantom_004", "phantom_005"]
    (bundle.root / "models").mkdir(exist_ok=True)
    shutil.copy(folder / "run" / "final.pt", bundle.root / "models" / "model.pt")
    return bundle, data


@pytest.fixture(scope="module")
def marked(study: tuple[Bundle, Path], tmp_path_factory: Any) -> Path:
    """What two labelled cases teach, and the other four."""
    output: Path = tmp_path_factory.mktemp("marked")
    failures = label_efficient(
        study[0], output, data=study[1], cases="phantom_003,phantom_002", device="cpu"
    )
    assert not failures
    return output


def values(folder: Path, pattern: str) -> dict[str, np.ndarray]:
    return {
        p.name: np.asarray(nib.load(p).dataobj) for p in sorted(folder.glob(f"*/{pattern}.nii.gz"))
    }


def test_the_others_are_marked_on_their_own_grids(marked: Path, study: tuple[Bundle, Path]) -> None:
    cases = {case.id: case for case in load_manifest(study[1]).cases}
    names = {"phantom_000", "phantom_001", "phantom_004", "phantom_005"}
    assert {path.parent.name for path in marked.glob("*/*_run.json")} == names
    for name in names:
        image = nib.load(cases[name].images[0])
        maps = {
            kind: nib.load(marked / name / f"{name}_{kind}.nii.gz")
            for kind in ("seg", "mean_anterior", "variance_anterior", "entropy")
        }
        for one in maps.values():
            assert one.shape == image.shape and np.allclose(one.affine, image.affine)
        assert maps["mean_anterior"].get_fdata().min() >= 0.0
        assert maps["variance_anterior"].get_fdata().max() <= 0.25


def test_unseen_structures_are_found(marked: Path, study: tuple[Bundle, Path]) -> None:
    """By probability, since so small a model of images hardly shows its masks in 3D."""
    for case in load_manifest(study[1]).cases[:2]:
        there = nib.load(case.labels[0]).get_fdata() > 0
        maps = values(marked, f"{case.id}_mean_*")
        found = np.sum(list(maps.values()), axis=0)
        assert found[there].mean() > 2.0 * found[~there].mean()


def test_marked_cases_are_compared(marked: Path) -> None:
    report = json.loads((marked / "report" / "report.json").read_text())
    assert {row["case"] for row in report["cases"]} == {
        "phantom_000",
        "phantom_001",
        "phantom_004",
    }
    assert report["settings"]["members"] == 8 and report["settings"]["fusion"] == "majority"


def test_the_record_says_what_was_chosen(marked: Path) -> None:
    record = json.loads((marked / "few_labels.json").read_text())
    page = DOCS / "reference" / "commands_and_files.md"
    assert table_keys(section(page, "### Keys of `few_labels.json`")) == set(record)
    assert record["cases"] == ["phantom_003", "phantom_002"]
    assert len({tuple(pick) for pick in record["locations"]}) == len(record["explained"]) == 6
    assert {noise for noise, _ in record["locations"]} <= {0.1, 0.4}
    assert 0 < record["voxels"] <= 8 * 1000
    assert record["peak_memory_mb"] > 0 and record["seconds"]["all"] > 0


def test_what_was_learned_is_applied_again(
    marked: Path, study: tuple[Bundle, Path], tmp_path: Path
) -> None:
    image = load_manifest(study[1]).cases[0].images[0]
    fitted = marked / "few_labels.pt"
    failures = label_efficient(study[0], tmp_path, inputs=[image], fitted=fitted, device="cpu")
    assert not failures and not (tmp_path / "few_labels.pt").exists()
    again, first = values(tmp_path, "phantom_000_*"), values(marked, "phantom_000_*")
    assert again.keys() == first.keys() and len(again) >= 6
    assert all(np.allclose(again[name], first[name], atol=1e-5) for name in again)


def test_monais_command_does_the_same(
    marked: Path, study: tuple[Bundle, Path], tmp_path: Path
) -> None:
    bundle, data = study
    run(
        config_file=str(bundle.config("label_efficient")),
        bundle_root=str(bundle.root),
        dataset_dir=str(data),
        output_dir=str(tmp_path),
        cases="phantom_003,phantom_002",
        device="$torch.device('cpu')",
    )
    again, first = values(tmp_path, "*_mean_*"), values(marked, "*_mean_*")
    assert again.keys() == first.keys() and len(first) == 8
    assert all(np.allclose(again[name], first[name], atol=1e-5) for name in first)


def test_a_second_call_learns_nothing_again_and_refuses_other_cases(
    marked: Path, study: tuple[Bundle, Path]
) -> None:
    bundle, data = study
    before = {p: p.stat().st_mtime_ns for p in marked.glob("*/*.nii.gz")}
    before[marked / "few_labels.pt"] = (marked / "few_labels.pt").stat().st_mtime_ns
    label_efficient(bundle, marked, data=data, cases="phantom_003, phantom_002", device="cpu")
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    with pytest.raises(InputError, match="other cases or with another seed"):
        label_efficient(bundle, marked, data=data, labelled=1, device="cpu")


def test_one_case_is_enough(study: tuple[Bundle, Path], tmp_path: Path) -> None:
    bundle, data = study
    image = load_manifest(data).cases[1].images[0]
    label_efficient(bundle, tmp_path, inputs=[image], data=data, labelled=1, device="cpu")
    assert (tmp_path / "phantom_001" / "phantom_001_seg.nii.gz").is_file()
    assert len(json.loads((tmp_path / "few_labels.json").read_text())["cases"]) == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "data: is missing"),
        ({"data": True, "labelled": 4}, "1 to 3"),
        (
            {"data": True, "cases": "phantom_000"},
            "no labelled case outside the fold: 'phantom",
        ),
        ({"data": True, "labelled": 1, "cases": "phantom_002"}, "say the same twice"),
        ({"fitted": True, "labelled": 1}, "cannot be used with fitted"),
        ({"fitted": True}, "there is none to mark"),
    ],
)
def test_wrong_calls_are_told(
    given: dict[str, Any], told: str, study: tuple[Bundle, Path], marked: Path, tmp_path: Path
) -> None:
    options = dict(given)
    options |= {"data": study[1]} if "data" in given else {}
    options |= {"fitted": marked / "few_labels.pt"} if "fitted" in given else {}
    with pytest.raises(UsageError, match=told):
        label_efficient(study[0], tmp_path, device="cpu", **options)


def test_perceptrons_of_other_weights_are_refused(
    study: tuple[Bundle, Path], marked: Path, tmp_path: Path
) -> None:
    other = Bundle(Path(shutil.copytree(study[0].root, tmp_path / "other")))
    weights = torch.load(other.weights(), weights_only=True)
    weights["denoiser.unet.head.bias"] += 1.0
    torch.save(weights, other.weights())
    fitted = marked / "few_labels.pt"
    with pytest.raises(InputError, match="other weights than other has"):
        label_efficient(other, tmp_path / "out", inputs=["a.nii"], fitted=fitted, device="cpu")
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"no")
    with pytest.raises(InputError, match="cannot be read as fitted perceptrons"):
        label_efficient(study[0], tmp_path / "out", inputs=["a"], fitted=broken, device="cpu")


def test_a_bundle_of_another_kind_is_told(study: tuple[Bundle, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="label_efficient, multi_gpu_train, train"):
        segment([tmp_path], study[0], tmp_path / "out")


def test_fewer_cases_are_among_the_more(study: tuple[Bundle, Path]) -> None:
    pool = load_manifest(study[1]).split(0)[0]
    drawn = [teaching_cases(pool, n, None, 0) for n in (1, 2, 3)]
    assert drawn[0] == drawn[1][:1] and drawn[1] == drawn[2][:2]
    assert {case.id for case in drawn[2]} == {case.id for case in pool}
