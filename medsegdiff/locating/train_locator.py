"""Train the small network of a :class:`~medsegdiff.locating.NetworkLocator`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.losses import DiceCELoss
from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandGaussianNoised,
    RandScaleIntensityd,
)

from medsegdiff.bundle.bundle import LOCATOR_FILE
from medsegdiff.core.atomic_files import written_aside
from medsegdiff.core.types import UNKNOWN_CLASS
from medsegdiff.data.manifest import Case, Manifest, datalist
from medsegdiff.data.transforms import LoadCased, load
from medsegdiff.locating.network_locator import coarse_chain
from medsegdiff.models.precision import autocast
from medsegdiff.networks.encoder import ImageEncoder
from medsegdiff.training.seeding import seeded

logger = logging.getLogger(__name__)

LEARNING_RATE = 1e-3
SHIFTED = 0.1
"""Share of the image's extent by which it is shifted at most in the augmentation."""

SEEN = 0.3
"""Share of a coarse voxel from which it is structure: small ones hardly fill one."""


def train_locator(
    network: ImageEncoder,
    cases: Sequence[Case],
    manifest: Manifest,
    output: str | Path,
    *,
    spacing: Sequence[float],
    steps: int,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> None:
    """Train on whole images and write ``locator.pt``, unless it is there.

    Args:
        network: Network of two classes, background and structure; it is changed.
        cases: Training cases.
        manifest: Data set of the cases.
        output: Folder of the run.
        spacing: Spacing in mm, along R, A and S, that the network sees.
        steps: Number of training steps, of one image each.
        seed: Seed of the weights, the order and the augmentation.
        device: Device to train on.

    Raises:
        InputError: a case cannot be read.
    """
    target, device = Path(output) / LOCATOR_FILE, torch.device(device)
    if target.exists():
        return
    loader = LoadCased(3, len(manifest.channels), manifest=manifest)
    chain = Compose([loader, _structure, *coarse_chain(["image", "label"], spacing).transforms])
    items = [_plain(load(chain, item)) for item in datalist(cases)]
    augmentation = _augmentation(items[0]["image"].shape[1:]).set_random_state(seed=seed)
    order = torch.Generator().manual_seed(seed)
    loss = DiceCELoss(softmax=True, to_onehot_y=True)
    with seeded(seed, device):
        for module in network.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
        network.to(device).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, max(steps, 2))
        for _ in range(steps):
            chosen = items[int(torch.randint(len(items), (), generator=order))]
            item = augmentation(dict(chosen))
            image, label = (torch.as_tensor(item[key])[None].to(device) for key in chosen)
            smallest = min(n // m for n, m in zip(image.shape[2:], network.multiple, strict=True))
            with autocast("auto", device, smallest):
                logits = network(image).anchor.float()
            optimizer.zero_grad()
            loss(logits, (label > SEEN).float()).backward()
            optimizer.step()
            schedule.step()
    weights = {name: value.cpu() for name, value in network.state_dict().items()}
    with written_aside(target) as aside:
        torch.save([weights], aside)
    logger.info("trained the locator for %d steps on %d whole images", steps, len(items))


def _structure(item: Mapping[str, Any]) -> dict[str, Any]:
    """Label (1, *spatial) float32 of any structure that any rater marked; unknown is none."""
    label = item["label"]
    marked = ((label > 0) & (label != UNKNOWN_CLASS)).any(dim=0, keepdim=True)
    return {**item, "label": marked.float()}


def _plain(item: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {key: torch.as_tensor(item[key]).as_subclass(torch.Tensor) for key in ("image", "label")}


def _augmentation(shape: Sequence[int]) -> Compose:
    both, turn = ["image", "label"], [0.25, 0.25, 0.25]
    affine = RandAffined(
        both,
        prob=0.8,
        rotate_range=turn,
        scale_range=[0.2] * 3,
        translate_range=[SHIFTED * n for n in shape],
        mode="bilinear",
        padding_mode="border",
    )
    noise = RandGaussianNoised("image", prob=0.3, std=0.2)
    contrast = RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5), retain_stats=True)
    return Compose([affine, noise, contrast, RandScaleIntensityd("image", prob=0.3, factors=0.2)])
