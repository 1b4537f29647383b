"""Whether crops are of a scan's own pixels is told from outlines, and HU from greys."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from benchmarks.nodules.crop_scale import (
    area,
    drawn_by_patient,
    lung_and_tissue,
    matches,
    spacings,
)
from medsegdiff.data import Case, load_manifest
from medsegdiff.phantoms import make_anatomy

PATIENTS, SLICES = 40, 3
SPACINGS = (0.6, 0.75)


def outline(mask: np.ndarray) -> str:
    """The pixels around a disc, in order."""
    edge = np.argwhere(ndimage.binary_dilation(mask) & ~mask)
    middle = edge.mean(axis=0)
    turned = np.argsort(np.arctan2(*(edge - middle).T))
    return "\n".join(f"{x},{y}" for x, y in edge[turned])


def disc(radius: float) -> np.ndarray:
    x, y = np.indices((64, 64)) - 32.0
    return np.hypot(x, y) < radius


def write_set(folder: Path, zoom: float) -> tuple[list[Case], Path]:
    """Crops whose pixels are ``zoom`` times as large as the outlines', and the database."""
    rng, database = np.random.default_rng(0), folder / "outlines.sqlite"
    entries, contour = [], 0
    with sqlite3.connect(database) as db:
        db.execute("CREATE TABLE scans (id, patient_id, pixel_spacing)")
        db.execute("CREATE TABLE annotations (id, scan_id)")
        db.execute("CREATE TABLE contours (id, annotation_id, inclusion, image_z_position, coords)")
        for number in range(PATIENTS):
            masks = [disc(radius) for radius in rng.uniform(5.0, 15.0, SLICES)]
            db.execute(
                "INSERT INTO scans VALUES (?, ?, ?)", (number, f"p{number}", SPACINGS[number % 2])
            )
            db.execute("INSERT INTO annotations VALUES (?, ?)", (number, number))
            for z, mask in enumerate(masks):
                contour += 1
                db.execute(
                    "INSERT INTO contours VALUES (?, ?, 1, ?, ?)",
                    (contour, number, z, outline(mask)),
                )
            label = np.stack(masks, axis=-1)[..., None].astype(np.uint8)
            label = ndimage.zoom(label, (1 / zoom, 1 / zoom, 1, 1), order=0)
            for kind, values in (("image", label[..., 0] * 100), ("label", label)):
                nib.save(nib.Nifti1Image(values, np.eye(4)), folder / f"{kind}{number}.nii.gz")
            entries.append(
                {
                    "image": f"image{number}.nii.gz",
                    "label": f"label{number}.nii.gz",
                    "patient": f"p{number}",
                }
            )
    described = {"name": "crops", "labels": {"0": "background", "1": "nodule"}, "raters": 4}
    (folder / "dataset.json").write_text(json.dumps({**described, "training": entries}))
    return list(load_manifest(folder / "dataset.json").cases), database


@pytest.mark.parametrize(("zoom", "of_the_scan"), [(1.0, True), (1.25, False)])
def test_resampled_crops_do_not_match(zoom: float, of_the_scan: bool, tmp_path: Path) -> None:
    cases, database = write_set(tmp_path, zoom)
    drawn = drawn_by_patient(database, [case.patient for case in cases])
    found = matches(cases, drawn)
    assert (found["of_the_patient"]["same"] == 1.0) == of_the_scan
    assert (found["of_the_patient"]["same"] == 0.0) != of_the_scan
    assert found["of_another_patient"]["same"] == 0.0
    assert set(spacings(cases, drawn).values()) == set(SPACINGS)


def test_the_area_is_that_within_the_outline() -> None:
    assert area(outline(disc(9.0))) == disc(9.0).sum()


def test_the_peaks_of_a_slice() -> None:
    levels = make_anatomy(np.random.default_rng(0), 2, 1, 64, "adjacent")[1][0]
    noise = np.random.default_rng(1).normal(0.0, 3.0, levels.shape)
    plane = np.where(levels > 0, 130.0, 20.0) + noise
    found = lung_and_tissue(plane.clip(0, 255).astype(np.uint8))
    if min((levels > 0).sum(), (levels <= 0).sum()) < 500:
        pytest.fail("the generated plane has too little of one")
    assert found is not None and abs(found[0] - 20) <= 3 and abs(found[1] - 130) <= 3
    assert lung_and_tissue(np.full((64, 64), 7, dtype=np.uint8)) is None
