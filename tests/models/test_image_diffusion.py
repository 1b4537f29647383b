"""Diffusion of images: oracles, guidance, and a distribution that is learned."""

import pytest
import torch
from torch import Tensor, nn

from medsegdiff.diffusion.gaussian import GaussianProcess
from medsegdiff.diffusion.samplers import make_sampler
from medsegdiff.models.image_diffusion import ImageDiffusion
from medsegdiff.networks.image_denoiser import DenoisedImage, ImageDenoiser

SIZES = [(9, 8), (6, 8, 7)]


class Oracle(nn.Module):
    """Knows the true image of each label; the last is that of no label."""

    num_labels = 2

    def __init__(self, images: Tensor, process: GaussianProcess) -> None:
        super().__init__()
        self.images, self.process = images, process
        self.multiple = 1

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> DenoisedImage:
        steps = (t * (self.process.n_timesteps - 1)).round().long()
        x_0 = self.images[torch.tensor([2]) if label is None else label].expand_as(x_t)
        a, s = self.process.coefficients(steps, x_t)
        eps = (x_t - a * x_0) / s
        return DenoisedImage(self.process.velocity(x_0, eps, a, s), ())


def oracle(size: tuple[int, ...]) -> tuple[ImageDiffusion, Tensor]:
    """A model that knows three images, and those."""
    process = GaussianProcess(n_timesteps=100)
    images = 3.0 * torch.randn(3, 1, *size, generator=torch.Generator().manual_seed(1))
    return ImageDiffusion(Oracle(images, process), process), images  # type: ignore[arg-type]


@pytest.mark.parametrize("start", [1.0, 0.5])
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_oracle_is_sampled_beyond_the_bounds_of_masks(
    size: tuple[int, ...], steps: int, start: float
) -> None:
    model, truth = oracle(size)
    eps = torch.randn(2, 1, *size)
    x_T = eps if start == 1.0 else model.noised(truth[:2], eps, start)
    found = model.sample(
        x_T,
        torch.randn_like,
        sampler=make_sampler("ddim"),
        steps=steps,
        start=start,
        label=torch.tensor([0, 1]),
    )
    torch.testing.assert_close(found, truth[:2], atol=1e-3, rtol=1e-3)


def test_guidance_goes_from_no_label_to_the_label_and_beyond() -> None:
    model, truth = oracle((6, 6))
    x_t, t = torch.randn(1, 1, 6, 6), torch.tensor([60])
    for guidance in (0.0, 1.0, 3.0):
        found = model.x_0(x_t, t, label=torch.tensor([0]), guidance=guidance)
        wanted = truth[2:] + guidance * (truth[:1] - truth[2:])
        torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)


def test_target_is_what_makes_the_oracle_right() -> None:
    model, truth = oracle((6, 6))
    x_0 = truth[:2]
    eps, t = torch.randn_like(x_0), torch.tensor([20, 99])
    found = model(x_0, eps, t, label=torch.tensor([0, 1]))
    torch.testing.assert_close(found, model.target(x_0, eps, t), atol=1e-4, rtol=1e-4)


def test_what_is_given_is_seen_and_not_noised() -> None:
    model = ImageDiffusion(ImageDenoiser(2, 3, 1, (8, 8)), GaussianProcess(n_timesteps=10))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    x_t, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 7])
    given = torch.randn(2, 2, 8, 8)
    found = model.velocity(x_t, t, given)
    assert found.shape == x_t.shape
    assert not torch.allclose(found, model.velocity(x_t, t, given.flip(0)))


def test_guidance_by_what_is_given_leads_away_from_what_nothing_gives() -> None:
    torch.manual_seed(0)
    model = ImageDiffusion(ImageDenoiser(2, 3, 1, (8, 8)), GaussianProcess(n_timesteps=10))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    x_t, t, given = torch.randn(2, 1, 8, 8), torch.tensor([3]), torch.randn(2, 2, 8, 8)
    w = {guidance: model.x_0(x_t, t, given, guidance=guidance) for guidance in (0.0, 1.0, 2.5)}
    torch.testing.assert_close(w[0.0], model.x_0(x_t, t, torch.zeros_like(given)))
    torch.testing.assert_close(w[2.5], w[0.0] + 2.5 * (w[1.0] - w[0.0]), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(w[0.0], w[1.0])


def test_it_learns_a_distribution_of_images() -> None:
    """Images of one grey value, -1 or 1 with equal right: samples are either, half of each."""
    torch.manual_seed(0)
    model = ImageDiffusion(ImageDenoiser(2, 1, 1, (16, 16)), GaussianProcess(n_timesteps=100))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        x_0 = torch.randint(2, (32, 1, 1, 1)).float().mul(2).sub(1).expand(-1, 1, 4, 4).contiguous()
        eps, t = torch.randn_like(x_0), torch.randint(100, (32,))
        optimizer.zero_grad()
        (model(x_0, eps, t) - model.target(x_0, eps, t)).square().mean().backward()
        optimizer.step()
    drawn = model.sample(
        torch.randn(200, 1, 4, 4), torch.randn_like, sampler=make_sampler("ddim"), steps=20
    )
    grey = drawn.mean(dim=(1, 2, 3))
    assert (grey.abs() - 1.0).abs().mean() < 0.2
    assert 0.3 < (grey > 0).float().mean() < 0.7
    assert drawn.flatten(1).std(dim=1).mean() < 0.3
