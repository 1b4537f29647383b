from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose, Resized, SelectItemsd

from medsegdiff.data.fitness import check
from medsegdiff.data.manifest import Manifest, datalist, load_manifest
from medsegdiff.data.named_sets import manifest_names, read_named
from medsegdiff.data.predictions import read_reference
from medsegdiff.data.public.conversion import CONVERTERS
from medsegdiff.data.public.layouts import LAYOUTS
from medsegdiff.data.transforms import LoadCased
from tests.data.public.imitations import READ_IN_PLACE, btcv_averaged

DOCS = Path(__file__).parents[3] / "docs" / "data_sets"


@pytest.fixture(scope="module")
def imitated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    for name, write in READ_IN_PLACE.items():
        write(root / name)
    return root


def named(imitated: Path, name: str) -> Manifest:
    return load_manifest(f"{name}={imitated / name}")


def ids(manifest: Manifest) -> list[str]:
    return [case.id for case in manifest.cases]


def test_every_layout_is_described_imitated_and_documented() -> None:
    described = {name for name in manifest_names() if "layout" in read_named(name)}
    assert described == set(LAYOUTS) == set(READ_IN_PLACE) | set(CONVERTERS)
    for name in described:
        text = (DOCS / f"{LAYOUTS[name].page}.md").read_text("utf-8")
        assert re.search(rf"\b{name}\b", text), name
        assert read_named(name)["layout"] == name


@pytest.mark.parametrize("name", READ_IN_PLACE)
def test_check_finds_each_imitation_fit(imitated: Path, name: str) -> None:
    report = check(named(imitated, name))
    assert report.fit, report.problems
    counted = [p for p in report.problems if "published cases" not in p.rule]
    assert all("never occurs" in problem.rule for problem in counted), counted
    assert report.facts["labelled"] == report.facts["cases"] == report.facts["readable"] > 2


@pytest.mark.parametrize("name", READ_IN_PLACE)
def test_a_training_batch_of_each(imitated: Path, name: str) -> None:
    manifest = named(imitated, name)
    training, _ = manifest.split(0)
    keys = ("image", "label")
    size = (8,) * manifest.spatial_dims
    chain = Compose(
        [
            LoadCased(manifest.spatial_dims, len(manifest.channels), list(manifest.labels)),
            Resized(keys, size, mode=("bilinear", "nearest")),
            SelectItemsd(keys),
        ]
    )
    dataset = CacheDataset(datalist(training[:2]), chain, progress=False)
    batch = next(iter(DataLoader(dataset, batch_size=2)))
    assert batch["image"].shape == (len(training[:2]), len(manifest.channels), *size)
    assert set(torch.unique(batch["label"]).tolist()) <= set(manifest.labels)
    assert batch["label"].max() > 0


@pytest.mark.parametrize("name", READ_IN_PLACE)
def test_folds_divide_the_patients_and_leave_out_the_test(imitated: Path, name: str) -> None:
    manifest = named(imitated, name)
    listed = [patient for fold in (*manifest.folds, manifest.test) for patient in fold]
    assert sorted(listed) == sorted({case.patient for case in manifest.cases})
    for fold in range(len(manifest.folds)):
        used = [case.patient for side in manifest.split(fold) for case in side]
        assert not set(used) & set(manifest.test)


def test_the_test_is_a_fold_of_its_own(imitated: Path) -> None:
    training, test = named(imitated, "acdc").split("test")
    assert {case.patient for case in training} == {"patient001", "patient002", "patient003"}
    assert [case.id for case in test] == ["patient101_frame01", "patient101_frame14"]


@pytest.mark.parametrize("name", ["brats2020", "brats2021", "brats2023"])
def test_brats_channels_and_labels(imitated: Path, name: str) -> None:
    manifest = named(imitated, name)
    assert manifest.channels == ("T1", "T1 with contrast", "T2", "FLAIR")
    suffixes = [path.name.split(".")[0][-3:] for path in manifest.cases[0].images]
    expected = ["t1n", "t1c", "t2w", "t2f"] if name == "brats2023" else ["_t1", "1ce", "_t2", "air"]
    assert suffixes == expected
    for case in manifest.cases:
        annotations, _ = read_reference(case, manifest)
        assert np.unique(annotations).tolist() == [0, 1, 2, 3]


