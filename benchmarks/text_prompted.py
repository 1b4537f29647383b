"""Masks from words: attention alone, a grounding module, and a segmenter taught by drawn images.

python -m benchmarks.text_prompted --output benchmarks/results
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import UNet
from torch import Tensor, nn

from benchmarks.captioned_slices import captioned_slices
from benchmarks.contenders import dice_ce, one_hot
from benchmarks.text_prompted_page import NAME, page, shown
from medsegdiff.core import read_json, write_json, write_text
from medsegdiff.metrics import error_auroc, reliability
from medsegdiff.phantoms import NAMES, CaptionedImage, captioned_image
from medsegdiff.prompting import (
    DrawOptions,
    Example,
    GroundedSegmenter,
    PairOptions,
    Prompted,
    PromptSegmenter,
    TeachingOptions,
    TextToImage,
    VariantOptions,
    as_picture,
    draw_pairs,
    kept_variants,
    label_of,
    open_model,
    suited_options,
    teach,
)

HELD_OUT, TEACHING, REAL = 1, 2, 3
"""Seeds of images that the model has not been trained on."""
FIRST = 1000
"""The first held-out image that is judged; options were chosen by looking at earlier ones."""


def picture(one: CaptionedImage) -> Tensor:
    """(1, 64, 64) in [-1, 1]."""
    return as_picture(torch.from_numpy(one.image)[None])


def example(one: CaptionedImage) -> Example:
    """An image with its masks, each by its text and by its name alone."""
    masks = [torch.from_numpy(thing.mask) for thing in one.things]
    texts = [(thing.text, thing.name) for thing in one.things]
    return Example(picture(one), tuple(texts), tuple(masks))


def iou(found: Tensor, truth: Tensor) -> float:
    """Intersection over union of two masks."""
    union = float((found | truth).sum())
    return float((found & truth).sum()) / union if union else 1.0


def prompted(
    model: TextToImage, options: argparse.Namespace, images: Sequence[CaptionedImage]
) -> dict[str, Any]:
    """MIoU over the things that are named and there, and what absent ones are given.

    Also how well the variance over draws tells wrong pixels (AUROC, all images together), and the
    calibration error of the probability that any word is there.

    Each image is asked for its things by their names alone, and once more for one that is absent
    as well. A thing that is taken to be absent has an IoU of 0.
    """
    suited = suited_options(options.model, attended=options.attended)
    segmenter = PromptSegmenter(model, suited)
    by_name: dict[str, list[float]] = {name: [] for name in NAMES}
    area: list[float] = []
    lost: list[bool] = []
    variance, wrong, reliable = [], [], []
    for number, one in enumerate(images):
        there = [thing.name for thing in one.things]
        alone = segmenter(picture(one), there, number)
        for mask, thing in zip(masks_of(alone), one.things, strict=True):
            by_name[thing.name].append(iou(mask, torch.from_numpy(thing.mask)))
        lost += (~alone.present).tolist()
        truth, nowhere = truth_of(one), alone.probability[:, 0].mean(dim=0)
        variance.append(alone.probability.var(dim=0).sum(dim=0))
        wrong.append(label_of(alone) != truth)
        reliable.append(reliability((1.0 - nowhere).numpy(), (truth > 0).numpy()))
        missing = [name for name in NAMES if name not in there]
        found = segmenter(picture(one), [*there, missing[number % len(missing)]], number)
        area.append(float(masks_of(found)[-1].float().mean()))
    means = {name: sum(v) / len(v) for name, v in by_name.items() if v}
    return {
        "miou": sum(means.values()) / len(means),
        "by_name": means,
        "variance_auroc": error_auroc(torch.stack(variance).numpy(), torch.stack(wrong).numpy()),
        "ece": sum(reliable[1:], reliable[0]).ece,
        "attended": suited.attended,
        "absent_false_positive_rate": sum(a > 0.002 for a in area) / len(area),
        "absent_mean_area": sum(area) / len(area),
        "present_called_absent": sum(lost) / len(lost),
    }


def truth_of(one: CaptionedImage) -> Tensor:
    """(64, 64) number of the thing at each place, in the caption's order, from 1 on."""
    masks = torch.stack([torch.from_numpy(thing.mask) for thing in one.things])
    return torch.where(masks.any(dim=0), 1 + masks.int().argmax(dim=0), 0)


