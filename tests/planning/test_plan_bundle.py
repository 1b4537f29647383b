"""A planned bundle trains and segments without an edited line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from medsegdiff.bundle import trusted_bundles, validate
from medsegdiff.bundle.bundle import load_bundle
from medsegdiff.cases.job import segment
from medsegdiff.cli.main import app
from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.phantoms.cohort import write_cohort
from medsegdiff.planning import plan_bundle
from medsegdiff.planning.plan_bundle import plan
from medsegdiff.segmentation.blend import places_of
from medsegdiff.segmentation.sliding_window import EnsembleInferer
from medsegdiff.training.run import train

RUNNER = CliRunner()


def photographs(folder: Path, cases: int = 6) -> Path:
    """Pictures with a bright disc, and their masks, described by a ``dataset.json``."""
    rng, entries = np.random.default_rng(0), []
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for i in range(cases):
        y, x = np.mgrid[:48, :40]
        disc = (x - rng.uniform(14, 26)) ** 2 + (y - rng.uniform(16, 30)) ** 2 < 80
        grey = rng.normal(60, 10, disc.shape) + 90 * disc
        Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(folder / f"imagesTr/p{i}.png")
        Image.fromarray(disc.astype(np.uint8)).save(folder / f"labelsTr/p{i}.png")
        entries.append({"image": f"imagesTr/p{i}.png", "label": f"labelsTr/p{i}.png"})
    described = {
        "name": "discs",
        "tensorImageSize": "2D",
        "modality": {"0": "grey"},
        "labels": {"0": "background", "1": "disc"},
        "training": entries,
    }
    path = folder / "dataset.json"
    path.write_text(json.dumps(described))
    return path


def trained(root: Path, data: Path, output: Path) -> None:
    """Train a planned bundle for two epochs, the second of which is the denoiser's."""
    overrides: dict[str, Any] = {
        "train#trainer#max_epochs": 2,
        "val_interval": 2,
        "anchor_steps": 1,
        "tracking_uri": f"sqlite:///{output.parent}/mlruns.db",
    }
    train(root, data, output, device="cpu", overrides=overrides)
    (root / "models").mkdir()
    (output / "final.pt").rename(root / "models" / "model.pt")
    if (output / "locator.pt").exists():
        (output / "locator.pt").rename(root / "models" / "locator.pt")


def failed_checks(root: Path) -> set[str]:
    """The checks of MONAI's model zoo that a bundle does not pass."""
    return {result.name for result in validate(root) if result.outcome == "failed"}


@pytest.mark.parametrize("raters", [1, 3])
def test_volumes(raters: int, tmp_path: Path) -> None:
    data = write_cohort(tmp_path / "data", cases=5, size=16, classes=2, raters=raters)
    root = tmp_path / "mine"
    bundle = plan(data, root, hours=0.001, device="cpu")
    assert bundle.name == "mine" and len(bundle.labels) == 3
    assert failed_checks(root) == {"weight_file"}
    trained(root, data, tmp_path / "run")
    assert failed_checks(root) == set()
    image = sorted((data.parent / "imagesTr").glob("*.nii.gz"))[0]
    assert segment(image, root, tmp_path / "out", members=2, device="cpu") == {}
    name = image.name.removesuffix(".nii.gz")
    mask = nib.load(tmp_path / "out" / name / f"{name}_seg.nii.gz")
    assert mask.shape == nib.load(image).shape


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
def test_the_training_has_the_order_of_features_that_was_faster(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_bundle, "faster", lambda *_: layout)
    data, root = photographs(tmp_path / "data"), tmp_path / "discs"
    bundle = plan(data, root, hours=0.001, device="cpu")
    assert json.loads((root / "plan.json").read_text())["plan"]["layout"] == layout
    network = bundle.parser("train", {"fold": 0}).get_parsed_content("network")
    weights = [one for one in network.parameters() if one.ndim == 4 and min(one.shape) > 1]
    last = layout == "channels_last"
    assert all(one.is_contiguous(memory_format=torch.channels_last) == last for one in weights)


@pytest.mark.parametrize("size", [(48, 40), (100, 40), (130, 129), (48, 300), (20, 20)])
def test_windows_are_counted_as_they_are_cut(size: tuple[int, int]) -> None:
    inferer = EnsembleInferer(window=(48, 40), overlap=0.25)
    roi = [min(n, side) for n, side in zip(size, inferer.window, strict=True)]
    assert plan_bundle._windows(size, inferer) == len(places_of(size, roi, 0.25))


