"""The two parts compute what the network computes, for any number of members and any image."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medsegdiff.diffusion import GaussianProcess
from medsegdiff.exporting.exported_files import difference, read_part, write_part
from medsegdiff.exporting.exported_parts import split
from medsegdiff.models import DiffusionSegmenter
from medsegdiff.networks import Denoiser, ImageEncoder


def network_of(dims: int, conditioning: str, latent: int) -> DiffusionSegmenter:
    torch.manual_seed(0)
    encoder = ImageEncoder(dims, 1, 3, channels=(8, 8, 16))
    denoiser = Denoiser(
        dims,
        3,
        encoder.channels,
        (8, 16),
        conditioning=conditioning,  # type: ignore[arg-type]
        further_inputs=1,
        latent=latent,
    )
    for head in (denoiser.head, denoiser.fine_head):
        torch.nn.init.normal_(head.weight, std=1.0)  # type: ignore[arg-type]
    process = GaussianProcess(n_timesteps=100)
    return DiffusionSegmenter(encoder, denoiser, process, samples_per_target=2).eval()


@pytest.mark.parametrize(
    ("dims", "conditioning", "latent"),
    [(2, "concat", 4), (2, "medsegdiff", 0), (3, "medsegdiff", 0)],
)
@torch.no_grad()
def test_parts_are_the_network(dims: int, conditioning: str, latent: int, tmp_path: Path) -> None:
    """Traced with two members and one image, run with five and another, at two times."""
    network, size = network_of(dims, conditioning, latent), (16,) * dims
    parts = split(network, 1, size)
    generator = torch.Generator().manual_seed(3)
    image = torch.randn(1, 1, *size, generator=generator)
    whole, tensors = network.encode(image), parts.encoder(image)
    torch.testing.assert_close(tensors[0], whole.anchor)
    traced, further = (
        [torch.randn(n, 3, *parts.state, generator=generator) for _ in range(2)] for n in (2, 5)
    )
    path = tmp_path / "denoiser.pt2"
    first = (traced[0], torch.tensor([99]), traced[1], *tensors)
    write_part(parts.denoiser, first, path, "torch", members=True)
    run = read_part(path)
    for t in (torch.tensor([99]), torch.tensor([40])):
        mask, features = network.x_0(further[0], t, whole, lambda _: further[1])
        found = run(further[0], t, further[1], *tensors)
        torch.testing.assert_close(found[0], mask, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found[1], network.fine(features, whole), atol=1e-4, rtol=1e-4)
        assert difference(parts.denoiser, run, (further[0], t, further[1], *tensors)) < 1e-4


def test_what_depends_on_the_image_is_passed_on() -> None:
    parts = split(network_of(3, "medsegdiff", 0), 1, (16, 16, 16))
    constants = dict(parts.denoiser.named_buffers(recurse=False))
    assert len(constants) >= 1  # the filters in Fourier space
    assert len(parts.encoder.kept) + len(constants) == parts.denoiser.count
