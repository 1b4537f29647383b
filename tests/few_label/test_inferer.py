"""The perceptrons as an ensemble: mean, variance, votes, mirrors, windows, slices."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from medsegdiff.diffusion.gaussian import GaussianProcess
from medsegdiff.few_label.inferer import FewLabelInferer
from medsegdiff.few_label.voxel_features import FeatureLocation, VoxelFeatures
from medsegdiff.few_label.voxel_mlps import VoxelMLPs
from medsegdiff.models.image_diffusion import ImageDiffusion
from medsegdiff.networks.image_denoiser import ImageDenoiser
from medsegdiff.segmentation.fusion import fuse

SIZES = [(12, 10), (8, 9, 7)]


def inferer(dims: int, window: Sequence[int], mirror_axes: Sequence[int] = ()) -> FewLabelInferer:
    torch.manual_seed(0)
    denoiser = ImageDenoiser(dims, 1, 1, (8, 8))
    network = ImageDiffusion(denoiser, GaussianProcess(n_timesteps=100)).eval()
    features = VoxelFeatures(network, [FeatureLocation(0.2, 0), FeatureLocation(0.4, 1)])
    return FewLabelInferer(features, VoxelMLPs(16, 3, members=5), window, mirror_axes)


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_statistics_are_those_of_the_perceptrons(size: tuple[int, ...]) -> None:
    one, image = inferer(len(size), size), torch.randn(1, *size)
    found = one.ensemble(image, one.features.network, "a")
    members = one.mlps(one.features(image).flatten(1).T).softmax(-1).transpose(1, 2)
    members = members.unflatten(2, size)
    torch.testing.assert_close(found.mean, members.mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.variance, members.var(0, correction=0), atol=1e-5, rtol=1e-4)
    assert torch.equal(found.labels.long(), members.argmax(1))
    votes = torch.stack([(found.labels == k).sum(0) for k in range(3)])
    assert torch.equal(fuse(one.fusion, found.mean, found.labels, None).argmax(0), votes.argmax(0))
    assert found.anchor is not None
    assert torch.equal(found.anchor, found.mean) and found.windows == {"run": 1, "skipped": 0}


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_a_mirrored_image_gives_the_mirrored_mask(size: tuple[int, ...]) -> None:
    image = torch.randn(1, *size)
    alone, both = inferer(len(size), size), inferer(len(size), size, [0])
    found = both.probability(image)
    torch.testing.assert_close(both.probability(image.flip(1)).flip(2), found)
    assert not torch.allclose(alone.probability(image.flip(1)).flip(2), alone.probability(image))


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_a_larger_image_is_taken_in_windows(size: tuple[int, ...]) -> None:
    one = inferer(len(size), [6] * len(size))
    found = one.ensemble(torch.randn(1, *size), one.features.network, "a")
    assert found.mean.shape == (3, *size) and found.labels.shape == (5, *size)
    torch.testing.assert_close(found.mean.sum(0), torch.ones(size))


def test_a_volume_of_planes_is_taken_slice_by_slice() -> None:
    one, volume = inferer(2, (12, 10)), torch.randn(1, 12, 10, 3)
    found = one.ensemble(volume, one.features.network, "a")
    assert found.mean.shape == (3, 12, 10, 3) and found.windows["run"] == 3
    plane = one.ensemble(volume[..., 1], one.features.network, "a")
    torch.testing.assert_close(found.mean[..., 1], plane.mean)
    assert torch.equal(found.labels[..., 1], plane.labels)