def small_structures(folder: Path, cases: int = 5) -> Path:
    """Volumes of 36 voxels with a ball of 5 to 6.5 voxels, which lies anywhere."""
    rng = np.random.default_rng(0)
    at = np.stack(np.meshgrid(*[np.arange(36)] * 3, indexing="ij"), axis=-1)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for i in range(cases):
        ball = np.linalg.norm(at - rng.uniform(8, 28, 3), axis=-1) < rng.uniform(5, 6.5)
        image = rng.normal(size=ball.shape).astype(np.float32) + 5.0 * ball
        for name, values in (("images", image), ("labels", ball.astype(np.uint8))):
            nib.save(nib.Nifti1Image(values, np.eye(4)), folder / name / f"case{i}.nii.gz")
    return folder


@pytest.mark.long
def test_small_structures_are_looked_for_first(tmp_path: Path) -> None:
    data, root = small_structures(tmp_path / "data"), tmp_path / "balls"
    plan(data, root, hours=0.001, device="cpu")
    content = json.loads((root / "plan.json").read_text())["plan"]
    assert max(content["patch"]) <= 24 and content["coarse"]["steps"] >= 50
    assert "| `coarse` | box of" in (root / "plan.md").read_text()
    trained(root, data, tmp_path / "run")
    image = data / "images" / "case0.nii.gz"
    assert segment(image, root, tmp_path / "out", members=2, device="cpu") == {}
    record = json.loads((tmp_path / "out" / "case0" / "case0_run.json").read_text())
    assert record["location"]["by"] == "network"
    crop = nib.load(image).slicer[2:34, 2:34, 2:34]  # hardly larger than the box, and looked in too
    nib.save(crop, tmp_path / "crop.nii.gz")
    assert segment(tmp_path / "crop.nii.gz", root, tmp_path / "out", members=2, device="cpu") == {}
    record = json.loads((tmp_path / "out" / "crop" / "crop_run.json").read_text())
    assert record["location"]["by"] == "network"
    assert nib.load(tmp_path / "out" / "case0" / "case0_seg.nii.gz").shape == (36, 36, 36)


@pytest.mark.long
def test_a_folder_a_case_from_plan_to_mask(tmp_path: Path) -> None:
    rng, data, root = np.random.default_rng(0), tmp_path / "data", tmp_path / "lesions"
    at = np.stack(np.meshgrid(*[np.arange(16)] * 3, indexing="ij"), axis=-1)
    for i in range(5):
        (data / f"p{i}").mkdir(parents=True)
        ball = np.linalg.norm(at - rng.uniform(6, 10, 3), axis=-1) < 4
        for name, sign in (("t1", -1.0), ("flair", 1.0)):
            values = (rng.normal(size=ball.shape) + 4.0 * sign * ball).astype(np.float32)
            nib.save(nib.Nifti1Image(values, np.eye(4)), data / f"p{i}" / f"p{i}_{name}.nii.gz")
        label = nib.Nifti1Image(ball.astype(np.uint8), np.eye(4))
        nib.save(label, data / f"p{i}" / f"p{i}_seg.nii.gz")
    bundle = plan(data, root, hours=0.001, device="cpu")
    assert bundle.channels == ("flair", "t1")
    trained(root, data, tmp_path / "run")
    (data / "p0" / "p0_seg.nii.gz").unlink()  # as a new patient comes
    assert segment(data, root, tmp_path / "out", members=2, device="cpu") == {}
    named = sorted(path.parent.name for path in (tmp_path / "out").glob("*/*_seg.nii.gz"))
    assert named == [f"p{i}" for i in range(5)]


def test_photographs(tmp_path: Path) -> None:
    data, root = photographs(tmp_path / "data"), tmp_path / "discs"
    plan(data, root, hours=0.001, device="cpu")
    trained(root, data, tmp_path / "run")
    image = data.parent / "imagesTr" / "p0.png"
    assert segment(image, root, tmp_path / "out", members=2, device="cpu") == {}
    assert (tmp_path / "out" / "p0" / "p0_seg.nii.gz").is_file()


@pytest.mark.parametrize("pictures", [True, False], ids=["pictures", "volumes"])
def test_augmentation_leaves_the_cached_images_as_they_are(pictures: bool, tmp_path: Path) -> None:
    data = (
        photographs(tmp_path / "data")
        if pictures
        else write_cohort(tmp_path / "data", cases=5, size=16)
    )
    planned = plan(data, tmp_path / "planned", hours=0.001, device="cpu")
    parser = load_bundle(planned.root).parser("train", {"dataset_dir": str(data), "fold": 0})
    for transform in parser["random_transforms"]:
        if "prob" in transform:
            transform["prob"] = 1.0
    dataset = parser.get_parsed_content("train#dataset")
    before = [{key: x.clone() for key, x in item.items()} for item in dataset._cache]
    for index in range(len(dataset)):
        assert not torch.equal(dataset[index]["image"], dataset[index]["image"])
    for kept, item in zip(before, dataset._cache, strict=True):
        assert all(torch.equal(kept[key], item[key]) for key in kept)


