"""Places by a small network that sees the whole scan, coarsely."""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, NormalizeIntensityd, Orientationd, Spacingd
from numpy.typing import NDArray
from scipy import ndimage

from medsegdiff.core.errors import InputError
from medsegdiff.data.around_structures import MARGIN, grown
from medsegdiff.locating.place import Located, Place
from medsegdiff.networks.encoder import ImageEncoder

DAMAGED = (OSError, EOFError, RuntimeError, TypeError, AttributeError, UnpicklingError)
"""What loading a file that holds no weights ends in."""

SPECK = 0.02
"""Share of the largest piece below which a piece is none."""


class NetworkLocator:
    """Finds the places of structures as pieces of what a network sees as foreground.

    Several weights, of the folds of a study, are used as one ensemble. A scan always has a place:
    where nothing is likely, the likeliest.

    Args:
        network: Network of two classes, background and structure.
        weights: File of a list of weights, as ``train_locator`` writes one.
        spacing: Spacing in mm, along R, A and S, that the network sees.
        margin: Share of a piece's extent that is added on each side.

    Raises:
        InputError: on the first call, if the weights are missing or of another network.
    """

    def __init__(
        self,
        network: ImageEncoder,
        weights: str | Path,
        spacing: Sequence[float],
        margin: float = MARGIN,
    ) -> None:
        self.network, self.weights, self.margin = network, Path(weights), margin
        self.chain = coarse_chain(["image"], spacing)
        self._networks: list[ImageEncoder] = []

    def __call__(self, scan: MetaTensor) -> Located:
        """The places in a scan.

        Args:
            scan: Image (C, X, Y, Z) with its affine, voxel index -> RAS+ mm.
        """
        started = time.perf_counter()
        image = self.chain({"image": scan.clone()})["image"]
        found = pieces(self.probability(torch.as_tensor(image.as_tensor())), self.margin)
        affine = np.asarray(image.affine, dtype=np.float64)
        places = tuple(
            _place(str(number) if len(found) > 1 else "", box, affine)
            for number, (box, _) in enumerate(found, start=1)
        )
        score = min(score for _, score in found)
        return Located(places, "network", score, time.perf_counter() - started)

    @torch.no_grad()
    def probability(self, image: torch.Tensor) -> NDArray[np.float32]:
        """Probability (X, Y, Z) of any structure in a coarse image (C, X, Y, Z)."""
        networks = self._loaded()
        each = [torch.softmax(one(image[None]).anchor.float(), dim=1)[0, 1] for one in networks]
        return torch.stack(each).mean(dim=0).numpy()

    def _loaded(self) -> list[ImageEncoder]:
        if not self._networks:
            try:
                contents = torch.load(self.weights, map_location="cpu", weights_only=True)
                for content in contents:
                    one = deepcopy(self.network)
                    one.load_state_dict(content)
                    self._networks.append(one.eval())
            except DAMAGED as error:
                self._networks = []
                rule = "cannot be read as the weights of the locator"
                remedy = "Train the bundle, and copy the run's locator.pt there"
                raise InputError(self.weights, rule, remedy) from error
        return self._networks


def coarse_chain(keys: Sequence[str], spacing: Sequence[float]) -> Compose:
    """Transforms that bring ``keys``, of which the first is the image, to the coarse grid."""
    return Compose(
        [
            Orientationd(keys, axcodes="RAS", labels=None),
            Spacingd(keys, pixdim=tuple(spacing), mode="bilinear", padding_mode="border"),
            NormalizeIntensityd(keys[0], channel_wise=True),
        ]
    )


def pieces(
    probability: NDArray[np.float32], margin: float
) -> list[tuple[tuple[slice, ...], float]]:
    """Boxes of the pieces of a structure, each with its highest probability, the largest first.

    Pieces whose boxes meet are one.

    Args:
        probability: Probability (*spatial) of any structure.
        margin: Share of a piece's extent that is added on each side.
    """
    threshold = min(0.5, 0.5 * float(probability.max()))
    labels, _ = ndimage.label(probability >= threshold, np.ones((3,) * probability.ndim))
    boxes: list[tuple[float, tuple[slice, ...]]] = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        inside = float(probability[box][labels[box] == number].sum())
        low, high = (np.array([getattr(side, end) for side in box]) for end in ("start", "stop"))
        boxes.append((inside, grown(low, high, probability.shape, margin)))
    largest = max(size for size, _ in boxes)
    kept = _merged(
        [
            box
            for size, box in sorted(boxes, reverse=True, key=lambda one: one[0])
            if size >= SPECK * largest
        ]
    )
    return [(box, float(probability[box].max())) for box in kept]


def _merged(boxes: Sequence[tuple[slice, ...]]) -> list[tuple[slice, ...]]:
    kept: list[tuple[slice, ...]] = []
    for box in boxes:
        met = [one for one in kept if _meet(one, box)]
        if not met:
            kept.append(box)
            continue
        rest = [one for one in kept if one not in met]
        sides = zip(*met, box, strict=True)
        joined = tuple(slice(min(s.start for s in of), max(s.stop for s in of)) for of in sides)
        kept = _merged([joined, *rest])  # it may meet others now
    return kept


def _meet(one: tuple[slice, ...], other: tuple[slice, ...]) -> bool:
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))


def _place(name: str, box: tuple[slice, ...], affine: NDArray[np.float64]) -> Place:
    """The place of a box of a grid."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    low, high = (np.array([getattr(side, end) for side in box]) for end in ("start", "stop"))
    centre: Any = affine[:3, :3] @ ((low + high - 1) / 2.0) + affine[:3, 3]
    size: Any = (high - low) * spacing
    return Place(name, tuple(centre.tolist()), tuple(size.tolist()), affine[:3, :3] / spacing)
