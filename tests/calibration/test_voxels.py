"""The voxels that a calibration is fitted to."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medsegdiff.calibration import voxels as voxels_module
from medsegdiff.calibration.voxels import (
    CaseVoxels,
    near_structure,
    read_case_voxels,
    sampled_voxels,
)
from medsegdiff.core.errors import InputError
from medsegdiff.metrics.calibration_error import region_of_interest


@pytest.mark.parametrize("shape", [(30, 24), (16, 14, 12)])
def test_what_is_to_be_ignored_is_not_among_them(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    foreground = rng.random(shape) * (np.indices(shape)[1] < 8)
    reference = (foreground > 0.5).astype(np.uint8)
    known = np.indices(shape)[0] > 5
    probability = np.stack([1.0 - foreground, foreground])
    share = np.stack([reference == 0, reference == 1]) * known
    roi = [region_of_interest((reference > 0) & known)] * 2

    def voxels(p: np.ndarray) -> CaseVoxels:
        spacing = (1.0,) * len(shape)
        return sampled_voxels("a", "a", p, share, reference, roi, spacing, None, known)

    found = voxels(probability)
    assert found.weight.sum() == pytest.approx(known.sum())
    other = voxels(np.where(known, probability, probability[::-1]))
    for name in ("probability", "share", "reference", "weight", "region", "class_roi"):
        assert np.array_equal(getattr(found, name), getattr(other, name))


def ball(shape: tuple[int, ...], spacing: tuple[float, ...], radius: float) -> np.ndarray:
    """A ball in mm around the middle voxel."""
    middle = np.array(shape) // 2
    away = (np.indices(shape).T - middle) * spacing
    return np.asarray(radius >= np.sqrt((away**2).sum(axis=-1)).T)


@pytest.mark.parametrize(
    ("shape", "spacing", "radius"),
    [
        ((61, 61), (1.0, 1.0), 10.0),
        ((61, 41), (0.5, 1.0), 8.0),
        ((41, 41, 21), (1.0, 1.0, 2.0), 9.0),
    ],
)
def test_the_margin_is_a_quarter_of_the_diameter(
    shape: tuple[int, ...], spacing: tuple[float, ...], radius: float
) -> None:
    marked = ball(shape, spacing, radius)
    share = np.stack([~marked, marked]).astype(float)
    sure = np.stack([np.ones(shape), np.zeros(shape)])
    found = near_structure(sure, share, spacing)
    margin = 0.25 * 2 * radius
    inner, outer = (ball(shape, spacing, radius + margin + d) for d in (-1.5, 1.5))
    assert (found >= inner).all() and (found <= outer).all()


def test_a_small_structure_has_a_margin_of_one_voxel() -> None:
    share = np.stack([np.ones((9, 9)), np.zeros((9, 9))])
    share[:, 4, 4] = 0.0, 1.0
    sure = np.stack([np.ones((9, 9)), np.zeros((9, 9))])
    found = near_structure(sure, share, (1.0, 2.0))
    # the coarser axis decides: two mm along each
    assert np.flatnonzero(found[:, 4]).tolist() == [2, 3, 4, 5, 6]
    assert np.flatnonzero(found[4]).tolist() == [3, 4, 5]


def test_what_the_ensemble_points_at_counts_as_well() -> None:
    share = np.stack([np.ones((30, 30)), np.zeros((30, 30))])
    p = np.zeros((30, 30))
    assert not near_structure(np.stack([1 - p, p]), share, (1.0, 1.0)).any()
    p[10, 10] = 0.0051  # above the lowest threshold
    assert near_structure(np.stack([1 - p, p]), share, (1.0, 1.0)).sum() == 5
    p[10, 10] = 0.0049
    assert not near_structure(np.stack([1 - p, p]), share, (1.0, 1.0)).any()
    p[8:14, 8:14] = 0.6  # without a reference its own size decides: a disc of 36 voxels
    found = near_structure(np.stack([1 - p, p]), share, (1.0, 1.0))
    margin = 0.25 * (36 * 4 / np.pi) ** 0.5
    assert found[7, 10] and found[7, 7] == (margin >= 2**0.5) and not found[6, 10]
    everywhere = np.full((2, 30, 30), 0.5)
    assert near_structure(everywhere, share, (1.0, 1.0)).all()


def sampled(shape: tuple[int, ...], inside: np.ndarray, **options: Any) -> CaseVoxels:
    p = np.random.default_rng(0).uniform(0.1, 0.9, shape) * inside
    reference = (p > 0.5).astype(np.uint8)
    share = np.stack([reference == 0, reference == 1]).astype(float)
    roi = [inside, inside]
    return sampled_voxels(
        "c", "p", np.stack([1 - p, p]), share, reference, roi, (1.0, 1.0), **options
    )


def test_of_a_large_image_so_many_are_drawn_and_stand_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(voxels_module, "MOST_INSIDE", 40)
    monkeypatch.setattr(voxels_module, "MOST_OUTSIDE", 10)
    inside = np.zeros((30, 30), bool)
    inside[:10] = True
    found = sampled((30, 30), inside, run={"seed": 1})
    region = found.class_roi[0] | found.region
    assert region.sum() == 40 and len(found.weight) == 50
    assert (found.case, found.patient, found.run) == ("c", "p", {"seed": 1})
    near = found.weight[0] * 40
    np.testing.assert_allclose(found.weight[:40], near / 40)
    np.testing.assert_allclose(found.weight[40:], (900 - near) / 10)
    assert found.region_size == pytest.approx(found.weight[found.region].sum())
    assert found.probability.dtype == found.share.dtype == np.float32
    np.testing.assert_array_equal(found.share[1] > 0.5, found.reference == 1)
    other = sampled((30, 30), inside)
    np.testing.assert_array_equal(found.probability, other.probability)  # the same each time
    assert len(np.unique(found.probability[1, :40])) > 30 and other.run == {}


def test_an_image_without_anything_is_judged_as_a_whole() -> None:
    found = sampled((6, 5), np.zeros((6, 5), bool))
    assert not found.region.any() and found.region_size == 30.0
    assert found.weight.tolist() == [1.0] * 30


def test_a_mask_alone_or_calibrated_maps_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = {
        "has no maps and no record: a mask alone cannot be calibrated. "
        "Segment the case with medsegdiff": {},
        "was segmented with a calibration, which would be fitted on top of itself. "
        "Segment it into another folder with --calibration off": {"calibrated": True},
    }
    for words, run in told.items():
        fake = SimpleNamespace(run=run)
        monkeypatch.setattr(voxels_module, "foreground", lambda manifest: {1: "a"})
        monkeypatch.setattr(
            voxels_module, "read_reference", lambda *_: (None, SimpleNamespace(spacing=(1.0,)))
        )
        monkeypatch.setattr(voxels_module, "read_prediction", lambda *_, fake=fake: fake)
        case: Any = SimpleNamespace(id="x", patient="x")
        manifest: Any = None
        with pytest.raises(InputError) as error:
            read_case_voxels(case, tmp_path, manifest)
        assert str(error.value) == f"{tmp_path}: {words}"


def test_labels_of_any_numbers_become_classes_in_their_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two raters, classes 3 and 7, and a voxel that is to be ignored."""
    first = np.array([[0, 3, 7, 7], [0, 0, 255, 3]], np.uint8)
    second = np.array([[0, 3, 7, 3], [0, 0, 255, 3]], np.uint8)
    mean = {"a": np.full((2, 4), 0.25, np.float32), "b": np.full((2, 4), 0.5, np.float32)}
    mean["a"][0, 0], mean["b"][0, 0] = 0.9, 0.3  # sums of maps that rounding made too great
    fake = SimpleNamespace(run={"seed": 0}, mean=mean)
    geometry = SimpleNamespace(spacing=(1.0, 1.0))
    monkeypatch.setattr(voxels_module, "foreground", lambda manifest: {3: "a", 7: "b"})
    monkeypatch.setattr(
        voxels_module, "read_reference", lambda *_: (np.stack([first, second]), geometry)
    )
    monkeypatch.setattr(voxels_module, "read_prediction", lambda *_: fake)
    case: Any = SimpleNamespace(id="x", patient="y")
    manifest: Any = None
    found = read_case_voxels(case, tmp_path, manifest)
    assert (found.case, found.patient, found.run) == ("x", "y", {"seed": 0})
    kept = [0, 1, 2, 3, 4, 5, 7]
    assert found.weight.sum() == 7.0
    order = np.argsort(found.probability[0], kind="stable")
    assert found.probability[:, order[0]] == pytest.approx([0.0, 0.75, 0.25])
    assert found.probability[:, order[-1]] == pytest.approx([0.25, 0.25, 0.5])
    shares = {tuple(column) for column in found.share.T.tolist()}
    assert shares == {(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.5, 0.5)}
    assert sorted(found.reference[found.share.max(axis=0) == 1].tolist()) == [0, 0, 0, 1, 1, 2]
    assert found.class_roi.shape == (3, len(kept)) and found.class_roi.all()
