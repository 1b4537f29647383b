"""What the benchmark of counterfactuals says of maps that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.counterfactual.lesion_search import (
    ImageLook,
    calibrated,
    looked_at,
    maker_of,
    page,
    shown,
    summed_up,
)
from medsegdiff.data.manifest import load_manifest
from medsegdiff.phantoms.cohort import write_lesion_cohort


def planes(blindness: float, count: int = 8) -> list[ImageLook]:
    """Differences that are the lesion, plus noise of that deviation; every second is healthy."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        lesion = np.zeros((12, 12), dtype=bool)
        lesion[3:6, 3:6] = number % 2 == 1
        noise = np.abs(blindness * rng.standard_normal(lesion.shape))
        difference = (0.5 * lesion + noise).astype(np.float32)
        image = rng.standard_normal(lesion.shape).astype(np.float32)
        found.append(ImageLook(image, lesion, image, difference, bool(lesion.any())))
    return found


def test_maps_that_see_lesions_score_and_blind_ones_do_not() -> None:
    seeing, blind = summed_up(planes(0.1)), summed_up(planes(50.0))
    assert seeing["auroc"] > 0.98 and seeing["auroc_of_images"] == 1.0
    assert blind["auroc"] == pytest.approx(0.5, abs=0.12)
    assert seeing["auroc_of_intensity_by_image"] == pytest.approx(0.5, abs=0.15)
    assert seeing["mean_on_healthy"] == pytest.approx(0.1 * np.sqrt(2 / np.pi), rel=0.1)
    assert seeing["mean_on_lesions"] == pytest.approx(0.5 + seeing["mean_on_healthy"], rel=0.1)
    assert (seeing["images"], seeing["diseased"]) == (8, 4)


def test_calibration_is_judged_on_other_planes() -> None:
    found = planes(0.1, 16)
    fit = calibrated(found[:8], found[8:])
    assert fit["ece_after"] < 0.02 < fit["ece_before"]
    assert fit["brier_after"] < fit["brier_before"]


def test_planes_between_healthy_and_diseased_are_left_out(tmp_path: Path) -> None:
    cases = load_manifest(write_lesion_cohort(tmp_path, cases=3, seed=3)).cases
    maker = maker_of("phantom_counterfactual", {"steps": 1}, tmp_path / "out")
    every = looked_at(maker, cases)
    assert [one.diseased for one in every] == [False, True, False]
    assert all(one.difference.shape == one.lesion.shape == one.image.shape for one in every)
    assert len(looked_at(maker, cases, healthy_up_to=0, marked_by=2)) == 2  # one rater marked it
    row = {"changed": {}, **summed_up(every)}
    settings = {"level": 0.7}
    text = page(
        {"x": {"command": "c", "settings": settings, "rows": [row], "calibration": _fit(every)}}
    )
    assert f"{row['auroc']:.3f}" in text and "level 0.7" in text
    assert len(shown(every).axes) == 9


def _fit(found: list[ImageLook]) -> dict[str, float]:
    return calibrated(found, found)
