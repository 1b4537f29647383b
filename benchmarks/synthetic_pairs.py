"""Pairs of image and mask from few labelled and many unlabelled scans, and what they are for.

python -m benchmarks.synthetic_pairs --data hippocampus_mr=/data/hippocampus --labelled 5
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import nibabel as nib
import numpy as np
import torch
from monai.networks.nets import UNet
from monai.transforms import (
    CenterSpatialCropd,
    Compose,
    NormalizeIntensityd,
    Orientationd,
    RandAdjustContrastd,
    RandFlipd,
    RandGaussianNoised,
    RandScaleIntensityd,
    Spacingd,
    SpatialPadd,
    ToTensord,
)
from torch import Tensor, nn

from benchmarks.contenders import dice_ce, one_hot
from benchmarks.training import schedule
from medsegdiff.data.deformation import RandomDeformationd
from medsegdiff.data.manifest import Case, datalist
from medsegdiff.data.transforms import LoadCased, load
from medsegdiff.diffusion.gaussian import GaussianProcess
from medsegdiff.diffusion.samplers import make_sampler
from medsegdiff.files import write_text, written_aside
from medsegdiff.image_model import ImageDiffusion
from medsegdiff.inference.draw import Pair, PairDrawer
from medsegdiff.networks.image_denoiser import ImageDenoiser
from medsegdiff.training.prepare_images import NoisedImagePrepareBatch
from medsegdiff.types import UNKNOWN_CLASS

SIZE = (40, 56, 40)
"""Voxels of 1 mm; the scans are padded and cropped to it around their middle."""
CHANNELS = (32, 64, 128)
SHARES = (0.35, 0.4)
"""Of the minutes: for the segmenter, for the image model; what is left is to draw 60 or so."""
PRETRAINING_MINUTES = 10.0
BATCH = 2
STEPS = 10
GUIDANCE = 2.0
AGREEMENT = 0.6
"""Least mean Dice between a mask that was given and the one seen in the image drawn for it."""

N = TypeVar("N", bound=nn.Module)
Item = dict[str, Any]
Step = Callable[[int], Tensor]


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
        labelled: whose masks may be used.
        unlabelled: further scans; their masks, if there are some, are not read.
        folder: gets the cases; the same ones are read again from it.
        count: of cases wanted; fewer where too many are left out.
        seed: of everything.
        minutes: of this process's computing, without the pretraining.
        pretrained: folder of weights from images alone; that of ``folder`` unless told.
        pretraining_minutes: where there are none.

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


def load_items(cases: Sequence[Case], *, masks: bool) -> list[Item]:
    """``image`` (1, *SIZE), standardised, and ``label`` (1, *SIZE), UNKNOWN_CLASS without masks."""
    chain = Compose(
        [
            LoadCased(),
            Orientationd(["image", "label"], "RAS", labels=None, allow_missing_keys=True),
            Spacingd(
                ["image", "label"],
                (1.0, 1.0, 1.0),
                mode=["bilinear", "nearest"],
                allow_missing_keys=True,
            ),
            NormalizeIntensityd("image"),
            SpatialPadd(["image", "label"], SIZE, mode="edge", allow_missing_keys=True),
            CenterSpatialCropd(["image", "label"], SIZE, allow_missing_keys=True),
            ToTensord(["image", "label"], track_meta=False, allow_missing_keys=True),
        ]
    )
    found = []
    for item in datalist(cases):
        if not masks:
            item.pop("label", None)
        loaded = load(chain, item)
        label = loaded.get(
            "label", torch.full(loaded["image"].shape, UNKNOWN_CLASS, dtype=torch.uint8)
        )
        found.append({"image": loaded["image"], "label": label})
    return found


def num_classes_of(items: Sequence[Item]) -> int:
    """K, background included, of the masks that are there."""
    return 1 + max(int(item["label"].max()) for item in items)


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
    segmenter = fit_segmenter(items, num_classes, SHARES[0] * seconds)
    marked = [{**item, "label": marks(segmenter, item["image"])} for item in others]
    repeats = max(1, len(marked) // (4 * len(items)))  # a fifth of what is seen, or more
    seen = [*marked, *items * repeats] if marked else list(items)
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
        found += [p for p in pairs if agreement(segmenter, p, num_classes) >= AGREEMENT]
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


def fit_segmenter(items: Sequence[Item], num_classes: int, seconds: float) -> nn.Module:
    """A U-Net of half the width of the benchmark's (``benchmarks/unets.py``), trained on items."""
    unet = UNet(3, 1, num_classes, (16, 32, 64, 128), (2, 2, 2), num_res_units=2)
    unet.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    augment = Compose(
        [
            RandFlipd(["image", "label"], prob=0.5, spatial_axis=0),
            RandomDeformationd(["image", "label"], 3, displacement=1.0, prob=0.85),
            RandGaussianNoised("image", prob=0.2, std=0.15),
            RandScaleIntensityd("image", prob=0.3, factors=0.25),
            RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
        ]
    )
    drawn = batches(items, augment)

    def step(number: int) -> Tensor:
        batch = next(drawn)
        with torch.autocast("cpu", torch.bfloat16):
            logits = unet(batch["image"])
        loss: Tensor = dice_ce(logits.float(), one_hot(batch["label"][:, 0], num_classes))
        return loss

    return fit(unet, step, seconds, 3e-3).eval()


