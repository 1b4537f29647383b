"""Temperature and vector scaling of probabilities (Guo et al., ICML 2017).

netcal has both for one class against the rest; here the classes of a voxel are scaled together, so
that they still sum to 1, and the reference may be a share of raters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from medsegdiff.core.types import ScalingMethod
from medsegdiff.metrics.calibration_error import NLL_CLAMP

TEMPERATURES = (0.2, 5.0)
BIASES = (-5.0, 5.0)
"""Limits of the fit: without them, the bias of a class without voxels goes to minus infinity."""


@dataclass(frozen=True)
class Scaling:
    """softmax(log(p) / T + b) over a voxel's K classes, background first (Guo et al., sec. 4.2).

    Attributes:
        temperature: Temperature T of each class, above 0; above 1 it lowers overconfidence.
        bias: Bias b of each class; 0 for the background.
    """

    temperature: tuple[float, ...]
    bias: tuple[float, ...]

    @classmethod
    def identity(cls, classes: int) -> Scaling:
        """The scaling that leaves the probabilities of so many classes as they are."""
        return cls((1.0,) * classes, (0.0,) * classes)

    @property
    def changes(self) -> bool:
        """Whether it changes anything."""
        return self != Scaling.identity(len(self.temperature))

    def __call__(self, probability: NDArray[Any]) -> NDArray[np.float32]:
        """Calibrated probabilities (K, *shape) float32, summing to 1.

        Args:
            probability: Probability (K, *shape) in [0, 1], summing to 1. A 0 stays 0.

        >>> milder = Scaling((2.0, 2.0), (0.0, 0.0))
        >>> milder(np.array([[0.8], [0.2]])).round(4).tolist()
        [[0.666700005531311], [0.33329999446868896]]
        """
        factor = np.exp(self.bias)
        scaled = np.stack(
            [
                f * np.power(p, np.float32(1.0 / t), dtype=np.float32)
                for f, t, p in zip(factor, self.temperature, probability, strict=True)
            ]
        )
        return (scaled / scaled.sum(axis=0)).astype(np.float32)


def fit_scaling(
    probability: NDArray[Any],
    share: NDArray[Any],
    weight: NDArray[Any],
    method: ScalingMethod = "vector",
) -> Scaling:
    """The scaling of least negative log-likelihood.

    Args:
        probability: Probability (K, V) of V voxels, in [0, 1].
        share: Share (K, V) of the raters that chose each class; 0 or 1 with one rater.
        weight: Weight (V,) of the voxels, none negative, some above 0.
        method: Method; ``temperature``: one T for all classes and no bias; ``vector``: a T and a b
            for each class.
    """
    k, relative = len(probability), weight / weight.sum()
    log_p = np.log(np.clip(probability, NLL_CLAMP, 1.0).astype(np.float64))

    def unpack(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if method == "temperature":
            return np.full(k, np.exp(x[0])), np.zeros(k)
        return np.exp(x[:k]), np.append(0.0, x[k:])

    def likelihood(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        t, b = unpack(x)
        z = log_p / t[:, None] + b[:, None]
        z -= z.max(axis=0)
        log_q = z - np.log(np.exp(z).sum(axis=0))
        of_z = (np.exp(log_q) * share.sum(axis=0) - share) * relative
        loss = float(-(share * log_q * relative).sum())
        of_log_t = -(of_z * log_p).sum(axis=1) / t
        if method == "temperature":
            return loss, of_log_t.sum(keepdims=True)
        return loss, np.append(of_log_t, of_z.sum(axis=1)[1:])

    limits = [tuple(np.log(TEMPERATURES))]  # the search begins at T = 1 and b = 0
    if method == "temperature":
        found = minimize(likelihood, np.zeros(1), jac=True, method="L-BFGS-B", bounds=limits)
    else:
        bounds = limits * k + [BIASES] * (k - 1)
        x = np.zeros(2 * k - 1)
        found = minimize(likelihood, x, jac=True, method="L-BFGS-B", bounds=bounds)
    temperature, bias = unpack(found.x)
    return Scaling(tuple(temperature.tolist()), tuple(bias.tolist()))
