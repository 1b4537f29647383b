"""Places that a small network finds: from boxes of a map to the place in the scan, and training."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medsegdiff.bundle.bundle import LOCATOR_FILE as LOCATOR
from medsegdiff.core.errors import InputError
from medsegdiff.data.manifest import load_manifest
from medsegdiff.locating.network_locator import NetworkLocator, pieces
from medsegdiff.locating.train_locator import train_locator
from medsegdiff.networks.encoder import ImageEncoder

AFFINE = np.array([[-3.0, 0, 0, 60.0], [0, 0, 2.0, -30.0], [0, 2.0, 0, -40.0], [0, 0, 0, 1]])
"""Voxels of 3 x 2 x 2 mm, stored as L, S, A."""


SPACING = (8.0, 8.0, 8.0)


def network() -> ImageEncoder:
    torch.manual_seed(0)
    return ImageEncoder(3, 1, 2, channels=(8, 16, 32))


def head(centre: tuple[float, float, float], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A volume of noise with a bright ball of 16 mm radius, and its mask."""
    rng, shape = np.random.default_rng(seed), (40, 44, 48)
    at = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    world = at @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    ball = np.linalg.norm(world - centre, axis=-1) < 16.0
    return rng.normal(size=shape).astype(np.float32) + 8.0 * ball, ball.astype(np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with a trained locator."""
    folder = tmp_path_factory.mktemp("heads")
    rng, entries = np.random.default_rng(1), []
    for i in range(6):
        image, label = head(tuple(rng.uniform(-15.0, 15.0, 3)), i)
        for name, values in (("image", image), ("label", label)):
            nib.save(nib.Nifti1Image(values, AFFINE), folder / f"{name}{i}.nii.gz")
        entries.append({"image": f"image{i}.nii.gz", "label": f"label{i}.nii.gz"})
    described = {
        **{"name": "balls", "tensorImageSize": "3D", "modality": {"0": "MR"}},
        **{"labels": {"0": "background", "1": "ball"}, "training": entries},
    }
    (folder / "dataset.json").write_text(json.dumps(described))
    manifest = load_manifest(folder)
    train_locator(network(), manifest.cases, manifest, folder, spacing=SPACING, steps=200)
    return folder


@pytest.mark.parametrize("centre", [(-12.0, 10.0, 0.0), (14.0, -8.0, 9.0)])
def test_a_structure_is_found_where_it_is(run: Path, centre: tuple[float, float, float]) -> None:
    image, _ = head(centre, seed=99)
    scan = MetaTensor(torch.from_numpy(image)[None], affine=torch.as_tensor(AFFINE))
    located = NetworkLocator(network(), run / LOCATOR, SPACING)(scan)
    (place,) = located.places
    assert located.by == "network" and located.score is not None and located.score > 0.5
    assert place.centre == pytest.approx(centre, abs=9.0)
    low, high = place.box_mm
    assert all(a <= c - 15.0 and c + 15.0 <= b for a, b, c in zip(low, high, centre, strict=True))
    assert max(place.size) < 75.0


def test_training_that_is_done_is_not_done_again(run: Path) -> None:
    before = (run / LOCATOR).stat().st_mtime_ns
    manifest = load_manifest(run)
    train_locator(network(), manifest.cases, manifest, run, spacing=SPACING, steps=1)
    assert (run / LOCATOR).stat().st_mtime_ns == before


def test_training_follows_its_seed(run: Path, tmp_path: Path) -> None:
    manifest = load_manifest(run)
    for name in "ab":
        torch.manual_seed(ord(name))
        (tmp_path / name).mkdir()
        where = tmp_path / name
        train_locator(network(), manifest.cases, manifest, where, spacing=SPACING, steps=2, seed=3)
    first, second = (torch.load(tmp_path / name / LOCATOR, weights_only=True) for name in "ab")
    assert all(torch.equal(value, second[0][key]) for key, value in first[0].items())


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    locator = NetworkLocator(network(), tmp_path / LOCATOR, SPACING)
    with pytest.raises(InputError, match=r"locator\.pt.*Train the bundle"):
        locator(MetaTensor(torch.zeros(1, 8, 8, 8)))


def test_pieces_that_meet_are_one_and_specks_are_none() -> None:
    probability = np.zeros((40, 40, 40), np.float32)
    probability[4:14, 4:14, 4:14] = 0.9
    probability[15:20, 4:14, 4:14] = 0.8  # its box meets the first
    probability[28:36, 28:36, 28:36] = 0.7
    probability[2, 38, 2] = 0.99  # a speck
    found = pieces(probability, margin=0.25)
    assert [round(score, 2) for _, score in found] == [0.9, 0.7]
    first = found[0][0]
    assert (first[0].start, first[0].stop) == (1, 22) and first[1].stop == 17


def test_where_nothing_is_likely_the_likeliest_is_taken() -> None:
    probability = np.full((20, 20, 20), 0.01, np.float32)
    probability[5:9, 5:9, 5:9] = 0.1
    ((box, score),) = pieces(probability, margin=0.25)
    assert score == pytest.approx(0.1)
    assert all(side.start == 3 and side.stop == 11 for side in box)
