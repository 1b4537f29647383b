"""MONAI's U-Net as a peer of a planned bundle: its levels, patches, augmentation and windows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from math import prod
from typing import Any, Literal

import torch
from monai.inferers import sliding_window_inference
from monai.networks.nets import UNet
from monai.utils import set_determinism
from torch import Tensor, nn

from benchmarks.harness.contender import dice_ce, one_hot
from benchmarks.harness.training import AVERAGING, CLIP, schedule
from medsegdiff.bundle import Bundle
from medsegdiff.core import UNKNOWN_CLASS
from medsegdiff.models import autocast
from medsegdiff.segmentation import Ensemble, most_probable
from medsegdiff.training import weight_average

WIDTHS = (16, 32, 64, 128, 192)
"""Widths of its levels, whatever those of the bundle's encoder are."""

SHORTEST = 0.1
"""Least CPU time of its steps in seconds, where reading the data has taken all there was."""


class PlannedUNet(nn.Module):
    """MONAI's residual U-Net with the strides of a bundle's encoder.

    Its first convolution has the first stride, so that it has no level of the image's size.

    Args:
        encoder: Configuration of the bundle's encoder.
        in_channels: Number of channels of an image.
        num_classes: Number K of classes, background included.
    """

    precision: Literal["auto"] = "auto"

    def __init__(self, encoder: dict[str, Any], in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        stem, *below = encoder["strides"]
        steps = below if max(stem) == 1 else [stem, *below]
        self.unet = UNet(
            spatial_dims=encoder["spatial_dims"],
            in_channels=in_channels,
            out_channels=num_classes,
            channels=WIDTHS[: len(steps) + 1],
            strides=[tuple(step) for step in steps],
            num_res_units=2,
        )
        self.multiple = [prod(axis) for axis in zip(*encoder["strides"], strict=True)]

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K, *spatial) of images (B, C, *spatial), of any size."""
        size = image.shape[2:]
        short = [-n % m for n, m in zip(size, self.multiple, strict=True)]
        pads = [pad for one in reversed(short) for pad in (0, one)]
        with autocast(self.precision, image.device):  # as ours
            logits = self.unet(nn.functional.pad(image, pads, mode="replicate")).float()
        for axis, length in enumerate(size, start=2):
            logits = logits.narrow(axis, 0, length)
        return torch.as_tensor(logits)


def train_for(bundle: Bundle, changes: dict[str, Any], seconds: float) -> tuple[PlannedUNet, int]:
    """A U-Net trained for a CPU time on the data loader of a bundle's ``train``.

    AdamW with the bundle's rate and decay, warm-up and cosine over the time, Dice and
    cross-entropy with one rater a step, gradients clipped, weights averaged.

    Args:
        bundle: Planned bundle.
        changes: Keys of ``configs/train`` -> values: the data, the fold and the seed.
        seconds: CPU time of reading the data, of the patches and of the steps.

    Returns:
        The network with averaged weights, in evaluation mode, and the number of steps.
    """
    started = time.process_time()
    parser = bundle.parser("train", changes)
    parser.parse()
    set_determinism(seed=parser.get_parsed_content("seed"))
    loader = parser.get_parsed_content("train#dataloader")
    encoder = parser["network_def"]["encoder"]
    channels, classes = (parser.get_parsed_content(key) for key in ("channels", "num_classes"))
    network = PlannedUNet(encoder, channels, classes).train()
    layout = parser.get_parsed_content("memory_format")
    network.to(memory_format=layout)  # type: ignore[call-overload]
    rate = float(parser.get_parsed_content("learning_rate"))
    decay = float(parser["train"]["optimizer"]["weight_decay"])
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
    average, steps = weight_average(network, AVERAGING), 0
    read = time.process_time()
    left = max(started + seconds - read, SHORTEST)
    while True:
        for batch in loader:
            spent = (time.process_time() - read) / left
            if spent >= 1.0:
                set_determinism(None)
                trained = average.module.eval()
                assert isinstance(trained, PlannedUNet)
                return trained, steps
            optimizer.param_groups[0]["lr"] = rate * schedule(spent)
            label = batch["label"][:, steps % batch["label"].shape[1]]
            target = one_hot(label.masked_fill(label == UNKNOWN_CLASS, 0), classes)
            loss = dice_ce(network(torch.as_tensor(batch["image"])), torch.as_tensor(target))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimizer.step()
            average.update_parameters(network)
            steps += 1


class OneMaskInferer:
    """The probabilities of a deterministic network as an ensemble of one member.

    Args:
        window: Greatest size of a window of the network, for each of its axes.
        mirror_axes: Axes over whose mirror images the probabilities are averaged.
        settings: Settings of an ensemble, of which the record of a case has the keys.
    """

    fusion = "mean"

    def __init__(
        self,
        window: Sequence[int],
        mirror_axes: Sequence[int] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.window, self._settings = tuple(window), dict(settings or {})
        axes = range(len(mirror_axes) + 1)
        self.mirrors = [c for n in axes for c in combinations(mirror_axes, n)]

    @property
    def settings(self) -> dict[str, Any]:
        """Settings for the record of a case."""
        return self._settings | {"members": 1, "mirror_images": len(self.mirrors)}

    def check(self, network: Any) -> None:
        """Nothing is refused."""

    @torch.no_grad()
    def ensemble(
        self,
        image: Tensor,
        network: PlannedUNet,
        case: str,
        storage: Any = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Ensemble:
        """Statistics of one image (C, *spatial), a volume slice by slice for a 2D network.

        The variance is p (1 - p) / 4: the map in which a deterministic network says where it
        doubts, scaled to the range of a variance.
        """
        if image.ndim - 1 > len(self.window):
            planes = [self._probability(plane, network) for plane in image.unbind(-1)]
            mean = torch.stack(planes, dim=-1)
        else:
            mean = self._probability(image, network)
        doubt = mean * (1.0 - mean) / 4.0
        return Ensemble(mean, doubt, mean, most_probable(mean[None]), windows={"run": 1})

    def _probability(self, image: Tensor, network: PlannedUNet) -> Tensor:
        found = []
        for axes in self.mirrors:
            flipped = [2 + a for a in axes]
            logits = sliding_window_inference(
                image[None].flip(flipped) if axes else image[None],
                [min(w, n) for w, n in zip(self.window, image.shape[1:], strict=True)],
                1,
                network,
                overlap=0.25,
                mode="gaussian",
            )
            found.append(torch.softmax(logits, dim=1).flip(flipped)[0])
        return torch.stack(found).mean(dim=0)