def masks_of(found: Prompted) -> Tensor:
    """(K, H, W) where each word is more probable than all others and than none."""
    label = label_of(found)
    return torch.stack([label == k for k in range(1, found.probability.shape[1])])


def real_slices(
    model: TextToImage, options: argparse.Namespace, images: Sequence[CaptionedImage]
) -> dict[str, Any]:
    """MIoU by name on held-out slices of real sets, asked for all that their captions name."""
    segmenter = PromptSegmenter(model, suited_options(options.model, attended=0.0))
    by_name: dict[str, list[float]] = {}
    for data in options.slices:
        for number, one in enumerate(captioned_slices([data], "held-out", limit=len(images))):
            names = [texts[-1] for texts in one.texts]
            found = masks_of(segmenter(one.picture, names, number))
            for name, mask, truth in zip(names, found, one.masks, strict=True):
                by_name.setdefault(name, []).append(iou(mask, truth > 0))
    return {
        "by_name": {name: sum(v) / len(v) for name, v in by_name.items()},
        "slices": {name: len(v) for name, v in by_name.items()},
    }


def grounding(
    model: TextToImage, options: argparse.Namespace, images: Sequence[CaptionedImage]
) -> dict[str, Any]:
    """MIoU of seen things and of unseen ones, asked for by their texts; area of absent ones."""
    suited = suited_options(options.model)
    teaching = TeachingOptions(
        steps=options.grounding_steps,
        template=suited.template,
        layers=suited.layers,
        level=0.05,
        learning_rate=3e-3,
    )
    numbers = range(options.taught)
    taught = [example(captioned_image(TEACHING, n, without_unseen=True)) for n in numbers]
    segmenter = GroundedSegmenter(model, teach(model, taught, teaching), teaching)
    scores: dict[bool, list[float]] = {False: [], True: []}
    absent: list[float] = []
    for number, one in enumerate(images):
        missing = [name for name in NAMES if name not in {t.name for t in one.things}]
        asked = [*(t.text for t in one.things), missing[number % len(missing)]]
        found = masks_of(segmenter(picture(one), asked, number))
        for mask, thing in zip(found, one.things, strict=False):
            scores[thing.unseen].append(iou(mask, torch.from_numpy(thing.mask)))
        absent.append(float(found[-1].float().mean()))
    return {
        "seen_miou": sum(scores[False]) / len(scores[False]),
        "unseen_miou": sum(scores[True]) / len(scores[True]),
        "absent_false_positive_rate": sum(area > 0.002 for area in absent) / len(absent),
        "taught_images": len(taught),
        "steps": options.grounding_steps,
    }


def segmenter_dice(
    pairs: Sequence[tuple[Tensor, Tensor]], test: Sequence[CaptionedImage], seconds: float
) -> dict[str, float]:
    """Dice by name, on real images, of a small U-Net taught by images (1, 64, 64) and labels."""
    torch.manual_seed(0)
    classes = 1 + len(NAMES)
    unet: nn.Module = UNet(2, 1, classes, (16, 32, 64, 96), (2, 2, 2), num_res_units=2)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=2e-3, weight_decay=0.01)
    images = torch.stack([image for image, _ in pairs])
    labels = torch.stack([label for _, label in pairs]).long()
    started = time.process_time()
    while (spent := (time.process_time() - started) / seconds) < 1.0:
        chosen = torch.randint(len(images), (16,))
        x, y = images[chosen], labels[chosen]
        flips = [axis for axis in (1, 2) if float(torch.rand(())) < 0.5]
        x, y = x.flip([axis + 1 for axis in flips]), y.flip(flips)
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
        for one in test:
            sample = unet(picture(one)[None]).argmax(dim=1)[0]
            truth = torch.from_numpy(one.label).long()
            for k in range(1, classes):
                sums[0, k] += 2 * ((sample == k) & (truth == k)).sum()
                sums[1, k] += (sample == k).sum() + (truth == k).sum()
    dice = (sums[0] / sums[1].clamp_min(1.0))[1:]
    return dict(zip(NAMES, dice.tolist(), strict=True))


