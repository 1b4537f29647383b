"""Segmenters taught by drawn pictures of hearts, or by variants of few real ones."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.text.described import CUTS, HEART_NAMES, cut_out, slices_of_set
from benchmarks.text.prompted_page import NAME, shown
from benchmarks.text.taught_segmenters import Pair, segmenter_dice
from medsegdiff.prompting import (
    DrawOptions,
    PairOptions,
    TextToImage,
    VariantOptions,
    draw_pairs,
    kept_variants,
    suited_options,
)

TAUGHT, TESTED = 31, 32
"""Seeds of squares that are cut out of slices."""
CONTEXT = "a heart with {}"


def real_diffumask(model: TextToImage, options: argparse.Namespace, _: Any) -> dict[str, Any]:
    """A segmenter taught by drawn hearts alone, against one taught by as many real squares."""
    finding = suited_options(options.model)
    drawing = DrawOptions(
        steps=options.draw_steps, guidance=options.guidance, layers=finding.layers, propagation=0,
        excite=options.excite,
    )  # fmt: skip
    pairing = PairOptions(
        drawing=drawing, finding=finding, agreement=options.agreement,
        only_named=options.only_named, fill_holes=False,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    kinds = [HEART_NAMES, HEART_NAMES, HEART_NAMES[:2], HEART_NAMES[2:]]
    captions = [list(kinds[int(rng.integers(4))]) for _ in range(8 * options.pairs)]
    made = draw_pairs(model, captions, HEART_NAMES, options.pairs, pairing)
    drawn = [(pair.picture, pair.label.long()) for pair in made.kept]
    if drawn:
        shown(made.kept[:12], options.output / f"{NAME}_real_pairs.png")
    test = hearts(options, "held-out", TESTED, options.test)
    real = hearts(options, "training", TAUGHT, max(1, len(drawn)))
    scores = {
        kind: segmenter_dice(pairs, test, options.seconds, HEART_NAMES, flips=False)
        for kind, pairs in {"synthetic": drawn, "real": real}.items()
        if pairs
    }
    mean = {kind: sum(dice.values()) / len(dice) for kind, dice in scores.items()}
    return {
        "pairs": len(drawn),
        "drawn": made.drawn,
        "dropped": made.dropped,
        "dice_synthetic": mean.get("synthetic", 0.0),
        "dice_real": mean["real"],
        "ratio": mean.get("synthetic", 0.0) / mean["real"],
        "by_name": scores,
    }


def real_variants(model: TextToImage, options: argparse.Namespace, _: Any) -> dict[str, Any]:
    """Dice of a segmenter taught by five real squares, with and without variants, three draws."""
    test = hearts(options, "held-out", TESTED, options.test)
    pool = hearts(options, "training", TAUGHT, 200)
    rows = []
    for draw in range(3):
        few = [pool[k] for k in np.random.default_rng(draw).permutation(len(pool))[:5]]
        more: list[Pair] = []
        for number, (image, label) in enumerate(few):
            names = [name for k, name in enumerate(HEART_NAMES, 1) if (label == k).any()]
            variants = VariantOptions(count=4, seed=number, template=CONTEXT)
            more += [(one, label) for one in kept_variants(model, image, label, names, variants)]
        dice = [
            segmenter_dice(pairs, test, options.seconds, HEART_NAMES, flips=False)
            for pairs in (few, [*few, *more])
        ]
        without, with_ = (sum(one.values()) / len(one) for one in dice)
        rows.append({"kept": len(more), "dice_without": without, "dice_with": with_})
    gain = sum(row["dice_with"] - row["dice_without"] for row in rows) / len(rows)
    return {"images": 5, "draws": rows, "gain": gain}


def hearts(options: argparse.Namespace, part: str, seed: int, count: int) -> list[Pair]:
    """Squares of real hearts, each of which shows a structure, with their labels."""
    data = next(one for one in options.slices if one.startswith("acdc"))
    slices = slices_of_set(data, part)
    found: list[Pair] = []
    for number in range(4 * count):
        one = cut_out(slices, CUTS["acdc"], seed, number)
        if one.masks and len(found) < count:
            found.append((one.picture, label_from(one.masks, HEART_NAMES)))
    return found


def label_from(masks: dict[str, torch.Tensor], names: Sequence[str]) -> torch.Tensor:
    """Label (64, 64) of masks, numbered as their names are, from 1 on."""
    label = torch.zeros(64, 64, dtype=torch.long)
    for k, name in enumerate(names, start=1):
        if name in masks:
            label[masks[name]] = k
    return label
