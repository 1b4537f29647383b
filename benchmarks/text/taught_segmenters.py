"""Segmenters taught by drawn images, by variants of real ones, or by real ones alone."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.nets import UNet
from torch import Tensor, nn

from benchmarks.harness.contender import dice_ce, one_hot
from benchmarks.text.phantom_images import REAL, TEACHING, picture
from benchmarks.text.prompted_page import NAME, shown
from medsegdiff.phantoms import NAMES, CaptionedImage, captioned_image
from medsegdiff.prompting import (
    DrawOptions,
    PairOptions,
    TextToImage,
    VariantOptions,
    draw_pairs,
    kept_variants,
    suited_options,
)

Pair = tuple[Tensor, Tensor]
"""An image (1, 64, 64) in [-1, 1] and its label (64, 64)."""


def segmenter_dice(
    pairs: Sequence[Pair],
    test: Sequence[Pair],
    seconds: float,
    names: Sequence[str] = NAMES,
    flips: bool = True,
) -> dict[str, float]:
    """Dice by name, on test pairs, of a small U-Net taught by images (1, 64, 64) and labels.

    Args:
        pairs: Images with labels to learn from.
        test: Images with labels to be judged on.
        seconds: Seconds of this process's clock.
        names: Names of the labels, from 1 on.
        flips: Whether images are mirrored at random.
    """
    torch.manual_seed(0)
    classes = 1 + len(names)
    unet: nn.Module = UNet(2, 1, classes, (16, 32, 64, 96), (2, 2, 2), num_res_units=2)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=2e-3, weight_decay=0.01)
    images = torch.stack([image for image, _ in pairs])
    labels = torch.stack([label for _, label in pairs]).long()
    started = time.process_time()
    while (spent := (time.process_time() - started) / seconds) < 1.0:
        chosen = torch.randint(len(images), (16,))
        x, y = images[chosen], labels[chosen]
        axes = [axis for axis in (1, 2) if flips and float(torch.rand(())) < 0.5]
        x, y = x.flip([axis + 1 for axis in axes]), y.flip(axes)
        x = (
            x * float(torch.empty(()).uniform_(0.8, 1.2))
            + 0.1 * torch.randn(1)
            + 0.05 * torch.randn_like(x)
        )
        loss = dice_ce(unet(x), one_hot(y, classes))
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1.0, 2.0 * (1.0 - spent))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unet.eval()
    sums = torch.zeros(2, classes)
    with torch.no_grad():
        for image, truth in test:
            sample = unet(image[None]).argmax(dim=1)[0]
            for k in range(1, classes):
                sums[0, k] += 2 * ((sample == k) & (truth == k)).sum()
                sums[1, k] += (sample == k).sum() + (truth == k).sum()
    dice = (sums[0] / sums[1].clamp_min(1.0))[1:]
    return dict(zip(names, dice.tolist(), strict=True))


def real_pairs(count: int, seed: int = REAL) -> list[Pair]:
    """Images of the phantom with their true labels."""
    return pairs_of([captioned_image(seed, number) for number in range(count)])


def pairs_of(images: Sequence[CaptionedImage]) -> list[Pair]:
    """Generated images as they are learned from."""
    return [(picture(one), torch.from_numpy(one.label)) for one in images]


def diffumask(
    model: TextToImage, options: argparse.Namespace, test: Sequence[CaptionedImage]
) -> dict[str, Any]:
    """A segmenter taught by drawn images alone, against one taught by as many real ones."""
    described = (captioned_image(TEACHING, 10_000 + number) for number in range(8 * options.pairs))
    captions = [[t.text for t in one.things][: options.most] for one in described]
    finding = suited_options(options.model)
    drawing = DrawOptions(
        steps=options.draw_steps,
        guidance=options.guidance,
        layers=finding.layers,
        propagation=finding.propagation,
        excite=options.excite,
    )
    pairing = PairOptions(
        drawing=drawing,
        finding=finding,
        agreement=options.agreement,
        only_named=options.only_named,
        fill_holes=options.fill_holes,
    )
    made = draw_pairs(model, captions, NAMES, options.pairs, pairing)
    synthetic = [(pair.picture, pair.label) for pair in made.kept]
    scores = {
        "synthetic": segmenter_dice(synthetic, pairs_of(test), options.seconds),
        "real": segmenter_dice(real_pairs(len(synthetic)), pairs_of(test), options.seconds),
    }
    mean = {kind: sum(dice.values()) / len(dice) for kind, dice in scores.items()}
    shown(made.kept[:12], options.output / f"{NAME}_pairs.png")
    return {
        "pairs": len(synthetic),
        "drawn": made.drawn,
        "dropped": made.dropped,
        "dice_synthetic": mean["synthetic"],
        "dice_real": mean["real"],
        "ratio": mean["synthetic"] / mean["real"],
        "by_name": scores,
    }


def variants(
    model: TextToImage, options: argparse.Namespace, test: Sequence[CaptionedImage]
) -> dict[str, Any]:
    """A segmenter taught by few real images, with and without variants of them."""
    few = [captioned_image(REAL, number) for number in range(options.few)]
    plain = [(picture(one), torch.from_numpy(one.label)) for one in few]
    found, asked = [], 0
    for number, one in enumerate(few):
        mask = torch.from_numpy(one.label)
        kept = kept_variants(
            model, picture(one), mask, [t.text for t in one.things],
            VariantOptions(count=4, seed=number),
        )  # fmt: skip
        asked += 4
        found += [(variant, mask) for variant in kept]
    result = {}
    for kind, pairs in {"without": plain, "with": [*plain, *found]}.items():
        dice = segmenter_dice(pairs, pairs_of(test), options.seconds)
        result[f"dice_{kind}"] = sum(dice.values()) / len(dice)
    return {"images": len(few), "drawn": asked, "kept": len(found), **result}
