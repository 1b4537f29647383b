from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from medsegdiff.counterfactual.healthy_image import Counterfactual, inverted, padded_to
from medsegdiff.diffusion.gaussian import GaussianProcess
from medsegdiff.models.image_diffusion import ImageDiffusion
from medsegdiff.networks.image_denoiser import ImageDenoiser


class Gaussian(ImageDiffusion):
    """Knows that images are N(mean of their label, 0.25): its velocity is exact."""

    means = (0.0, 3.0, 1.0)
    """Of healthy and diseased images, and without a label."""
    variance = 0.25

    def velocity(self, x_t, t, given=None, label=None):  # type: ignore[no-untyped-def]
        mean = self.means[2 if label is None else int(label[0])]
        a, s = self.process.coefficients(t, x_t)
        x_0 = mean + a * self.variance / (a**2 * self.variance + s**2) * (x_t - a * mean)
        return a * (x_t - a * x_0) / s - s * x_0


def model(dims: int) -> Gaussian:
    denoiser = ImageDenoiser(dims, 1, 1, (8, 8), num_labels=2)
    return Gaussian(denoiser, GaussianProcess(schedule="cosine", n_timesteps=1000)).eval()


def images(dims: int) -> torch.Tensor:
    return 1.0 + 0.5 * torch.randn(2, 1, *[8] * dims, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dims", [2, 3])
def test_there_and_back_gives_the_image_again(dims: int) -> None:
    network, x_0 = model(dims), images(dims)
    errors = []
    for steps in (10, 40, 160):
        made = Counterfactual(network, level=0.6, steps=steps)
        back = made._decoded(inverted(network, x_0, steps, 0.6), None, 1.0)
        errors.append(float((back - x_0).abs().max()))
    assert errors[2] < 0.02
    for coarse, fine in pairwise(errors):
        assert 3.0 < coarse / fine < 5.5  # first order: four times the steps, a fourth of the error


@pytest.mark.parametrize("dims", [2, 3])
def test_the_state_is_where_the_exact_flow_leads(dims: int) -> None:
    """Of Gaussian images the flow keeps each value's rank: a mean and a scale."""
    network, x_0 = model(dims), images(dims)
    x_t = inverted(network, x_0, 200, 0.5)
    level = network.process.grid(1, 0.5).levels[0]
    spread = (level.a**2 * 0.25 + level.s**2) ** 0.5
    torch.testing.assert_close(x_t, level.a + spread * (x_0 - 1.0) / 0.5, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("encoding", ["inversion", "noise"])
def test_the_counterfactual_nears_the_healthy_class(encoding: str) -> None:
    network, x_0 = model(2), images(2)
    found = [
        Counterfactual(network, level=level, steps=20, guidance=1.0, encoding=encoding)(  # type: ignore[arg-type]
            x_0[0], "case"
        )
        for level in (0.2, 0.6, 0.95)
    ]
    means = [float(one.healthy.mean()) for one in found]
    assert means[0] > means[1] > means[2] > -0.2 and means[2] < 0.3
    assert found[2].difference.mean() > 2 * found[0].difference.mean()
    assert found[0].difference.shape == (8, 8) and (found[0].difference >= 0).all()


def test_guidance_goes_further() -> None:
    network, x_0 = model(2), images(2)
    means = [
        float(Counterfactual(network, 0.4, 20, guidance)(x_0[0], "case").healthy.mean())
        for guidance in (0.0, 1.0, 3.0)
    ]
    assert means[0] > means[1] > means[2]
    assert means[0] == pytest.approx(float(x_0[0].mean()), abs=0.1)  # no class: the image itself


def test_noise_depends_on_seed_case_and_draw_alone() -> None:
    network, x_0 = model(2), images(2)
    make = Counterfactual(network, 0.5, 5, 2.0, "noise", draws=3)
    together = make.several(x_0, ["a", "b"])
    alone = make(x_0[1], "b")
    torch.testing.assert_close(together[1].difference, alone.difference)
    assert not torch.allclose(make(x_0[1], "c").healthy, alone.healthy)
    assert Counterfactual(network, 0.5, 5)(x_0[0], "a").variance.max() == 0.0
    assert alone.variance.max() > 0.0


@pytest.mark.parametrize("dims", [2, 3])
def test_small_images_are_padded_for_the_network_alone(dims: int) -> None:
    seen: list[torch.Size] = []

    class Noting(Gaussian):
        def velocity(self, x_t, t, given=None, label=None):  # type: ignore[no-untyped-def]
            seen.append(x_t.shape[2:])
            return super().velocity(x_t, t, given, label)

    denoiser = ImageDenoiser(dims, 1, 1, (8, 8), num_labels=2)
    network = Noting(denoiser, GaussianProcess(schedule="cosine")).eval()
    least = (12, 5, 9)[:dims]
    found = Counterfactual(network, 0.4, 3, least_size=least)(images(dims)[0], "case")
    assert set(seen) == {torch.Size([12, 8, 9][:dims])}
    assert found.healthy.shape == (1, *[8] * dims) and found.difference.shape == (*[8] * dims,)
    # This network sees each voxel by itself, so that nothing may have moved.
    plain = Counterfactual(model(dims), 0.4, 3)(images(dims)[0], "case")
    torch.testing.assert_close(found.healthy, plain.healthy)


def test_padding_continues_the_edges() -> None:
    image = torch.arange(6.0).reshape(1, 1, 2, 3)
    padded, inside = padded_to(image, (2, 6))
    assert padded[0, 0].tolist() == [[0, 0, 1, 2, 2, 2], [3, 3, 4, 5, 5, 5]]
    assert torch.equal(padded[:, :, *inside], image)
    assert torch.equal(padded_to(image, ())[0], image)
