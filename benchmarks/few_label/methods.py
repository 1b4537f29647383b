"""The methods that learn from few labelled scans, each a function from scans to masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.few_label.labelled_scans import (
    SIZE,
    Item,
    augmentation,
    batches,
    fit,
    fit_network,
    fit_segmenter,
    load_items,
    marks,
    mirrored,
)
from benchmarks.few_label.pair_making import make_pairs
from benchmarks.few_label.pair_measures import mixed
from benchmarks.harness.contender import one_hot
from medsegdiff.bundle import Bundle
from medsegdiff.data import Case
from medsegdiff.few_label import FewLabelInferer
from medsegdiff.models import ImageDiffusion
from medsegdiff.networks import ImageEncoder
from medsegdiff.segmentation import vote_shares
from medsegdiff.training import encoder_weights

CHANNELS, DEPTHS = (16, 32, 64, 192), (1, 2, 2, 2)
"""Of the encoder of ``hippocampus_mr``."""
PSEUDO_SHARE = 0.5
"""Of marked scans in what self-training sees."""
MARKED = 32
"""Scans that are marked for it, at most."""

Marker = Callable[[Tensor], Tensor]
"""Image (1, *SIZE) -> class numbers (1, *SIZE)."""


@dataclass
class Setting:
    """One draw of labelled scans, and what the methods share.

    Attributes:
        labelled: Scans whose masks may be used.
        others: Scans whose masks may not.
        cases: Files of both.
        num_classes: Number K of classes, background included.
        seconds: Seconds of this process's computing for what is trained on masks.
        seed: Seed of all randomness.
        few: Bundle of the features.
        diffusion: Bundle of the segmenter.
        work: Folder for synthetic pairs.
        further: Figures of a method for its row.
        shared: Results that one method leaves to another of the same draw.
    """

    labelled: Sequence[Item]
    others: Sequence[Item]
    cases: tuple[Sequence[Case], Sequence[Case]]
    num_classes: int
    seconds: float
    seed: int
    few: Bundle
    diffusion: Bundle
    work: Path
    further: dict[str, Any] = field(default_factory=dict)
    shared: dict[str, Any] = field(default_factory=dict)

    def pretrained(self) -> ImageDiffusion:
        """The diffusion model of images, which has seen no mask."""
        network = self.few.parser("label_efficient", {"device": "$torch.device('cpu')"})
        found: ImageDiffusion = network.get_parsed_content("network")
        return found


class Anchor(nn.Module):
    """An encoder as a deterministic segmenter.

    Args:
        num_classes: Number K of classes, background included.
        start: Diffusion model of images that it starts from, or None.
    """

    def __init__(self, num_classes: int, start: ImageDiffusion | None = None) -> None:
        super().__init__()
        self.encoder = ImageEncoder(3, 1, num_classes, CHANNELS, DEPTHS)
        if start is not None:
            weights = encoder_weights(start.denoiser, self.encoder)
            self.encoder.load_state_dict(weights, strict=False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, *spatial) -> logits (B, K, *spatial)."""
        return self.encoder(image).anchor


def unet(setting: Setting) -> Marker:
    """(a) MONAI's U-Net from scratch."""
    network = fit_segmenter(setting.labelled, setting.num_classes, setting.seconds)
    return lambda image: marks(network, image)


def encoder(setting: Setting) -> Marker:
    """(a) our encoder from scratch: what ``pretrained`` is without its start."""
    network = Anchor(setting.num_classes)
    network = fit_network(network, setting.labelled, setting.num_classes, setting.seconds)
    return lambda image: marks(network, image)


def pretrained(setting: Setting) -> Marker:
    """(d) the encoder, started from the diffusion model of images."""
    network = Anchor(setting.num_classes, setting.pretrained())
    network = fit_network(network, setting.labelled, setting.num_classes, setting.seconds)
    setting.shared["pretrained"] = network
    return lambda image: marks(network, image)


def features(setting: Setting) -> Marker:
    """(c) perceptrons on the features of the diffusion model of images."""
    parser = setting.few.parser("label_efficient", {"device": "$torch.device('cpu')"})
    network = parser.get_parsed_content("network")
    learner = parser.get_parsed_content("learner")
    items = [(item["image"], item["label"]) for item in setting.labelled]
    found = learner.learn(network, items, setting.num_classes, augmentation())
    inferer = FewLabelInferer(found.features, found.mlps, SIZE, [0])
    setting.shared["features"] = inferer
    setting.further["locations"] = found.record["locations"]
    return lambda image: voted(inferer, image, setting.num_classes)


