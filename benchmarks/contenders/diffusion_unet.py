"""MONAI's diffusion U-Net: the image beside the noisy mask, all of it run at every step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.inferers import DiffusionInferer
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler
from torch import Tensor, nn

from benchmarks.harness.contender import (
    Batch,
    Contender,
    Predict,
    Prediction,
    cropped,
    one_hot,
    padded,
    random_rater,
    summarised,
)
from benchmarks.harness.data import Study
from medsegdiff.segmentation import generator_for

CHANNELS = (32, 64, 128)
MULTIPLE = 4
TRAINING_STEPS = 1000
STEPS = 50
NAME = "diffusion_unet_ddim{}"


def diffusion_unet(study: Study, members: int, steps: int = STEPS) -> Contender:
    """Denoising diffusion of one-hot masks in [-1, 1], sampled by some steps of DDIM."""
    network = DiffusionModelUNet(
        spatial_dims=study.dims,
        in_channels=study.num_classes + study.channels,
        out_channels=study.num_classes,
        num_res_blocks=1,
        channels=CHANNELS,
        attention_levels=(False, False, True),
        num_head_channels=(0, 0, CHANNELS[-1]),
    )
    inferer = DiffusionInferer(DDIMScheduler(num_train_timesteps=TRAINING_STEPS))

    def loss(network: nn.Module, batch: Batch, step: int) -> Tensor:
        x_0 = 2.0 * one_hot(random_rater(batch, step), study.num_classes) - 1.0
        eps = torch.randn_like(x_0)
        t = torch.randint(TRAINING_STEPS, (len(x_0),), device=x_0.device)
        image = batch["image"]
        output = inferer(x_0, network, eps, t, condition=image, mode="concat")
        return F.mse_loss(output.float(), eps)

    return Contender(
        NAME.format(steps),
        [network],
        loss,
        sampling(members, study.num_classes, steps),
        part=sampling(members, study.num_classes, steps, only=1),
        repeats=steps,
        rate=0.3,
        weights=NAME.format(STEPS),
        members=members,
        steps=steps,
        note=f"time, passes and arithmetic are those of one step of {members} members times "
        f"{steps}; learning rate 0.3 of the others'",
    )


def sampling(members: int, num_classes: int, steps: int, only: int | None = None) -> Predict:
    """DDIM of so many steps, or ``only`` the first of them, all members as one batch."""

    def predict(networks: Sequence[nn.Module], image: Tensor, case: str) -> Prediction:
        x = padded(image, MULTIPLE)
        shape = (members, num_classes, *x.shape[2:])
        noise = torch.randn(shape, generator=generator_for(0, case)).to(x)
        scheduler = ddim(steps)
        scheduler.timesteps = scheduler.timesteps[:only]
        x_0 = DiffusionInferer(scheduler).sample(
            noise,
            _Float32Output(networks[0]),
            conditioning=x.expand(members, *x.shape[1:]),
            mode="concat",
            verbose=False,
        )
        values = ((cropped(x_0, image) + 1.0) / 2.0).clamp(1e-6, 1.0)
        return summarised(values / values.sum(dim=1, keepdim=True))

    return predict


def ddim(steps: int) -> DDIMScheduler:
    """DDIM at the time steps that its ``step`` assumes.

    MONAI's own ``set_timesteps`` spaces them otherwise than ``step`` does, so that the state would
    be at another noise level than the network is told.
    """
    scheduler = DDIMScheduler(num_train_timesteps=TRAINING_STEPS)
    scheduler.set_timesteps(steps)
    spacing = TRAINING_STEPS // steps
    scheduler.timesteps = torch.arange(TRAINING_STEPS - 1, 0, -spacing)[:steps]
    return scheduler


class _Float32Output(nn.Module):
    """Sampling goes on in float32 whatever the network computes in."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, timesteps: Tensor, context: None = None) -> Tensor:
        output: Tensor = self.network(x, timesteps=timesteps, context=context)
        return output.float()
