"""Pairs of image and mask made from few labelled and many unlabelled scans."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.transforms import Compose, RandFlipd
from torch import Tensor, nn

from benchmarks.few_label.labelled_scans import (
    Item,
    Step,
    agreement,
    batches,
    fit,
    fit_segmenter,
    load_items,
    marks,
    num_classes_of,
)
from medsegdiff.core import UNKNOWN_CLASS, write_text, written_aside
from medsegdiff.data import Case, RandomDeformationd
from medsegdiff.diffusion import GaussianProcess, make_sampler
from medsegdiff.models import ImageDiffusion
from medsegdiff.networks import ImageDenoiser
from medsegdiff.synthesis import Pair, PairDrawer
from medsegdiff.training import NoisedImagePrepareBatch

CHANNELS = (32, 64, 128)
SHARES = (0.35, 0.4)
"""Of the minutes: for the segmenter, for the image model; what is left is to draw 60 or so."""
PRETRAINING_MINUTES = 10.0
STEPS = 10
GUIDANCE = 2.0
AGREEMENT = 0.6
"""Least mean Dice between a mask that was given and the one seen in the image drawn for it."""


def make_pairs(
    labelled: Sequence[Case],
    unlabelled: Sequence[Case],
    folder: Path,
    *,
    count: int,
    seed: int,
    minutes: float,
    pretrained: Path | None = None,
    pretraining_minutes: float = PRETRAINING_MINUTES,
) -> list[Case]:
    """New cases, drawn by an image model that is given deformed masks of the labelled ones.

    A diffusion of images learns from all scans, without any mask (once, kept in ``pretrained``).
    A U-Net learns from the labelled cases, and marks the unlabelled; then the diffusion learns to
    draw all scans for their masks. Masks of the labelled cases, deformed, are given to it, and
    images in which the U-Net does not find the mask that was given are left out.

    Args:
        labelled: Cases whose masks may be used.
        unlabelled: Further scans; their masks, if there are some, are not read.
        folder: Folder of the cases that are made; a second call reads them from it.
        count: Number of cases wanted; fewer where too many are left out.
        seed: Seed of all randomness.
        minutes: Minutes of this process's computing, without the pretraining.
        pretrained: Folder of weights from images alone; None: the parent of ``folder``.
        pretraining_minutes: Minutes to make these weights where there are none.

    Returns:
        The cases, each with a label.
    """
    done = folder / "done"
    if not done.is_file():
        torch.manual_seed(seed)
        items = load_items(labelled, masks=True)
        others = load_items(unlabelled, masks=False)
        names = [str(path) for case in (*labelled, *unlabelled) for path in case.images]
        kept = (pretrained or folder.parent) / f"images-{_key(names)}.pt"
        network = pretrained_network(
            items + others, num_classes_of(items), kept, pretraining_minutes
        )
        pairs = draw_pairs(network, items, others, count, seed, 60.0 * minutes)
        for number, pair in enumerate(pairs):
            write_pair(folder, f"synthetic_{number:04d}", pair)
        write_text(done, str(len(pairs)))
    images = sorted(folder.glob("synthetic_*_image.nii.gz"))
    stems = [path.name.removesuffix("_image.nii.gz") for path in images]
    return [
        Case(stem, (path,), (folder / f"{stem}_label.nii.gz",), stem)
        for stem, path in zip(stems, images, strict=True)
    ]


def pretrained_network(
    items: Sequence[Item], num_classes: int, file: Path, minutes: float
) -> ImageDiffusion:
    """An image model that has seen the scans, but no mask; read from ``file`` if it is there."""
    network = ImageDiffusion(
        ImageDenoiser(3, 1 + num_classes, 1, CHANNELS, stride=2),
        GaussianProcess(schedule="cosine"),
        precision="auto",
    )
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    if file.is_file():
        network.load_state_dict(torch.load(file, weights_only=True))
        return network
    blank = [{**item, "label": torch.full_like(item["label"], UNKNOWN_CLASS)} for item in items]
    network = fit(network, diffusion_step(network, blank, num_classes), 60.0 * minutes, 1e-3)
    with written_aside(file) as aside:
        torch.save(network.state_dict(), aside)
    return network


def draw_pairs(
    network: ImageDiffusion,
    items: Sequence[Item],
    others: Sequence[Item],
    count: int,
    seed: int,
    seconds: float,
) -> list[Pair]:
    """Trains segmenter and image model for their shares of the time, draws and sorts out."""
    num_classes = num_classes_of(items)
    segmenter = fit_segmenter(items, num_classes, SHARES[0] * seconds, (16, 32, 64, 128), 3e-3)
    marked = [{**item, "label": marks(segmenter, item["image"])} for item in others]
    repeats = max(1, len(marked) // (4 * len(items)))  # a fifth of what is seen, or more
    seen = [*marked, *list(items) * repeats]
    step = diffusion_step(network, seen, num_classes, mask_dropout=0.1)
    network = fit(network, step, SHARES[1] * seconds, 1e-3)
    sampler = make_sampler("ddim", eta=0.0)
    drawer = PairDrawer(network.eval(), num_classes, sampler, STEPS, guidance=GUIDANCE, seed=seed)
    deform = Compose(
        [
            RandFlipd("label", prob=0.5, spatial_axis=0),
            RandomDeformationd(["label"], 3, displacement=1.0, rotation=0.15, modes=["nearest"]),
        ]
    )
    deform.set_random_state(seed)
    found: list[Pair] = []
    for number in range(0, 2 * count, drawer.batch):
        if len(found) >= count:
            break
        numbers = range(number, number + drawer.batch)
        chosen = [torch.as_tensor(deform(items[n % len(items)])["label"][0]) for n in numbers]
        pairs = drawer.from_masks(numbers, chosen)
        for pair in pairs:
            item = {"image": pair.image, "label": pair.label[None]}
            if agreement(segmenter, item, num_classes) >= AGREEMENT:
                found.append(pair)
    return found[:count]


def diffusion_step(
    network: ImageDiffusion, items: Sequence[Item], num_classes: int, mask_dropout: float = 0.0
) -> Step:
    """A step's loss of the image model, given the masks."""
    prepare = NoisedImagePrepareBatch(
        network, given=("mask",), num_classes=num_classes, mask_dropout=mask_dropout
    )
    augment = Compose(
        [
            RandFlipd(["image", "label"], prob=0.5, spatial_axis=0),
            RandomDeformationd(["image", "label"], 3, displacement=1.0, rotation=0.1, scaling=0.1,
                               prob=0.5),
        ]
    )  # fmt: skip
    drawn = batches(items, augment)

    def step(number: int) -> Tensor:
        x_0, target, _, further = prepare(next(drawn))
        return nn.functional.mse_loss(network(x_0, **further), target)

    return step


def write_pair(folder: Path, stem: str, pair: Pair) -> None:
    """Two NIfTI files of voxels of 1 mm."""
    for name, values in (("image", pair.image[0].numpy()), ("label", pair.label.numpy())):
        image = nib.Nifti1Image(values, np.eye(4))
        image.header.set_xyzt_units("mm")
        with written_aside(folder / f"{stem}_{name}.nii.gz") as aside:
            nib.save(image, aside)


def _key(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:12]
