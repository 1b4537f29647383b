"""Pairs of image and mask from few labelled and many unlabelled scans, and what they are for.

python -m benchmarks.few_label.synthetic_pairs --data hippocampus_mr=/data/mr --synthetic synthetic
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

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
from benchmarks.few_label.pair_measures import (
    dice_of,
    drawn_cases,
    encoder_features,
    measured_copies,
    measured_fidelity,
    mixed,
)
from medsegdiff.core import UNKNOWN_CLASS, read_json, write_json, write_text, written_aside
from medsegdiff.data import Case, RandomDeformationd, load_manifest
from medsegdiff.diffusion import GaussianProcess, make_sampler
from medsegdiff.models import ImageDiffusion
from medsegdiff.networks import ImageDenoiser
from medsegdiff.synthesis import Pair, PairDrawer, save_distance_chart
from medsegdiff.training import NoisedImagePrepareBatch

NAME = "synthetic_pairs"
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


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, and write ``synthetic_pairs.json``, ``.md`` and ``.png``; gives what is written."""
    options = parsed(words)
    manifest = load_manifest(options.data)
    training, held_out = manifest.split(options.fold)
    result: dict[str, Any] = read_json(options.output / f"{NAME}.json") or {}
    command = "python -m benchmarks.few_label.synthetic_pairs " + shlex.join(words or sys.argv[1:])
    if options.synthetic:
        result["command"] = command
        real, other = load_items(training, masks=False), load_items(held_out, masks=False)
        drawn = load_items(load_manifest(options.synthetic).cases, masks=False)
        images = [[item["image"] for item in items] for items in (real, drawn, other)]
        features = [encoder_features(some) for some in images]
        result["synthesis"] = without_pairs(read_json(options.synthetic / "synthesis.json"))
        result["fidelity"] = measured_fidelity(features[0], features[1], features[2])
        result["copies"] = measured_copies(torch.stack(images[0]), torch.stack(images[1]))
        written(result, options.output)
    rows: list[dict[str, Any]] = result.setdefault("usefulness", [])
    test = load_items(held_out, masks=True) if options.draws else []
    if options.draws:
        result["usefulness_command"] = command
    for draw in range(options.draws):
        labelled, others = drawn_cases(training, options.labelled, draw)
        folder = options.work / f"{options.labelled}-{draw}-{options.count}-{options.minutes:g}"
        pairs = make_pairs(
            labelled,
            others,
            folder,
            count=options.count,
            seed=draw,
            minutes=options.minutes,
            pretraining_minutes=options.pretraining_minutes,
        )
        real, synthetic = load_items(labelled, masks=True), load_items(pairs, masks=True)
        for share in (0.0, options.share):
            key = {
                "labelled_cases": options.labelled,
                "draw": draw,
                "share": share,
                "pairs": len(pairs) if share else 0,
                "training_minutes": options.training_minutes,
            }
            if not any(row.items() >= key.items() for row in rows):
                items = mixed(real, synthetic, share) if share else real
                rows.append(key | {"dice": dice_of(items, test, options.training_minutes, draw)})
                written(result, options.output)
    return result


def without_pairs(record: dict[str, Any] | None) -> dict[str, Any] | None:
    """What a ``synthesis.json`` says of all pairs together."""
    left_out = ("pairs", "real_distances")
    return record and {name: value for name, value in record.items() if name not in left_out}


def written(result: dict[str, Any], folder: Path) -> None:
    """Write what there is so far."""
    write_json(folder / f"{NAME}.json", result)
    write_text(folder / f"{NAME}.md", "\n".join(page(result)) + "\n")
    if "copies" in result:
        copies = result["copies"]
        limits = copies["real"], copies["drawn"], copies["copy_distance"]
        save_distance_chart(folder / f"{NAME}.png", *limits)


def page(result: dict[str, Any]) -> Iterator[str]:
    """The results as Markdown, line by line."""
    yield "# Synthetic pairs"
    if "copies" in result:
        made, near, like = result["synthesis"], result["copies"], result["fidelity"]
        dropped = ", ".join(f"{n} by {rule}" for rule, n in made["dropped"].items())
        yield f"\n## Cases drawn by {made['settings']['bundle']}"
        yield f"`{result['command']}`\n"
        yield f"{made['drawn']} drawn, {made['kept']} kept; dropped: {dropped}.\n"
        yield f"![distances]({NAME}.png)\n"
        yield "| distance to the nearest training image | median | least |"
        yield "| --- | --- | --- |"
        yield f"| drawn | {near['median_drawn']:.3f} | {near['least_drawn']:.3f} |"
        yield f"| real, itself left out | {near['median_real']:.3f} | {near['real'][0]:.3f} |"
        yield f"\nA copy is nearer than {near['copy_distance']:.3f}, the 1st percentile of the real"
        yield f"ones' distances: {near['copies']} of {len(near['drawn'])} kept cases are.\n"
        yield f"| against {like['images_a_side']} training images | Frechet | precision | recall |"
        yield "| --- | --- | --- | --- |"
        sides = like["held_out_a_side"]
        names = {"drawn": "drawn", "real": "other training images"}
        names |= {"held_out": f"held-out images ({sides} a side)"}
        for kind, name in names.items():
            values = [like[kind][figure] for figure in ("frechet", "precision", "recall")]
            yield f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |"
    rows = result.get("usefulness", [])
    if rows:
        yield "\n## What pairs are for: held-out Dice of a U-Net"
        yield f"`{result['usefulness_command']}`\n"
        yield "| labelled | draw | minutes | pairs | share | Dice |"
        yield "| --- | --- | --- | --- | --- | --- |"
        for row in sorted(
            rows, key=lambda row: [row[k] for k in ("labelled_cases", "draw", "share")]
        ):
            figures = [
                row[k] for k in ("labelled_cases", "draw", "training_minutes", "pairs", "share")
            ]
            yield "| " + " | ".join(f"{v:g}" for v in figures) + f" | {row['dice']:.4f} |"


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="hippocampus_mr")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--synthetic", type=Path, help="what medsegdiff synthesize wrote")
    parser.add_argument("--labelled", type=int, default=5)
    parser.add_argument("--draws", type=int, default=3, help="of the labelled cases")
    parser.add_argument("--count", type=int, default=60, help="pairs a draw")
    parser.add_argument("--share", type=float, default=0.5, help="of pairs in training")
    parser.add_argument("--minutes", type=float, default=2.0, help="to make the pairs")
    parser.add_argument("--pretraining-minutes", type=float, default=PRETRAINING_MINUTES)
    parser.add_argument("--training-minutes", type=float, default=4.0, help="of each U-Net")
    parser.add_argument("--work", type=Path, default=Path("runs/synthetic_pairs"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
