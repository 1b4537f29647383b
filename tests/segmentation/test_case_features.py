"""Features of a case: what they must not depend on, and what they must show."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from medsegdiff.core.types import Geometry
from medsegdiff.segmentation.case_features import case_features, geometry_features
from medsegdiff.segmentation.ensemble import Ensemble

SHAPES = [(24, 20), (16, 18, 14)]


def ensemble(shape: tuple[int, ...], spread: int, seed: int = 0) -> Ensemble:
    """Members that mark a box whose side differs by up to ``spread``."""
    rng = np.random.default_rng(seed)
    labels = torch.zeros(8, *shape, dtype=torch.uint8)
    for member in labels:
        side = 6 + int(rng.integers(0, spread + 1))
        member[(slice(2, 2 + side),) * len(shape)] = 1
    marked = (labels == 1).float()
    mean = torch.stack([1.0 - marked.mean(0), marked.mean(0)])
    variance = torch.stack([marked.var(0, correction=0)] * 2)
    return Ensemble(mean, variance, mean, labels)


@pytest.mark.parametrize("shape", SHAPES)
def test_members_that_agree_less_expect_less(shape: tuple[int, ...]) -> None:
    image = torch.randn(1, *shape)
    sure, unsure = (case_features(image, ensemble(shape, n))["ensemble"] for n in (0, 4))
    for name in ("expected Dice of class 1", "agreement on class 1"):
        assert unsure[name] < sure[name]
    for name in ("doubt", "variance", "spread of volumes of class 1"):
        assert unsure[name] > sure[name]
    assert sure["volume of class 1"] == pytest.approx(math.log(6 ** len(shape) + 1))
    assert sure["members with class 1"] == unsure["members with class 1"] == 1.0


@pytest.mark.parametrize("shape", SHAPES)
def test_background_around_changes_nothing_of_the_ensemble(shape: tuple[int, ...]) -> None:
    wider = tuple(2 * n for n in shape)
    found = [case_features(torch.randn(1, *s), ensemble(s, 3))["ensemble"] for s in (shape, wider)]
    assert found[0] == pytest.approx(found[1], abs=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_empty_ensemble_has_finite_features(shape: tuple[int, ...]) -> None:
    empty = torch.zeros(4, *shape, dtype=torch.uint8)
    mean = torch.stack([torch.ones(shape), torch.zeros(shape)])
    found = case_features(torch.zeros(2, *shape), Ensemble(mean, mean * 0.0, mean, empty))
    assert all(math.isfinite(v) for group in found.values() for v in group.values())
    assert found["ensemble"]["members with class 1"] == 0.0
    assert {"quantile 0.5 of channel 1", "quantile 0.5 of channel 2"} <= set(found["intensity"])


def test_a_blurred_image_differs_less_from_its_neighbours() -> None:
    sharp = torch.randn(1, 1, 64, 64)
    blurred = torch.nn.functional.avg_pool2d(sharp, 3, stride=1, padding=1)
    features = [case_features(x[0], ensemble((64, 64), 1))["intensity"] for x in (sharp, blurred)]
    name = "difference at 1 of channel 1"
    assert features[1][name] < features[0][name] - 0.2


def test_large_images_are_looked_at_in_part() -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 1200, 1200)
    features = case_features(image, ensemble((1200, 1200), 1))["intensity"]
    assert features["quantile 0.5 of channel 1"] == pytest.approx(0.0, abs=0.02)
    assert features["difference at 1 of channel 1"] == pytest.approx(math.log(1.128), abs=0.02)


def test_geometry_is_of_the_sorted_axes() -> None:
    first = Geometry((10, 20, 30), np.diag([3.0, 1.0, 1.0, 1.0]))
    second = Geometry((30, 10, 20), np.diag([1.0, 3.0, 1.0, 1.0]))
    assert geometry_features(first) == pytest.approx(geometry_features(second))
    placed = geometry_features(first, placed=True)
    assert set(placed) == {f"spacing {axis} (mm)" for axis in (1, 2, 3)}
    assert placed["spacing 3 (mm)"] == pytest.approx(math.log(3.0))