def test_thick_slices(tmp_path: Path) -> None:
    data = write_cohort(tmp_path / "data", cases=5, size=16)
    for path in (data.parent).rglob("*.nii.gz"):
        image = nib.load(path)
        thick = nib.Nifti1Image(
            np.asanyarray(image.dataobj)[..., ::3], image.affine @ np.diag([1, 1, 6, 1])
        )
        nib.save(thick, path)
    root = tmp_path / "stacks"
    bundle = plan(data, root, hours=0.001, device="cpu")
    content = json.loads((bundle.root / "plan.json").read_text())["plan"]
    assert content["dims"] == 2 and content["slices"] and content["spacing"][2] == -1
    trained(root, data, tmp_path / "run")
    image = sorted((data.parent / "imagesTr").glob("*.nii.gz"))[0]
    assert segment(image, root, tmp_path / "out", members=2, device="cpu") == {}


def test_a_training_step_that_fits_no_memory_is_refused(tmp_path: Path) -> None:
    data = write_cohort(tmp_path / "data", cases=5, size=16)
    line = ["plan", str(data), "--output", str(tmp_path / "mine"), "--hours", "0.001", "-q"]
    result = RUNNER.invoke(app, [*line, "--memory", "0.001", "--device", "cpu"])
    assert result.exit_code == 1 and "even with the smallest patch. Allow more" in result.output
    result = RUNNER.invoke(app, [*line, "--device", "cpu"])
    assert result.exit_code == 0 and result.stdout == ""


def test_the_plan_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_cohort(tmp_path / "data", cases=5, size=16)
    line = ["plan", str(data), "--output", str(tmp_path / "mine"), "--hours", "0.001"]
    result = RUNNER.invoke(app, [*line, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "mine" / "plan.md").read_text()
    assert "| `patch` |" in page and "rotation" in result.output
    assert load_bundle(tmp_path / "mine").configs == [
        *("calibrate", "evaluate", "inference", "member_agreement", "multi_gpu_train", "train"),
    ]
    assert RUNNER.invoke(app, [*line, "--device", "cpu"]).exit_code == 1  # it is there already
    monkeypatch.setattr(trusted_bundles, "_known", set())  # as in another process
    path = tmp_path / "mine" / "configs" / "train.yaml"
    path.write_text(path.read_text().replace("\nexperiment_name: ", "\nexperiment_name: my_"))
    load_bundle(tmp_path / "mine").parser("train")  # it may run, with other values too


def test_what_cannot_be_planned_is_refused(tmp_path: Path) -> None:
    data = write_cohort(tmp_path / "data", cases=5, size=16)
    with pytest.raises(UsageError, match="must be above 0"):
        plan(data, tmp_path / "a", hours=0.0)
    with pytest.raises(InputError, match="Allow more --memory"):
        plan(data, tmp_path / "b", hours=0.001, memory=1e-3, device="cpu")
    next((data.parent / "labelsTr").glob("*.nii.gz")).unlink()
    with pytest.raises(InputError, match=r"not fit to train on.*label of an image is missing"):
        plan(data, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_ct_is_scaled_alike_in_all_images(tmp_path: Path) -> None:
    data = write_cohort(tmp_path / "data", cases=4, size=16, classes=1)
    described = json.loads(data.read_text())
    described["modality"] = described["channel_names"] = {"0": "CT"}
    data.write_text(json.dumps(described))
    for path in (data.parent / "imagesTr").glob("*.nii.gz"):
        image = nib.load(path)
        values = image.get_fdata()
        units = 200.0 * (values - values.mean()) / values.std() - 100.0
        units[:2] = -1000.0
        nib.save(nib.Nifti1Image(units.astype(np.int16), image.affine), path)
    root = tmp_path / "ct"
    bundle = plan(data, root, hours=0.001, device="cpu")
    decided = json.loads((root / "plan.json").read_text())
    assert decided["plan"]["normalisation"] == "ct"
    mean, deviation, low, high = decided["fingerprint"]["intensity"][0]
    chain = bundle.parser("inference").get_parsed_content("preprocessing")
    scale = chain.transforms[-1]
    given = torch.tensor([[mean, mean + deviation / 2, low - 500.0, high + 500.0]])
    limits = [0.0, 0.5, (low - mean) / deviation, (high - mean) / deviation]
    found = scale({"image": given})["image"]
    assert found.flatten().tolist() == pytest.approx(limits, abs=1e-3)