def test_scans_of_a_brats_patient_stay_together(imitated: Path) -> None:
    manifest = named(imitated, "brats2023")
    assert [case.patient for case in manifest.cases][1:] == ["BraTS-GLI-00002"] * 2


def test_official_parts_of_isic(imitated: Path) -> None:
    training, validation = named(imitated, "isic2018").split(0)
    assert [case.id for case in training] == [f"ISIC_{i:07d}" for i in range(3)]
    assert [case.id for case in validation] == [f"ISIC_{i:07d}" for i in range(10, 13)]
    assert named(imitated, "isic2018").test == tuple(f"ISIC_{i:07d}" for i in range(20, 23))


def test_training_of_isic_alone_gets_folds(imitated: Path, tmp_path: Path) -> None:
    for folder in (imitated / "isic2018").glob("*Training*"):
        inner = tmp_path / folder.name / folder.name  # unpacked into a folder of the archive's name
        shutil.copytree(folder, inner)
    manifest = load_manifest(f"isic2018={tmp_path}")
    assert (len(manifest.cases), len(manifest.folds), manifest.test) == (3, 3, ())
    warnings = [problem.rule for problem in check(manifest).problems]
    assert warnings == ["3 of the 3694 published cases are here"]


def test_masks_of_refuge_mean_disc_and_cup(imitated: Path) -> None:
    manifest = named(imitated, "refuge2")
    assert len(manifest.cases) == 12 and "refuge1-train_g0001" in ids(manifest)
    for case in manifest.cases:
        (annotation,), _ = read_reference(case, manifest)
        assert annotation[0, 0] == 2 and annotation[4, 0] == 1 and annotation[15, 0] == 0
    training, validation = manifest.split(0)
    assert {case.id[:7] for case in training} == {"refuge1"}
    assert {case.id[:11] for case in validation} == {"refuge2-val"}


def test_frames_of_acdc_are_those_of_info_cfg(imitated: Path) -> None:
    manifest = named(imitated, "acdc")
    assert ids(manifest)[:4] == [
        *("patient001_frame01", "patient001_frame12"),
        *("patient002_frame01", "patient002_frame09"),
    ]
    assert [case.patient for case in manifest.cases][:2] == ["patient001"] * 2


@pytest.mark.parametrize(
    ("name", "numbers"), [("amos", (8, 13, 510, 1, 4, 507, 540)), ("amos_ct", (8, 13, 1, 4))]
)
def test_amos_validation_is_the_first_fold(
    imitated: Path, name: str, numbers: tuple[int, ...]
) -> None:
    manifest = named(imitated, name)
    assert ids(manifest) == [f"amos_{n:04d}" for n in numbers]
    assert {c.images[0].parent.name for c in manifest.split(0)[1]} == {"imagesVa"}


def test_averaged_files_of_btcv(tmp_path: Path) -> None:
    report = check(f"btcv={btcv_averaged(tmp_path)}")
    assert report.fit and report.facts["labelled"] == 3


def test_folds_of_tn3k_are_the_authors(imitated: Path) -> None:
    manifest = named(imitated, "tn3k")
    assert manifest.folds == tuple((f"trainval_000{k}",) for k in range(5))
    assert manifest.test == ("test_0000", "test_0001")


def test_one_fold_of_tn3k_divides_the_cases(imitated: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(imitated / "tn3k", tmp_path / "tn3k"))
    for k in (1, 2, 3, 4):
        (root / f"tn3k-trainval-fold{k}.json").unlink()
    training, validation = load_manifest(f"tn3k={root}").split(0)
    assert (len(training), [case.id for case in validation]) == (4, ["trainval_0000"])


def test_fold_file_of_another_set(imitated: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(imitated / "tn3k", tmp_path / "tn3k"))
    (root / "tn3k-trainval-fold3.json").write_text(json.dumps({"val": [900]}))
    with pytest.raises(Exception, match="does not list cases of this set"):
        load_manifest(f"tn3k={root}")


def test_a_real_decathlon_folder(shared_data: Path) -> None:
    if not (shared_data / "hippocampus").is_dir():
        pytest.skip("the hippocampus is not among the real data")
    manifest = load_manifest(f"msd_hippocampus={shared_data / 'hippocampus'}")
    assert manifest.labels == {0: "background", 1: "Anterior", 2: "Posterior"}
    assert len(manifest.cases) == 208
