"""Refinement of maps and masks along the image's edges."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from medsegdiff.core.errors import UsageError
from medsegdiff.prompting.pipeline import INSTALL


def guided(maps: Tensor, image: Tensor, radius: int, eps: float = 0.02) -> Tensor:
    """Guided filtering (He et al., "Guided Image Filtering", PAMI 2013), by kornia.

    Args:
        maps: Maps (B, K, H, W).
        image: Image (1, 1 or 3, H, W) in [-1, 1], whose edges the maps shall follow.
        radius: Radius of the window in pixels; 0 for no filtering.
        eps: Squared contrast from which on an edge is kept.

    Raises:
        UsageError: the extra ``text`` is not installed.
    """
    if radius < 1:
        return maps
    filtered: Tensor = _filters().guided_blur(_grey(image, maps), maps, 2 * radius + 1, eps)
    return filtered


def conditional_field(
    probability: Tensor,
    image: Tensor,
    weight: float,
    colour: float = 0.3,
    distance: float = 2.0,
    iterations: int = 5,
) -> Tensor:
    """Probabilities after a conditional random field, in which similar near pixels agree.

    Mean field of Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian
    Edge Potentials", NIPS 2011, with Potts compatibility and only the appearance kernel, within a
    window; a pixel is one of its own neighbours. Each iteration is a joint bilateral filter, by
    kornia. With a large weight the results are near 0 or 1, and no longer calibrated probabilities.

    Args:
        probability: Probabilities (B, K, H, W) of exclusive classes.
        image: Image (1, 1 or 3, H, W) in [-1, 1].
        weight: Weight of the neighbours; 0 for no refinement.
        colour: Standard deviation of the kernel in grey values.
        distance: Standard deviation of the kernel in pixels; the window reaches twice as far on
            each side.
        iterations: Number of mean-field iterations.

    Returns:
        Probabilities (B, K, H, W), summing to 1 over classes.

    Raises:
        UsageError: the extra ``text`` is not installed.
    """
    if weight <= 0.0:
        return probability
    filters = _filters()
    window = 2 * round(2.0 * distance) + 1
    agreed = []
    for one in probability.split(1):  # the filter holds a window of every pixel in memory
        own, found, grey = one.clamp_min(1e-6).log(), one, _grey(image, one)
        for _ in range(iterations):
            near = filters.joint_bilateral_blur(
                found, grey, window, colour, (distance, distance), border_type="replicate"
            )
            found = (own + weight * near).softmax(dim=1)
        agreed.append(found)
    return torch.cat(agreed)


def _filters() -> Any:
    """The filters of kornia."""
    try:
        import kornia.filters
    except ImportError as error:
        raise UsageError("refinement", "needs kornia, which is not installed", INSTALL) from error
    return kornia.filters


def _grey(image: Tensor, maps: Tensor) -> Tensor:
    """The image in grey, (B, 1, H, W), with the batch size, type and device of the maps."""
    return image.mean(dim=1, keepdim=True).expand(len(maps), -1, -1, -1).to(maps)
