"""Features of a case: what they must not depend on, and what they must show."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from medsegdiff.core.types import Geometry
from medsegdiff.segmentation import case_features as features_module
from medsegdiff.segmentation.case_features import case_features, geometry_features
from medsegdiff.segmentation.ensemble import Ensemble
from medsegdiff.triage.log_odds import log_odds

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


def known_ensemble() -> Ensemble:
    """Two members on five voxels, the last of which is background for sure; three classes."""
    labels = torch.tensor([[1, 1, 0, 2, 0], [1, 0, 0, 2, 0]], dtype=torch.uint8)
    rest = torch.tensor([[0.9, 0.6, 0.1, 0.0, 0.0], [0.0, 0.1, 0.0, 0.8, 0.0005]])
    mean = torch.cat([1.0 - rest.sum(dim=0, keepdim=True), rest])
    variance = torch.full((3, 5), 0.02)
    return Ensemble(mean, variance, mean, labels)


def test_the_features_of_an_ensemble_by_hand() -> None:
    found = case_features(torch.zeros(1, 5), known_ensemble())["ensemble"]
    rows = [[0.1, 0.9, 0.0], [0.3, 0.6, 0.1], [0.9, 0.1, 0.0], [0.2, 0.0, 0.8]]
    entropy = -sum(p * math.log(p) for row in rows for p in row if p)
    foreground = 0.9 + 0.6 + 0.1 + 0.1 + 0.8 + 1.0

    expected = {
        "doubt": math.log(entropy / foreground + 1e-3),
        "variance": math.log(12 * 0.02 / foreground + 1e-4),
        # the mask has class 1 in two voxels: members have two, and one
        "volume of class 1": math.log(1.6 + 1),
        "expected Dice of class 1": log_odds(2 * 1.5 / (2 + 1.6)),
        "agreement on class 1": log_odds((4 / 4 + 2 / 3) / 2),
        "spread of volumes of class 1": math.log((0.5 + 1) / (1.5 + 1)),
        "highest probability of class 1": log_odds(0.9),
        "members with class 1": 1.0,
        "volume of class 2": math.log(0.9 + 1),
        "expected Dice of class 2": log_odds(2 * 0.8 / (1 + 0.9)),
        "agreement on class 2": log_odds(1.0),
        "spread of volumes of class 2": math.log(1 / 2),
        "highest probability of class 2": log_odds(0.8),
        "members with class 2": 1.0,
    }
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_class_that_one_member_sees() -> None:
    given = known_ensemble()
    given.labels[1] = 0
    found = case_features(torch.zeros(1, 5), given)["ensemble"]
    assert found["members with class 1"] == found["members with class 2"] == 0.5
    assert found["agreement on class 2"] == pytest.approx(log_odds((2 / 2 + 0) / 2))
    assert found["spread of volumes of class 1"] == pytest.approx(math.log((1 + 1) / (1 + 1)))


def test_the_intensities_of_each_channel_by_hand() -> None:
    image = torch.arange(60.0).reshape(2, 6, 5)
    image[1] = image[1].square()
    found = case_features(image, known_ensemble())["intensity"]
    for number, channel in enumerate(image.numpy(), start=1):
        for q in (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99):
            key = f"quantile {q:g} of channel {number}"
            assert found.pop(key) == pytest.approx(np.quantile(channel, q), rel=1e-5)
        for lag in (1, 2, 4):
            axes = [
                np.abs(channel[lag:] - channel[:-lag]),
                np.abs(channel[:, lag:] - channel[:, :-lag]),
            ]
            mean = np.mean([axis.mean() for axis in axes])
            expected = math.log(mean / (channel.std() + 1e-6) + 1e-3)
            key = f"difference at {lag} of channel {number}"
            assert found.pop(key) == pytest.approx(expected, rel=1e-4)
    assert found == {}


def test_axes_too_short_for_a_distance_are_left_out() -> None:
    image = torch.tensor([[[0.0, 1.0, 4.0, 9.0], [1.0, 1.0, 1.0, 1.0]]])
    found = case_features(image, known_ensemble())["intensity"]
    scale = float(image.std(correction=0)) + 1e-6
    along = np.mean([4.0, 8.0, 0.0, 0.0])  # of two columns apart; rows are only one apart
    assert found["difference at 2 of channel 1"] == pytest.approx(
        math.log(along / scale + 1e-3), rel=1e-5
    )
    assert found["difference at 4 of channel 1"] == pytest.approx(math.log(1e-3))


def test_of_a_large_image_every_nth_voxel_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 12, 12)
    monkeypatch.setattr(features_module, "MOST_VOXELS", 36)
    found = case_features(image, known_ensemble())["intensity"]
    some = image[0, ::2, ::2].numpy()
    assert found["quantile 0.25 of channel 1"] == pytest.approx(np.quantile(some, 0.25), rel=1e-5)
    ends = [
        (image[0, 1::2, ::2] - image[0, :-1:2, ::2]),
        (image[0, ::2, 1::2] - image[0, ::2, :-1:2]),
    ]
    mean = np.mean([float(one.abs().mean()) for one in ends])
    assert found["difference at 1 of channel 1"] == pytest.approx(
        math.log(mean / (some.std() + 1e-6) + 1e-3), rel=1e-4
    )


def test_spacing_and_extent_are_logarithms_in_the_unit() -> None:
    found = geometry_features(Geometry((10, 20, 30), np.diag([3.0, 1.0, 0.5, 1.0])))
    expected = {
        "spacing 1 (mm)": math.log(0.5),
        "spacing 2 (mm)": 0.0,
        "spacing 3 (mm)": math.log(3),
        "extent 1 (mm)": math.log(15),
        "extent 2 (mm)": math.log(20),
        "extent 3 (mm)": math.log(30),
    }
    assert found == pytest.approx(expected)
