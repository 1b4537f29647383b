"""Maps and masks that follow the image's edges."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from medsegdiff.core.errors import UsageError
from medsegdiff.prompting.pipeline import INSTALL


def guided(maps: Tensor, image: Tensor, radius: int, eps: float = 0.02) -> Tensor:
    """Guided filtering (He et al., "Guided Image Filtering", PAMI 2013), by kornia.

    Args:
        maps: (B, K, H, W).
        image: (1, 1 or 3, H, W) in [-1, 1], whose edges are followed.
        radius: of the window in pixels; 0: nothing is done.
        eps: contrast, squared, from which on an edge counts.

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
    """Probabilities in which near places that look alike agree: a conditional random field.

    Mean field of Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian
    Edge Potentials", NIPS 2011, with Potts compatibility and the appearance kernel alone, in a
    window, the place itself among its neighbours: each iteration is a joint bilateral filter, by
    kornia. With a large weight what comes out is near 0 or 1: a decision more than a probability.

    Args:
        probability: (B, K, H, W) of exclusive classes.
        image: (1, 1 or 3, H, W) in [-1, 1].
        weight: of the neighbours; 0: nothing is done.
        colour: standard deviation of the kernel in grey values.
        distance: its standard deviation in pixels; the window is twice as far on each side.
        iterations: of the mean field.

    Returns:
        (B, K, H, W), summing to 1 over classes.

    Raises:
        UsageError: the extra ``text`` is not installed.
    """
    if weight <= 0.0:
        return probability
    filters = _filters()
    window = 2 * round(2.0 * distance) + 1
    agreed = []
    for one in probability.split(1):  # a window of every pixel is held in memory
        own, found, grey = one.clamp_min(1e-6).log(), one, _grey(image, one)
        for _ in range(iterations):
            near = filters.joint_bilateral_blur(
                found, grey, window, colour, (distance, distance), border_type="replicate"
            )
            found = (own + weight * near).softmax(dim=1)
        agreed.append(found)
    return torch.cat(agreed)


def _filters() -> Any:
    """Those of kornia."""
    try:
        import kornia.filters
    except ImportError as error:
        raise UsageError("refinement", "needs kornia, which is not installed", INSTALL) from error
    return kornia.filters


def _grey(image: Tensor, maps: Tensor) -> Tensor:
    """(B, 1, H, W) as many and of the same kind as maps."""
    return image.mean(dim=1, keepdim=True).expand(len(maps), -1, -1, -1).to(maps)
