"""Masks from words: attention alone, a grounding module, and a segmenter taught by drawn images.

python -m benchmarks.text.prompted --output benchmarks/results
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.text.phantom_images import (
    FIRST,
    HELD_OUT,
    TEACHING,
    example,
    picture,
    truth_of,
)
from benchmarks.text.prompted_page import NAME, page
from benchmarks.text.real_parts import add_arguments, real_grounding, real_prompted
from benchmarks.text.real_taught import real_diffumask, real_variants
from benchmarks.text.taught_segmenters import diffumask, variants
from medsegdiff.core import read_json, write_json, write_text
from medsegdiff.metrics import error_auroc, reliability
from medsegdiff.phantoms import NAMES, CaptionedImage, captioned_image
from medsegdiff.prompting import (
    GroundedSegmenter,
    Prompted,
    PromptSegmenter,
    TeachingOptions,
    TextToImage,
    label_of,
    open_model,
    suited_options,
    teach,
)


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


def masks_of(found: Prompted) -> Tensor:
    """(K, H, W) where each word is more probable than all others and than none."""
    label = label_of(found)
    return torch.stack([label == k for k in range(1, found.probability.shape[1])])


def grounding(
    model: TextToImage, options: argparse.Namespace, images: Sequence[CaptionedImage]
) -> dict[str, Any]:
    """MIoU of seen things and of unseen ones, asked for by their texts; area of absent ones."""
    suited = suited_options(options.model)
    teaching = TeachingOptions(
        steps=options.grounding_steps,
        template=suited.template,
        layers=suited.layers,
        absolute=suited.absolute,
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


PARTS = {
    "prompted": prompted,
    "grounding": grounding,
    "diffumask": diffumask,
    "variants": variants,
    "real_prompted": real_prompted,
    "real_grounding": real_grounding,
    "real_diffumask": real_diffumask,
    "real_variants": real_variants,
}
KEYS = {
    "prompted_miou": ("prompted", "miou"),
    "absent_false_positive_rate": ("prompted", "absent_false_positive_rate"),
    "grounding_seen_miou": ("grounding", "seen_miou"),
    "grounding_unseen_miou": ("grounding", "unseen_miou"),
    "diffumask_dice_ratio": ("diffumask", "ratio"),
    "real_prompted_miou": ("real_prompted", "miou"),
    "real_absent_false_positive_rate": ("real_prompted", "absent_false_positive_rate"),
    "real_grounding_seen_miou": ("real_grounding", "seen_miou"),
    "real_grounding_unseen_miou": ("real_grounding", "unseen_miou"),
    "real_diffumask_dice_ratio": ("real_diffumask", "ratio"),
    "real_variants_gain": ("real_variants", "gain"),
}
"""Figures at the top of the results, and where they come from."""


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure what is asked for; gives what is in ``text_prompted.json``."""
    options = parsed(words)
    model = open_model(options.model, "cpu")
    test = [captioned_image(HELD_OUT, FIRST + number) for number in range(options.test)]
    file = options.output / f"{NAME}.json"
    result: dict[str, Any] = {}
    command = "python -m benchmarks.text.prompted " + shlex.join(words or sys.argv[1:])
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
        default=[part for part in PARTS if not part.startswith("real")],
        help=f"of {', '.join(PARTS)}",
    )
    parser.add_argument(
        "--slices", nargs="*", default=[], help="real sets, such as acdc=/data/acdc"
    )
    add_arguments(parser)
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