def voted(inferer: FewLabelInferer, image: Tensor, num_classes: int) -> Tensor:
    """(1, *SIZE) class numbers by the perceptrons' majority."""
    labels = inferer.ensemble(image, inferer.features.network, "").labels
    return vote_shares(labels, num_classes).argmax(dim=0, keepdim=True).to(torch.uint8)


def self_trained(setting: Setting) -> Marker:
    """(d) taught again, with the other scans as ``pretrained`` and ``features`` mark them.

    A scan's soft mask is the mean of both probabilities, so where they disagree it says little.
    """
    for name in ("pretrained", "features"):
        if name not in setting.shared:
            METHODS[name](setting)
    teacher, inferer = setting.shared["pretrained"], setting.shared["features"]
    inferer = FewLabelInferer(inferer.features, inferer.mlps, SIZE)  # unmirrored: half the time
    soft = []
    for item in setting.others[:MARKED]:
        by_features = inferer.probability(item["image"]).mean(dim=0)
        both = (mirrored(teacher, item["image"]) + by_features) / 2.0
        soft.append({"image": item["image"], "label": both})
    hard = [
        {"image": item["image"], "label": one_hot(item["label"], setting.num_classes)[0]}
        for item in setting.labelled
    ]
    network = Anchor(setting.num_classes, setting.pretrained())
    network = fit_network(
        network, mixed(hard, soft, PSEUDO_SHARE), setting.num_classes, setting.seconds, soft=True
    )
    return lambda image: marks(network, image)


def diffusion(setting: Setting) -> Marker:
    """(b) the conditional diffusion segmenter from scratch."""
    return conditional(setting, None)


def pretrained_diffusion(setting: Setting) -> Marker:
    """(d) the same, its encoder started from the diffusion model of images."""
    return conditional(setting, setting.pretrained())


def conditional(setting: Setting, start: ImageDiffusion | None) -> Marker:
    """The segmenter of ``hippocampus_mr``, trained and sampled as the bundle says."""
    parser = setting.diffusion.parser("train", {"device": "$torch.device('cpu')"})
    network = parser.get_parsed_content("network")
    prepare = parser.get_parsed_content("train#prepare_batch")
    criterion = parser.get_parsed_content("train#loss")
    if start is not None:
        weights = encoder_weights(start.denoiser, network.encoder)
        network.encoder.load_state_dict(weights, strict=False)
    drawn = batches(setting.labelled, augmentation())

    def step(number: int) -> Tensor:
        image, targets, _, further = prepare(next(drawn))
        loss: Tensor = criterion(network(image, **further), targets)
        return loss

    trained = fit(network, step, setting.seconds, 2e-3).eval()
    inferer = setting.diffusion.parser("inference").get_parsed_content("inferer")

    def mark(image: Tensor) -> Tensor:
        mean = inferer.ensemble(image, trained, "").mean
        found: Tensor = mean.argmax(dim=0, keepdim=True).to(torch.uint8)
        return found

    return mark


def synthetic(setting: Setting) -> Marker:
    """(e) the U-Net, half of what it sees being synthetic pairs."""
    number = len(setting.labelled)
    folder = setting.work / f"{number}-{setting.seed}-{setting.seconds:g}"
    pairs = make_pairs(
        *setting.cases,
        folder,
        count=60,
        seed=setting.seed,
        minutes=setting.seconds / 60.0,
        pretrained=setting.work,
    )
    items = mixed(setting.labelled, load_items(pairs, masks=True), 0.5)
    setting.further["pairs"] = len(pairs)
    network = fit_segmenter(items, setting.num_classes, setting.seconds)
    return lambda image: marks(network, image)


METHODS: Mapping[str, Callable[[Setting], Marker]] = {
    "unet": unet,
    "encoder": encoder,
    "diffusion": diffusion,
    "features": features,
    "pretrained": pretrained,
    "pretrained_diffusion": pretrained_diffusion,
    "self_trained": self_trained,
    "synthetic": synthetic,
}
