"""What a diffusion model sees in each voxel."""

import pytest
import torch
from torch import Tensor

from medsegdiff.diffusion.gaussian import GaussianProcess
from medsegdiff.few_label.voxel_features import FeatureLocation, VoxelFeatures, enlarged
from medsegdiff.models.image_diffusion import ImageDiffusion
from medsegdiff.networks.image_denoiser import ImageDenoiser
from medsegdiff.networks.layers import crop_to

SIZES = [(13, 10), (8, 9, 7)]
CHANNELS = (4, 8, 8)


def model(dims: int, stride: int = 1) -> ImageDiffusion:
    torch.manual_seed(0)
    denoiser = ImageDenoiser(dims, 1, 1, CHANNELS, stride=stride)
    return ImageDiffusion(denoiser, GaussianProcess(n_timesteps=100)).eval()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_features_are_those_levels_one_after_the_other(size: tuple[int, ...], stride: int) -> None:
    locations = [FeatureLocation(0.5, 2), FeatureLocation(0.1, 0), FeatureLocation(0.5, 1)]
    network, image = model(len(size), stride), torch.randn(1, *size)
    features = VoxelFeatures(network, locations)
    found = features(image)
    assert found.shape == (features.channels, *size) == (8 + 4 + 8, *size)
    for part, pick in zip(found.split([8, 4, 8]), locations, strict=True):
        torch.testing.assert_close(part, VoxelFeatures(network, [pick])(image))


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_a_level_is_the_decoders_at_that_time(size: tuple[int, ...]) -> None:
    network, image = model(len(size)), torch.randn(1, *size)
    features = VoxelFeatures(network, [FeatureLocation(0.3, 0)], seed=4)
    t = torch.tensor([30])  # 0.3 of 99, rounded
    eps = torch.randn(image.shape, generator=torch.Generator().manual_seed(4 + 30))
    x_t = network.process.add_noise(image[None], eps[None], t)
    with torch.no_grad():
        level = network.denoiser(x_t, torch.tensor([30 / 99])).features[0][0]
    torch.testing.assert_close(features(image), crop_to(level[None], size)[0])


def test_all_images_of_a_size_get_the_same_noise() -> None:
    network, image = model(2), torch.randn(1, 12, 12)
    features = VoxelFeatures(network, [FeatureLocation(0.4, 0), FeatureLocation(0.4, 1)])
    torch.testing.assert_close(features(image), features(image))
    other = VoxelFeatures(network, features.locations, seed=1)
    assert not torch.allclose(features(image), other(image))


@pytest.mark.parametrize("dims", [2, 3])
def test_enlarging_keeps_a_voxel_in_its_place(dims: int) -> None:
    """Linear interpolation of a ramp is the ramp, each value at its voxel's middle."""
    coarse = torch.arange(6.0).view(1, 6, *[1] * (dims - 1)).expand(1, *[6] * dims)
    fine = enlarged(coarse, 4, [22] * dims)
    assert fine.shape == (1, *[22] * dims)
    line = fine.flatten(2)[0, 2:22, 0]
    wanted: Tensor = (torch.arange(2, 22) + 0.5) / 4.0 - 0.5
    torch.testing.assert_close(line, wanted)


@pytest.mark.parametrize("locations", [[], [(0.5, 3)], [(1.2, 0)], [(0.5, -1)]])
def test_picks_that_are_not_there_are_refused(locations: list[FeatureLocation]) -> None:
    with pytest.raises(ValueError, match="location"):
        VoxelFeatures(model(2), locations)
