"""U-Nets: alone, with dropout at test time, five at a time, and nnU-Net's architecture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets import DynUNet, UNet
from torch import Tensor, nn

from benchmarks.harness.contender import (
    Batch,
    Contender,
    Loss,
    Prediction,
    cropped,
    dice_ce,
    one_hot,
    padded,
    random_rater,
    rater_in_turn,
    summarised,
)
from benchmarks.harness.data import Study

CHANNELS = (32, 64, 128, 256)
MULTIPLE = 8
ENSEMBLE = 5
DROPOUT = 0.2


def make_unet(study: Study, outputs: int | None = None, dropout: float = 0.0) -> nn.Module:
    """MONAI's residual U-Net of four levels; K outputs unless told."""
    return UNet(
        spatial_dims=study.dims,
        in_channels=study.channels,
        out_channels=outputs or study.num_classes,
        channels=CHANNELS,
        strides=(2, 2, 2),
        num_res_units=2,
        dropout=dropout,
    )


def unet(study: Study) -> Contender:
    """One U-Net, one pass."""
    loss = mask_loss(study, stochastic=False)
    return Contender("unet", [make_unet(study)], loss, one_pass)


def dynunet(study: Study) -> Contender:
    """nnU-Net's architecture at the same widths, one pass."""
    kernels = [3, 3, 3, 3]
    network = DynUNet(
        spatial_dims=study.dims,
        in_channels=study.channels,
        out_channels=study.num_classes,
        kernel_size=kernels,
        strides=[1, 2, 2, 2],
        upsample_kernel_size=[2, 2, 2],
        filters=CHANNELS,
    )
    note = "nnU-Net's architecture; not its planning, 1000 epochs, deep supervision or test flips"
    return Contender("dynunet", [network], mask_loss(study, stochastic=False), one_pass, note=note)


def unet_mc_dropout(study: Study, members: int) -> Contender:
    """The U-Net with dropout left on: a member is a pass."""

    def predict(networks: Sequence[nn.Module], image: Tensor, case: str) -> Prediction:
        (network,) = networks
        dropouts = [m for m in network.modules() if isinstance(m, nn.modules.dropout._DropoutNd)]
        for module in dropouts:
            module.train()
        x = padded(image, MULTIPLE)
        logits = network(x.expand(members, *x.shape[1:]))
        for module in dropouts:
            module.eval()
        return summarised(torch.softmax(cropped(logits, image).float(), dim=1))

    return Contender(
        "unet_mc_dropout",
        [make_unet(study, dropout=DROPOUT)],
        mask_loss(study, stochastic=True),
        predict,
        members=members,
        note=f"dropout {DROPOUT:g} in training and in {members} passes, taken as one batch",
    )


def unet_deep_ensemble(study: Study) -> Contender:
    """Five U-Nets from different seeds that share the training time."""

    def predict(networks: Sequence[nn.Module], image: Tensor, case: str) -> Prediction:
        x = padded(image, MULTIPLE)
        logits = torch.cat([network(x) for network in networks])
        return summarised(torch.softmax(cropped(logits, image).float(), dim=1))

    return Contender(
        "unet_deep_ensemble",
        [make_unet(study) for _ in range(ENSEMBLE)],
        mask_loss(study, stochastic=False),
        predict,
        members=ENSEMBLE,
        note=f"{ENSEMBLE} networks share the training time, so each has a fifth of it",
    )


def one_pass(networks: Sequence[nn.Module], image: Tensor, case: str) -> Prediction:
    """The prediction of one deterministic network."""
    logits = networks[0](padded(image, MULTIPLE))
    return summarised(torch.softmax(cropped(logits, image).float(), dim=1))


def mask_loss(study: Study, *, stochastic: bool) -> Loss:
    """Dice and cross-entropy of a network's logits, with one rater a step."""
    rater = random_rater if stochastic else rater_in_turn

    def loss(network: nn.Module, batch: Batch, step: int) -> Tensor:
        target = one_hot(rater(batch, step), study.num_classes)
        value: Tensor = dice_ce(network(batch["image"]).float(), target)
        return value

    return loss
