"""A data set of DICOM folders with SEG and RTSTRUCT labels goes all the way."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.cases.job import segment
from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry
from medsegdiff.data.dicom import find_series, read_series
from medsegdiff.data.fitness import check
from medsegdiff.data.manifest import datalist, load_manifest
from medsegdiff.data.transforms import LoadCased, load
from medsegdiff.evaluation.folder import evaluate
from medsegdiff.phantoms.cohort import write_dicom_series
from medsegdiff.training.run import train
from medsegdiff.writers.dicom_seg import write_binary_seg
from medsegdiff.writers.segments import segments_of
from tests.dicom_sources import frame_of_reference_of, to_lps, write_rtstruct
from tests.tiny_bundle import quick

pytestmark = pytest.mark.filterwarnings("ignore:The string .* is unlikely to represent")


def pixels_as_contours(plane: np.ndarray, k: int) -> list[np.ndarray]:
    """A square around each pixel (n, 3), in voxels: together, exactly the pixels."""
    corners = np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]])
    return [corners + np.array([i, j, k]) for i, j in np.argwhere(plane)]


def write_label(file: Path, mask: np.ndarray, geometry: Geometry, names: dict[int, str]) -> None:
    if file.name == "seg.dcm":
        write_binary_seg(file, mask, geometry, segments_of(names))
        return
    regions = {
        names[value].upper(): [
            to_lps(geometry, contour)
            for k in range(mask.shape[2])
            for contour in pixels_as_contours(mask[..., k] == value, k)
        ]
        for value in (2, 1)
    }
    write_rtstruct(file, regions | {"BODY": []}, frame_of_reference_of(geometry))


@pytest.fixture(scope="session")
def dicom_cohort(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cohort as DICOM: a folder a case, that holds its SEG or, in turn, its RTSTRUCT."""
    folder = tmp_path_factory.mktemp("dicom")
    described = json.loads(cohort.read_text(encoding="utf-8"))
    names = {int(value): name for value, name in described["labels"].items()}
    entries = []
    for number, case in enumerate(load_manifest(cohort).cases):
        image, label = nib.load(case.images[0]), nib.load(case.labels[0])
        values = np.asarray(image.dataobj)
        volume = (values - values.min()).astype(np.uint16)
        write_dicom_series(volume, image.affine, folder / case.id, patient=case.id)
        (series,) = find_series(folder / case.id)
        geometry = read_series(series)[1]
        name = ("seg.dcm", "rtstruct.dcm")[number % 2]
        # read_series orders the slices along the normal, which may be against the file's order
        voxel = np.linalg.inv(image.affine) @ geometry.affine
        mask = np.asarray(label.dataobj)[..., :: -1 if voxel[2, 2] < 0 else 1]
        write_label(folder / case.id / name, mask, geometry, names)
        files = {"image": case.id, "label": f"{case.id}/{name}"}
        entries.append({"case": f"{case.id}_dicom", **files, "patient": case.id})
    described |= {"training": entries}
    (folder / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    return folder / "dataset.json"


def test_labels_are_those_of_the_niftis(cohort: Path, dicom_cohort: Path) -> None:
    nifti, dicom = load_manifest(cohort), load_manifest(dicom_cohort)
    for ours, theirs in zip(datalist(dicom.cases), datalist(nifti.cases), strict=True):
        found = load(LoadCased(references=dicom.references), ours)
        expected = load(LoadCased(), theirs)
        flip = found["label"].affine[2, 2] * expected["label"].affine[2, 2] < 0
        label = found["label"].flip(-1) if flip else found["label"]
        np.testing.assert_array_equal(label.numpy(), expected["label"].numpy())
        assert (label > 0).any()


def test_check_finds_it_fit(dicom_cohort: Path) -> None:
    report = check(dicom_cohort)
    assert report.fit and report.problems == ()
    assert all(voxels > 0 for voxels in report.facts["label_voxels"].values())


def test_a_loader_without_names_says_what_it_needs(dicom_cohort: Path) -> None:
    manifest = load_manifest(dicom_cohort)
    item = datalist(manifest.cases)[0]
    with pytest.raises(InputError, match=r"its structures are not assigned.*@manifest\.references"):
        load(LoadCased(labels=list(manifest.labels)), item)
    assert load(LoadCased(labels=manifest.labels), item)["label"].any()


def test_train_segment_and_evaluate(
    untrained: Bundle, bundle: Bundle, dicom_cohort: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(untrained, dicom_cohort, run, device="cpu", overrides=quick(run))
    assert (run / "final.pt").is_file()
    out = tmp_path / "out"
    failed = segment(
        [dicom_cohort], bundle, out, members=2, steps=1, formats=("nifti", "dicom-seg")
    )
    assert failed == {}
    manifest = load_manifest(dicom_cohort)
    assert {p.name for p in out.iterdir() if p.is_dir()} == {case.id for case in manifest.cases}
    assert evaluate(dicom_cohort, out, tmp_path / "report") == {}
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert len(report["cases"]) == 5 and report["without_prediction"] == 0
    case = manifest.cases[0].id
    written = {p.name for p in (out / case).iterdir()}
    maps = {f"{case}_variance_{name}.dcm" for name in ("anterior", "posterior")}
    assert maps | {f"{case}_seg.dcm", f"{case}_mean.dcm", f"{case}_seg.ctbl"} <= written
    from highdicom.seg import segread

    (drawn,) = (
        segread(out / case / f"{case}_seg.dcm")
        .SegmentSequence[0]
        .SegmentationAlgorithmIdentificationSequence
    )
    version = bundle.metadata["version"]
    assert (drawn.AlgorithmName, drawn.AlgorithmVersion) == (bundle.name, version)
