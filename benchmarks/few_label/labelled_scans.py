"""What training from few labels takes: scans in memory, batches, a clock, a U-Net."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

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

from benchmarks.contenders.unets import CHANNELS
from benchmarks.harness.contender import dice_ce, one_hot
from benchmarks.harness.training import schedule
from medsegdiff.core import UNKNOWN_CLASS
from medsegdiff.data import Case, LoadCased, RandomDeformationd, datalist, load
from medsegdiff.synthesis import mean_dice
from medsegdiff.training import weight_average

N = TypeVar("N", bound=nn.Module)
Item = dict[str, Any]
Step = Callable[[int], Tensor]

SIZE = (40, 56, 40)
"""Voxels of 1 mm; the scans are padded and cropped to it around their middle."""
BATCH = 2


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


def fit_segmenter(
    items: Sequence[Item],
    num_classes: int,
    seconds: float,
    channels: Sequence[int] = CHANNELS,
    rate: float = 2e-3,
) -> nn.Module:
    """MONAI's residual U-Net, as among the contenders, trained on labelled items."""
    unet = UNet(3, 1, num_classes, channels, (2, 2, 2), num_res_units=2)
    return fit_network(unet, items, num_classes, seconds, rate)


def fit_network(
    network: N,
    items: Sequence[Item],
    num_classes: int,
    seconds: float,
    rate: float = 2e-3,
    soft: bool = False,
) -> N:
    """A network of logits, trained on labelled items as ``fit_segmenter`` trains its U-Net.

    ``soft``: the items' labels are probabilities (K, *SIZE) instead of class numbers.
    """
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    drawn = batches(items, augmentation(soft))

    def step(number: int) -> Tensor:
        batch = next(drawn)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(batch["image"])
        label = batch["label"]
        target = label if soft else one_hot(label[:, 0], num_classes)
        loss: Tensor = dice_ce(logits.float(), target)
        return loss

    return fit(network, step, seconds, rate).eval()


def augmentation(soft: bool = False) -> Compose:
    """Of images and their masks, the same for all segmenters; ``soft`` masks are interpolated."""
    keys, modes = ["image", "label"], ["bilinear", "bilinear" if soft else "nearest"]
    return Compose(
        [
            RandFlipd(keys, prob=0.5, spatial_axis=0),
            RandomDeformationd(keys, 3, displacement=1.0, prob=0.85, modes=modes),
            RandGaussianNoised("image", prob=0.2, std=0.15),
            RandScaleIntensityd("image", prob=0.3, factors=0.25),
            RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
        ]
    )


def marks(segmenter: nn.Module, image: Tensor) -> Tensor:
    """(1, *SIZE) class numbers found in an image and its mirror image (1, *SIZE)."""
    return mirrored(segmenter, image).argmax(dim=0, keepdim=True).to(torch.uint8)


@torch.no_grad()
def mirrored(segmenter: nn.Module, image: Tensor) -> Tensor:
    """(K, *SIZE) mean probability in an image and its mirror image (1, *SIZE)."""
    both = torch.stack([image, image.flip(1)])
    with torch.autocast("cpu", torch.bfloat16):
        found = segmenter(both).float().softmax(dim=1)
    return (found[0] + found[1].flip(1)) / 2.0


def agreement(segmenter: nn.Module, item: Item, num_classes: int) -> float:
    """Mean Dice over the foreground between an item's mask and what is found in its image."""
    found = marks(segmenter, item["image"])
    return mean_dice(item["label"], found, range(1, num_classes))


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
    average = weight_average(network, 0.995)
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
        average.update_parameters(network)
    return cast(N, average.module)
