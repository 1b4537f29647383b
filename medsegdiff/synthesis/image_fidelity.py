"""Fidelity of drawn images to real ones, and share of the real variety that they cover."""

from __future__ import annotations

from typing import NamedTuple

import torch
from monai.metrics import FIDMetric
from torch import Tensor


class Fidelity(NamedTuple):
    """Drawn images against real ones, by their features.

    Attributes:
        frechet: Squared Frechet distance of two normal distributions fitted to the features (Heusel
            et al. 2017); 0 at best. It grows with the number of features and with few images, so it
            only says something beside that of real images against other real ones.
        precision: Share of the drawn images that lie where real ones are (Kynkaanniemi et al.
            2019).
        recall: Share of the real images that lie where drawn ones are.
    """

    frechet: float
    precision: float
    recall: float


def fidelity(real: Tensor, drawn: Tensor, neighbours: int = 3) -> Fidelity:
    """Compare features of real images (N, D) and of drawn ones (M, D).

    Args:
        real: Features of real images.
        drawn: Features of drawn images.
        neighbours: Number k; the ball around an image reaches to its k-th nearest of its kind.

    Raises:
        ValueError: too few images, or features of different widths.
    """
    if min(len(real), len(drawn)) <= neighbours or real.shape[1:] != drawn.shape[1:]:
        raise ValueError(
            f"features must be (N, D) and (M, D), of more than {neighbours} images each. "
            f"Got {tuple(real.shape)} and {tuple(drawn.shape)}."
        )
    real, drawn = real.double(), drawn.double()
    frechet = float(FIDMetric()(drawn, real))
    return Fidelity(
        max(frechet, 0.0),
        share_within(drawn, real, neighbours),
        share_within(real, drawn, neighbours),
    )


def share_within(points: Tensor, manifold: Tensor, neighbours: int) -> float:
    """Share of the points within a ball of the manifold (Kynkaanniemi et al. 2019, eq. 1 and 2).

    The manifold is the union of balls around its points, each as wide as the distance to the k-th
    nearest of the others.

    Example:
        >>> share_within(torch.tensor([[0.5], [9.0]]), torch.tensor([[0.0], [1.0], [2.0]]), 1)
        0.5
    """
    among = torch.cdist(manifold, manifold)
    radii = among.kthvalue(neighbours + 1, dim=1).values  # the first is the point itself
    return float((torch.cdist(points, manifold) <= radii).any(dim=1).double().mean())
