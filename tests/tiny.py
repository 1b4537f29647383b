"""A segmenter small enough to run in milliseconds."""

from __future__ import annotations

import torch

from medsegdiff.core.types import Target
from medsegdiff.diffusion.gaussian import GaussianProcess
from medsegdiff.diffusion.process import Process
from medsegdiff.models.diffusion_segmenter import DiffusionSegmenter
from medsegdiff.networks.denoiser import Denoiser
from medsegdiff.networks.encoder import ImageEncoder


def tiny_segmenter(
    dims: int,
    target: Target = "x_0",
    num_classes: int = 3,
    process: Process | None = None,
    self_conditioning: float = 0.0,
    recycling: bool = False,
    samples_per_target: int = 1,
) -> DiffusionSegmenter:
    """Random weights, made large enough that members differ."""
    torch.manual_seed(0)
    encoder = ImageEncoder(dims, 1, num_classes, channels=(8, 8, 16))
    denoiser = Denoiser(
        dims,
        num_classes,
        encoder.channels,
        (8, 16),
        add_anchor=target == "x_0",
        further_inputs=int(self_conditioning > 0) + int(samples_per_target > 1),
    )
    for head in (denoiser.head, denoiser.fine_head):
        torch.nn.init.normal_(head.weight, std=1.0)  # type: ignore[arg-type]
    return DiffusionSegmenter(
        encoder,
        denoiser,
        process or GaussianProcess(n_timesteps=100),
        target,
        self_conditioning,
        recycling,
        samples_per_target,
    ).eval()
