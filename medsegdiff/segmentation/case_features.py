"""What is measured of an image and its ensemble, to compare a case with those held out in training.

Nothing is taken from the network's inside, whose meaning each training makes anew: the networks of
a study's folds are fitted together. Channels and classes are counted from 1.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from medsegdiff.core.types import Features, Geometry
from medsegdiff.segmentation.ensemble import Ensemble, most_probable, predictive_entropy
from medsegdiff.triage.log_odds import log_odds

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
LAGS = (1, 2, 4)
"""Distances in voxels over which intensities are compared."""

MOST_VOXELS = 2**20
"""Voxels of an image that are looked at; of a larger one, every n-th along each axis."""

CERTAIN = 0.999
"""Probability of background from which no member has anything else there."""


def case_features(image: Tensor, ensemble: Ensemble) -> Features:
    """The features ``intensity`` and ``ensemble`` of an image, both in the network's space.

    Args:
        image: Image (C, *spatial) as the network sees it.
        ensemble: Its ensemble, not calibrated.
    """
    return {"intensity": _intensity(image), "ensemble": _of_ensemble(ensemble)}


def geometry_features(geometry: Geometry, placed: bool = False) -> dict[str, float]:
    """Logarithms of the spacing and the extent along each axis, the shortest first.

    Args:
        geometry: Geometry of the input.
        placed: Whether only places of it were segmented, whose size says nothing.
    """
    unit = geometry.unit
    spacing = sorted(geometry.spacing)
    extent = sorted(n * s for n, s in zip(geometry.shape, geometry.spacing, strict=True))
    found = {f"spacing {axis} ({unit})": math.log(s) for axis, s in enumerate(spacing, start=1)}
    if not placed:
        found |= {f"extent {axis} ({unit})": math.log(n) for axis, n in enumerate(extent, start=1)}
    return found


def _intensity(image: Tensor) -> dict[str, float]:
    """Quantiles of each channel, and how much voxels differ from their neighbours."""
    step = max(1, math.ceil((image[0].numel() / MOST_VOXELS) ** (1.0 / (image.ndim - 1))))
    found: dict[str, float] = {}
    for number, channel in enumerate(image, start=1):
        some = channel[(slice(None, None, step),) * channel.ndim].float()
        values = np.quantile(some.numpy(), QUANTILES)
        found |= {
            f"quantile {q:g} of channel {number}": float(v)
            for q, v in zip(QUANTILES, values, strict=True)
        }
        scale = float(some.std(correction=0)) + 1e-6
        found |= {
            f"difference at {lag} of channel {number}": _difference(channel, lag, step, scale)
            for lag in LAGS
        }
    return found


def _difference(channel: Tensor, lag: int, step: int, scale: float) -> float:
    """Logarithm of the mean difference of voxels ``lag`` apart, relative to the deviation."""
    every, of_axes = slice(None, None, step), []
    for axis, length in enumerate(channel.shape):
        if length > lag:
            first, second = ([every] * channel.ndim for _ in range(2))
            first[axis], second[axis] = slice(0, length - lag, step), slice(lag, None, step)
            ends = channel[tuple(second)].float(), channel[tuple(first)].float()
            of_axes.append((ends[0] - ends[1]).abs().mean())
    mean = float(torch.stack(of_axes).mean()) if of_axes else 0.0
    return math.log(mean / scale + 1e-3)


def _of_ensemble(ensemble: Ensemble) -> dict[str, float]:
    """Volume, agreement and expected Dice of each class, and how unsure the ensemble is."""
    seen = ensemble.mean[0] < CERTAIN
    mean, labels = ensemble.mean[:, seen], ensemble.labels[:, seen]
    consensus = most_probable(mean[None])[0]
    foreground = float(mean[1:].sum()) + 1.0
    found = {
        "doubt": math.log(float(predictive_entropy(mean).sum()) / foreground + 1e-3),
        "variance": math.log(float(ensemble.variance[:, seen].sum()) / foreground + 1e-4),
    }
    for k in range(1, len(mean)):
        mask, members = consensus == k, labels == k
        expected, size = float(mean[k].sum()), float(mask.sum())
        sizes = members.flatten(1).sum(dim=1).float()
        shared = (members & mask).flatten(1).sum(dim=1).float()
        agreement = float((2.0 * shared / (sizes + size).clamp(min=1.0)).mean())
        inside = float(mean[k][mask].sum())
        found |= {
            f"volume of class {k}": math.log(expected + 1.0),
            f"expected Dice of class {k}": log_odds(2.0 * inside / max(size + expected, 1e-6)),
            f"agreement on class {k}": log_odds(agreement),
            f"spread of volumes of class {k}": math.log(
                (float(sizes.std(correction=0)) + 1.0) / (float(sizes.mean()) + 1.0)
            ),
            f"highest probability of class {k}": log_odds(
                float(mean[k].max()) if mean.shape[1] else 0.0
            ),
            f"members with class {k}": float((sizes > 0).float().mean()),
        }
    return found
