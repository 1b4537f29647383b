"""What a contender is, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss
from torch import Tensor, nn

Batch = dict[str, Tensor]
"""``image`` (B, C, *spatial) and ``label`` (B, M, *spatial), class numbers of M raters."""


class Prediction(NamedTuple):
    """What a contender predicts of one image, on the CPU.

    Attributes:
        mean: Mean probability (K, *spatial) of each class, in [0, 1].
        labels: Label map (N, *spatial) of each member, uint8; N = 1 of a deterministic contender.
    """

    mean: Tensor
    labels: Tensor


Loss = Callable[[nn.Module, Batch, int], Tensor]
"""(network, batch, number of the step) -> scalar loss."""
Predict = Callable[[Sequence[nn.Module], Tensor, str], Prediction]
"""(networks, image (C, *spatial), name of the case) -> prediction."""


@dataclass
class Contender:
    """A method, ready to be trained, timed and judged.

    Attributes:
        name: Name in the table.
        networks: Networks to train; several share the time.
        loss: Function that gives the loss of a training step.
        predict: Function that gives the prediction of one image.
        part: Function that does ``1 / repeats`` of the work of ``predict``, to time slow samplers;
            None: ``predict`` itself is timed.
        repeats: Number of times that the part is done for one image.
        counted: Modules of a network whose passes are evaluations; None: the network itself.
        rate: Factor on the common learning rate.
        weights: Name of the contender that trains these weights; its own if empty.
        members: Number N of members.
        steps: Evaluations one after the other for a member.
        note: Sentence under the table on how it differs from the others.
    """

    name: str
    networks: list[nn.Module]
    loss: Loss
    predict: Predict
    part: Predict | None = None
    repeats: int = 1
    counted: Callable[[nn.Module], dict[str, nn.Module]] | None = None
    rate: float = 1.0
    weights: str = ""
    members: int = 1
    steps: int = 1
    note: str = ""

    @property
    def parameters(self) -> int:
        """Trained values of all networks."""
        return sum(p.numel() for network in self.networks for p in network.parameters())

    @property
    def weights_name(self) -> str:
        """Name that the weights are trained under."""
        return self.weights or self.name

    def work(self, image: Tensor, case: str = "") -> Prediction:
        """The part that is measured."""
        return (self.part or self.predict)(self.networks, image, case)


dice_ce = DiceCELoss(softmax=True, include_background=False, batch=True)
"""Dice and cross-entropy in equal parts: nnU-Net's loss, and that of the bundle's masks."""


def one_hot(label: Tensor, num_classes: int) -> Tensor:
    """(B, *spatial) class numbers -> (B, K, *spatial) float."""
    return F.one_hot(label.long(), num_classes).movedim(-1, 1).float()


def rater_in_turn(batch: Batch, step: int) -> Tensor:
    """(B, *spatial): each rater's masks in turn, for a network with one answer."""
    return batch["label"][:, step % batch["label"].shape[1]]


def random_rater(batch: Batch, step: int) -> Tensor:
    """(B, *spatial): for each image one rater at random, for a network that samples."""
    label = batch["label"]
    chosen = torch.randint(label.shape[1], (len(label),))
    return label[torch.arange(len(label)), chosen]


def padded(image: Tensor, multiple: int) -> Tensor:
    """(C, *spatial) -> (1, C, *spatial'), borders repeated until each axis divides."""
    pads = [p for size in reversed(image.shape[1:]) for p in (0, -size % multiple)]
    return F.pad(image[None], pads, mode="replicate")


def cropped(maps: Tensor, image: Tensor) -> Tensor:
    """(..., *spatial') -> (..., *spatial) of the image: undoes ``padded``."""
    for axis, size in enumerate(image.shape[1:], start=1 - image.ndim):
        maps = maps.narrow(axis, 0, size)
    return maps


def summarised(probability: Tensor) -> Prediction:
    """Members' probabilities (N, K, *spatial) -> their mean and label maps, on the CPU."""
    labels = probability.argmax(dim=1).to("cpu", torch.uint8)
    return Prediction(probability.mean(dim=0).cpu(), labels)