def real_pairs(count: int, seed: int = REAL) -> list[tuple[Tensor, Tensor]]:
    """Images of the phantom with their true labels."""
    drawn = [captioned_image(seed, number) for number in range(count)]
    return [(picture(one), torch.from_numpy(one.label)) for one in drawn]


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
        "synthetic": segmenter_dice(synthetic, test, options.seconds),
        "real": segmenter_dice(real_pairs(len(synthetic)), test, options.seconds),
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
        dice = segmenter_dice(pairs, test, options.seconds)
        result[f"dice_{kind}"] = sum(dice.values()) / len(dice)
    return {"images": len(few), "drawn": asked, "kept": len(found), **result}


PARTS = {
    "prompted": prompted,
    "grounding": grounding,
    "diffumask": diffumask,
    "variants": variants,
    "slices": real_slices,
}
KEYS = {
    "prompted_miou": ("prompted", "miou"),
    "absent_false_positive_rate": ("prompted", "absent_false_positive_rate"),
    "grounding_seen_miou": ("grounding", "seen_miou"),
    "grounding_unseen_miou": ("grounding", "unseen_miou"),
    "diffumask_dice_ratio": ("diffumask", "ratio"),
}
"""Figures at the top of the results, and where they come from."""


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure what is asked for; gives what is in ``text_prompted.json``."""
    options = parsed(words)
    model = open_model(options.model, "cpu")
    test = [captioned_image(HELD_OUT, FIRST + number) for number in range(options.test)]
    file = options.output / f"{NAME}.json"
    result: dict[str, Any] = {}
    command = "python -m benchmarks.text_prompted " + shlex.join(words or sys.argv[1:])
    for part in options.parts:
        found = PARTS[part](model, options, test) | {"command": command}
        figures = {key: found[name] for key, (of, name) in KEYS.items() if of == part}
        result = (read_json(file) or {}) | {part: found} | figures  # others may have written
        written(result, options.output)
    return result


def written(result: dict[str, Any], folder: Path) -> None:
    """Write figures and page."""
    write_json(folder / f"{NAME}.json", result)
    write_text(folder / f"{NAME}.md", page(result))


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="small_text_to_image", help="folder, bundle, hub name")
    parser.add_argument(
        "--parts",
        type=lambda text: text.split(","),
        default=[part for part in PARTS if part != "slices"],
        help=f"of {', '.join(PARTS)}",
    )
    parser.add_argument("--slices", nargs="*", default=[], help="real sets, for the part slices")
    parser.add_argument("--test", type=int, default=100, help="held-out images")
    parser.add_argument(
        "--attended", type=float, help="that a word has to draw; else as the bundle"
    )
    parser.add_argument("--taught", type=int, default=500, help="images of the grounding module")
    parser.add_argument("--grounding-steps", type=int, default=2500)
    parser.add_argument("--pairs", type=int, default=150, help="drawn images that are kept")
    parser.add_argument("--draw-steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=2.0, help="1: none")
    parser.add_argument("--agreement", type=float, default=0.3, help="of pairs that are kept")
    parser.add_argument("--excite", type=float, default=0.0, help="step to the neglected word")
    parser.add_argument("--most", type=int, default=5, help="things of a drawn picture")
    parser.add_argument("--only-named", action="store_true", help="pictures of nothing else")
    parser.add_argument("--fill-holes", action="store_true", help="of drawn pictures' masks")
    parser.add_argument("--few", type=int, default=12, help="real images that get variants")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each segmenter")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