@torch.no_grad()
def marks(segmenter: nn.Module, image: Tensor) -> Tensor:
    """(1, *SIZE) class numbers found in an image and its mirror image (1, *SIZE)."""
    both = torch.stack([image, image.flip(1)])
    with torch.autocast("cpu", torch.bfloat16):
        found = segmenter(both).float().softmax(dim=1)
    return (found[0] + found[1].flip(1)).argmax(dim=0, keepdim=True).to(torch.uint8)


def agreement(segmenter: nn.Module, pair: Pair, num_classes: int) -> float:
    """Mean Dice over the foreground between a pair's mask and what is found in its image."""
    found = marks(segmenter, pair.image)[0]
    scores = []
    for value in range(1, num_classes):
        a, b = found == value, pair.label == value
        scores.append(2.0 * float((a & b).sum()) / max(float(a.sum() + b.sum()), 1.0))
    return float(np.mean(scores))


def batches(items: Sequence[Item], augment: Compose) -> Iterator[dict[str, Tensor]]:
    """Batches without end, each from items in a random order, augmented."""
    augment.set_random_state(int(torch.randint(2**31, ())))
    order: list[int] = []
    while True:
        while len(order) < BATCH:
            order += torch.randperm(len(items)).tolist()
        chosen, order = order[:BATCH], order[BATCH:]
        made = [augment(items[index]) for index in chosen]
        yield {
            key: torch.stack([torch.as_tensor(item[key]).as_subclass(Tensor) for item in made])
            for key in ("image", "label")
        }


def fit(network: N, step: Step, seconds: float, rate: float) -> N:
    """Train for so many seconds of this process's computing; gives the averaged weights."""
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.01)
    network.train()
    number, started = 0, time.process_time()
    while (spent := (time.process_time() - started) / max(seconds, 1e-9)) < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = rate * schedule(spent)
        loss = step(number)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        number += 1
        share = min(0.995, number / (10 + number))
        with torch.no_grad():
            for mean, value in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(value, 1.0 - share)
    return average


def write_pair(folder: Path, stem: str, pair: Pair) -> None:
    """Two NIfTI files of voxels of 1 mm."""
    for name, values in (("image", pair.image[0].numpy()), ("label", pair.label.numpy())):
        image = nib.Nifti1Image(values, np.eye(4))
        image.header.set_xyzt_units("mm")
        with written_aside(folder / f"{stem}_{name}.nii.gz") as aside:
            nib.save(image, aside)


def _key(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:12]
